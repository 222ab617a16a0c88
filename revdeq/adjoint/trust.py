"""How many digits of a reversible gradient survive: an estimate from what the backward pass sees anyway."""

import math

import torch


def gradient_error_estimate(
    reconstruction_error: float, start_cotangent: float, num_steps: int, unit_roundoff: float
) -> float:
    """Return the estimated relative error that reversal causes in the gradient.

    With relative reconstruction errors e_k = u r^k after k reversed steps and cotangents that shrink as s^k, where
    r = (E / u)^(1/N) and s is fitted to the norms at the two ends,

        error ~ sum_k s^k e_k / sum_k s^k,      k = 0 ... N - 1.

    The start state may be lost (E of order 1) while the gradient is good, because early steps weigh little.

    Args:
        reconstruction_error: E, the relative error of the rebuilt start state.
        start_cotangent: norm of the cotangent at the start over its norm at the end.
        num_steps: N.
        unit_roundoff: u of the state dtype.

    Returns:
        A number >= 0; inf where a measurement is not finite.

    References:
        The weights are those of the adjoint recursion in McCallum, Arora, Foster, arXiv 2509.12917; the growth factor
        (M1 of the project's theory page) is measured here instead of assumed.
    """
    if not (math.isfinite(reconstruction_error) and math.isfinite(start_cotangent)):
        return math.inf
    if reconstruction_error == 0.0 or num_steps == 0:
        return 0.0
    growth = max(reconstruction_error / unit_roundoff, 1.0) ** (1.0 / num_steps)
    decay = start_cotangent ** (1.0 / num_steps)
    weights = [decay**k for k in range(num_steps)]
    errors = [unit_roundoff * growth**k for k in range(num_steps)]
    return sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)


def significand_bits(dtype: torch.dtype) -> int:
    """Return p, the number of significant bits of a floating dtype: 53 for float64, 24 for float32, 8 for bfloat16."""
    return 1 - round(math.log2(torch.finfo(dtype).eps))
