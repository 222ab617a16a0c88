"""Arguments of the rate functions: numbers or tensors, checked, taken to double precision and handed back alike."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def checked_real(name: str, value: float | Tensor, holds: Callable[[Tensor], Tensor], allowed: str) -> Tensor:
    """Return `value` as a float64 tensor, every entry of which is finite and satisfies `holds`.

    Args:
        name: what the argument is called, for the message.
        value: a real number or a real tensor of any shape.
        holds: elementwise condition on the float64 tensor.
        allowed: the condition in words; completes the sentence "name is ...; it must be ...".

    Raises:
        TypeError: `value` is complex or not a number.
        ValueError: an entry is not finite or violates the condition.
    """
    tensor = _as_tensor(name, value)
    if tensor.is_complex():
        raise TypeError(f"{name} is {value!r}; it must be real, only the eigenvalues kappa may be complex")
    tensor = tensor.to(torch.float64)
    good = torch.isfinite(tensor) & holds(tensor)
    if not bool(good.all()):
        worst = tensor[~good].flatten()[0].item() if tensor.ndim else tensor.item()
        raise ValueError(f"{name} is {worst!r}; it must be {allowed}")
    return tensor


def checked_beta(beta: float | Tensor, *, reversible: bool = False) -> Tensor:
    """Return beta as float64, positive and finite, and different from 1 where the step has to be undone."""
    if reversible:
        return checked_real(
            "beta",
            beta,
            lambda b: (b > 0) & (b != 1),
            "positive and different from 1, because at beta = 1 a step keeps nothing of its start and cannot be undone",
        )
    return checked_real("beta", beta, lambda b: b > 0, "positive and finite")


def checked_constant(contraction_constant: float | Tensor, *, contraction: bool = False) -> Tensor:
    """Return a Lipschitz constant as float64: not negative, and below 1 where a contraction is needed."""
    name = "contraction_constant"
    if contraction:
        return checked_real(
            name,
            contraction_constant,
            lambda k: (k >= 0) & (k < 1),
            "at least 0 and less than 1, because only a contraction is sure to have a fixed point that is reached "
            "(for other maps use spectrum='imaginary' or an averaged map)",
        )
    return checked_real(name, contraction_constant, lambda k: k >= 0, "finite and not negative")


def checked_semi_axis(name: str, value: float | Tensor, *, below_one: bool = False) -> Tensor:
    """Return a semi-axis of an ellipse of eigenvalues as float64: not negative, and below 1 where that is needed."""
    if below_one:
        return checked_real(
            name,
            value,
            lambda p: (p >= 0) & (p < 1),
            "at least 0 and less than 1, because no beta converges for an eigenvalue of real part 1 or more in modulus "
            "(an averaged map does for real part <= -1)",
        )
    return checked_real(name, value, lambda p: p >= 0, "finite and not negative")


def checked_eigenvalue(kappa: complex | Tensor) -> Tensor:
    """Return eigenvalues as a complex128 tensor, all finite.

    Raises:
        ValueError: an entry is not finite, or the spectrum is empty.
    """
    tensor = _as_tensor("kappa", kappa).to(torch.complex128)
    if tensor.numel() == 0:
        raise ValueError("kappa is an empty spectrum: pass at least one eigenvalue of df/dz")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"kappa is {kappa!r}; it must be finite: the Jacobian overflowed or holds NaN")
    return tensor


def like_inputs(result: Tensor, *inputs: complex | Tensor) -> Any:
    """Return a plain number when no input was a tensor, and the tensor otherwise."""
    if any(isinstance(value, Tensor) for value in inputs):
        return result
    return result.item()


def _as_tensor(name: str, value: complex | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, bool) or not isinstance(value, (int, float, complex)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a number or a tensor")
    return torch.tensor(value, dtype=torch.complex128 if isinstance(value, complex) else torch.float64)
