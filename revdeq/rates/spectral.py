"""How fast the reversible iteration converges: per eigenvalue, over an ellipse of them, and in the worst case."""

from typing import overload

import torch
from torch import Tensor

from revdeq.rates.arguments import (
    checked_beta,
    checked_constant,
    checked_eigenvalue,
    checked_real,
    checked_semi_axis,
    like_inputs,
)


def step_eigenvalues(kappa: complex | Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of one reversible step for an eigenvalue kappa of df/dz, the larger in modulus first.

        (lambda - a)^2 = beta^2 kappa^2 lambda,     lambda_1 lambda_2 = a^2,     a = 1 - beta

    With s = sqrt(lambda) the quadratic is s^2 -+ beta kappa s - a = 0; the larger root has no cancellation and the
    smaller one follows from the product.

    Args:
        kappa: eigenvalue(s) of df/dz at the fixed point, real or complex.
        beta: relaxation parameter, > 0; broadcasts against kappa.

    Returns:
        Two complex128 tensors of the broadcast shape.

    Raises:
        ValueError: beta <= 0, or an argument that is not finite, or an empty spectrum.

    References:
        (T2). Young, "Iterative methods for solving partial difference equations of elliptic type", Trans. AMS 76
        (1954), doi:10.1090/S0002-9947-1954-0059635-7: successive over-relaxation with omega = beta on the two-block
        system y = f(z), z = f(y).
    """
    w = checked_beta(beta) * checked_eigenvalue(kappa)
    a = 1 - checked_beta(beta)
    root = torch.sqrt(w * w + 4 * a)
    plus, minus = w + root, w - root
    larger = (torch.where(plus.abs() >= minus.abs(), plus, minus) / 2) ** 2
    smaller = torch.where(larger == 0, torch.zeros_like(larger), (a * a) / torch.where(larger == 0, 1.0, larger))
    return larger, smaller


@overload
def spectral_rate(kappa: complex, beta: float) -> float: ...
@overload
def spectral_rate(kappa: Tensor, beta: float | Tensor) -> Tensor: ...
@overload
def spectral_rate(kappa: complex, beta: Tensor) -> Tensor: ...
def spectral_rate(kappa: complex | Tensor, beta: float | Tensor) -> float | Tensor:
    """Asymptotic contraction rate of a step (two evaluations of f) for an eigenvalue kappa of df/dz.

        rho(kappa, beta) = max |lambda|   over   (lambda - a)^2 = beta^2 kappa^2 lambda

    Args:
        kappa: eigenvalue(s) of df/dz at the fixed point, real or complex.
        beta: relaxation parameter, > 0; broadcasts against kappa.

    Returns:
        The rate: a float for numbers, a float64 tensor for tensors. Never below |1 - beta| (Kahan 1958).

    Raises:
        ValueError: beta <= 0, or an argument that is not finite, or an empty spectrum.

    References:
        (T2). Young (1954), doi:10.1090/S0002-9947-1954-0059635-7.
    """
    return like_inputs(step_eigenvalues(kappa, beta)[0].abs(), kappa, beta)


@overload
def ellipse_rate(beta: float, real: float, imaginary: float) -> float: ...
@overload
def ellipse_rate(beta: Tensor, real: float | Tensor, imaginary: float | Tensor) -> Tensor: ...
@overload
def ellipse_rate(beta: float, real: Tensor, imaginary: float | Tensor) -> Tensor: ...
@overload
def ellipse_rate(beta: float, real: float, imaginary: Tensor) -> Tensor: ...
def ellipse_rate(beta: float | Tensor, real: float | Tensor, imaginary: float | Tensor) -> float | Tensor:
    """Largest spectral rate over all eigenvalues in an ellipse with semi-axes `real` and `imaginary` round 0.

    The set {kappa : rho(kappa, beta) <= r} is itself an ellipse, with semi-axes (r - a)/(beta sqrt(r)) and
    (r + a)/(beta sqrt(r)); the rate is the smallest r >= |a| whose ellipse holds the given one. `real = imaginary = k`
    is the disc of all contractions (`worst_rate`), `imaginary = 0` a real spectrum, `real = 0` an imaginary one.

    Args:
        beta: relaxation parameter, > 0.
        real: semi-axis p along the real axis, >= 0.
        imaginary: semi-axis q along the imaginary axis, >= 0.

    Returns:
        The rate per step (two evaluations of f).

    Raises:
        ValueError: beta <= 0, a negative semi-axis, or an argument that is not finite.

    References:
        (T2). Kredell, "On complex successive overrelaxation", BIT 2 (1962) 16-23; survey: Hadjidimos, J. Comput. Appl.
        Math. 123 (2000) 177-199.
    """
    b, p, q = checked_beta(beta), checked_semi_axis("real", real), checked_semi_axis("imaginary", imaginary)
    a = 1 - b
    # Each axis asks for the larger root of s^2 - beta p s - a = 0 and s^2 - beta q s + a = 0, s = sqrt(r). A negative
    # discriminant means that the axis lies inside the level r = |a| already.
    s_real = (b * p + torch.sqrt(torch.clamp(b * b * p * p + 4 * a, min=0))) / 2
    s_imaginary = (b * q + torch.sqrt(torch.clamp(b * b * q * q - 4 * a, min=0))) / 2
    rate = torch.maximum(torch.maximum(s_real, s_imaginary) ** 2, a.abs())
    return like_inputs(rate, beta, real, imaginary)


@overload
def worst_rate(beta: float, contraction_constant: float) -> float: ...
@overload
def worst_rate(beta: Tensor, contraction_constant: float | Tensor) -> Tensor: ...
@overload
def worst_rate(beta: float, contraction_constant: Tensor) -> Tensor: ...
def worst_rate(beta: float | Tensor, contraction_constant: float | Tensor) -> float | Tensor:
    """Sharp worst-case rate of a step over all maps with Lipschitz constant k, non-linear ones included.

        rho*(beta, k) = ((beta k + sqrt(beta^2 k^2 + 4 |1-beta|)) / 2)^2

    Attained by f(z) = k z for beta <= 1 and by k times a quarter turn for beta > 1 (so in dimension 2 or more). For
    k < 1 it is below 1 exactly for 0 < beta < 2/(1+k); for k >= 1 it never is.

    Args:
        beta: relaxation parameter, > 0.
        contraction_constant: Lipschitz constant k of f in z, >= 0.

    Returns:
        The rate per step (two evaluations of f): spectral radius of `forward_majorant`.

    Raises:
        ValueError: beta <= 0, k < 0, or an argument that is not finite.

    References:
        (T3). Bounds without the sharp constant: McCallum, Arora, Foster, arXiv:2509.12917.
    """
    b, k = checked_beta(beta), checked_constant(contraction_constant)
    c = b * k
    return like_inputs(((c + torch.sqrt(c * c + 4 * (1 - b).abs())) / 2) ** 2, beta, contraction_constant)


@overload
def paper_bound(beta: float, contraction_constant: float) -> float: ...
@overload
def paper_bound(beta: Tensor, contraction_constant: float | Tensor) -> Tensor: ...
@overload
def paper_bound(beta: float, contraction_constant: Tensor) -> Tensor: ...
def paper_bound(beta: float | Tensor, contraction_constant: float | Tensor) -> float | Tensor:
    """The published rate of a step, for comparison: L = |1-beta| + beta k.

    It bounds the worst rate only where it is at most 1; beyond that the sharp rate is the larger of the two.

    Args:
        beta: relaxation parameter, > 0.
        contraction_constant: Lipschitz constant k of f in z, >= 0.

    Returns:
        L per step. L^2 per step is not a bound.

    Raises:
        ValueError: beta <= 0, k < 0, or an argument that is not finite.

    References:
        McCallum, Arora, Foster, arXiv:2509.12917.
    """
    b, k = checked_beta(beta), checked_constant(contraction_constant)
    return like_inputs((1 - b).abs() + b * k, beta, contraction_constant)


def region_semi_axes(beta: float, rate: float = 1.0) -> tuple[float, float]:
    """Semi-axes (real, imaginary) of the ellipse {kappa : rho(kappa, beta) <= rate}.

        real = (r - a) / (beta sqrt(r)),     imaginary = (r + a) / (beta sqrt(r)),     a = 1 - beta

    For rate 1, the region of convergence, they are 1 and (2 - beta) / beta.

    Args:
        beta: relaxation parameter, 0 < beta < 2.
        rate: level r, |1 - beta| <= r.

    Raises:
        ValueError: beta outside (0, 2), or a rate below |1 - beta|, which no eigenvalue reaches.

    References:
        (T5). Kredell, BIT 2 (1962) 16-23.
    """
    b = checked_real("beta", beta, lambda x: (x > 0) & (x < 2), "between 0 and 2, where a region exists")
    a = float(1 - b)
    r = checked_real("rate", rate, lambda x: (x > 0) & (x >= abs(a)), f"positive and at least |1 - beta| = {abs(a):g}")
    scale = float(b) * float(r) ** 0.5
    return (float(r) - a) / scale, (float(r) + a) / scale


@overload
def in_convergence_region(kappa: complex, beta: float) -> bool: ...
@overload
def in_convergence_region(kappa: Tensor, beta: float | Tensor) -> Tensor: ...
@overload
def in_convergence_region(kappa: complex, beta: Tensor) -> Tensor: ...
def in_convergence_region(kappa: complex | Tensor, beta: float | Tensor) -> bool | Tensor:
    """Whether the iteration converges near a fixed point for the eigenvalue kappa of df/dz.

        (Re kappa)^2 + (beta/(2-beta))^2 (Im kappa)^2 < 1   and   0 < beta < 2

    As beta -> 0 the ellipse tends to the strip |Re kappa| < 1. No beta converges for a real kappa outside (-1, 1).

    Args:
        kappa: eigenvalue(s) of df/dz at the fixed point, real or complex.
        beta: relaxation parameter, > 0; broadcasts against kappa.

    Raises:
        ValueError: beta <= 0, or an argument that is not finite, or an empty spectrum.

    References:
        (T5). Niethammer, "On different splittings and the associated iteration methods", SIAM J. Numer. Anal. 16
        (1979) 186-200.
    """
    b, k = checked_beta(beta), checked_eigenvalue(kappa)
    inside = k.real**2 * (2 - b) ** 2 + (b * k.imag) ** 2 < (2 - b) ** 2
    return like_inputs(inside & (b < 2), kappa, beta)
