"""Rates of the other ways to the same fixed point, to compare with: Picard, relaxed, and the operator splittings."""

from typing import overload

import torch
from torch import Tensor

from revdeq.rates.arguments import checked_beta, checked_eigenvalue, checked_real, like_inputs


@overload
def picard_rate(kappa: complex) -> float: ...
@overload
def picard_rate(kappa: Tensor) -> Tensor: ...
def picard_rate(kappa: complex | Tensor) -> float | Tensor:
    """Rate |kappa| of z <- f(z) per evaluation of f. A reversible step spends two: compare its rate's square root.

    Args:
        kappa: eigenvalue(s) of df/dz at the fixed point.

    Raises:
        ValueError: an eigenvalue that is not finite, or an empty spectrum.
    """
    return like_inputs(checked_eigenvalue(kappa).abs(), kappa)


@overload
def relaxed_rate(kappa: complex, beta: float) -> float: ...
@overload
def relaxed_rate(kappa: Tensor, beta: float | Tensor) -> Tensor: ...
@overload
def relaxed_rate(kappa: complex, beta: Tensor) -> Tensor: ...
def relaxed_rate(kappa: complex | Tensor, beta: float | Tensor) -> float | Tensor:
    """Rate |1 - beta + beta kappa| of z <- (1-beta) z + beta f(z) per evaluation of f.

    Args:
        kappa: eigenvalue(s) of df/dz at the fixed point.
        beta: relaxation parameter, > 0; broadcasts against kappa.

    Raises:
        ValueError: beta <= 0, or an argument that is not finite, or an empty spectrum.

    References:
        Krasnoselskii (1955); Mann, Proc. AMS 4 (1953), doi:10.1090/S0002-9939-1953-0054846-3.
    """
    b = checked_beta(beta)
    return like_inputs((1 - b + b * checked_eigenvalue(kappa)).abs(), kappa, beta)


def forward_backward_rate(strong_monotonicity: float, lipschitz: float, step: float | None = None) -> float:
    """Rate bound per evaluation of forward-backward splitting for an operator I - W.

        sqrt(1 - 2 alpha m + alpha^2 L^2)

    Args:
        strong_monotonicity: m > 0 with <(I-W) x, x> >= m |x|^2.
        lipschitz: L >= m with |(I-W) x| <= L |x|.
        step: alpha, 0 < alpha < 2 m / L^2; the default m / L^2 is the best, with rate sqrt(1 - m^2/L^2).

    Raises:
        ValueError: an argument outside its range.

    References:
        Winston and Kolter, "Monotone operator equilibrium networks", NeurIPS 2020, arXiv:2006.08591, section 3.
    """
    m, bound = _monotone(strong_monotonicity, lipschitz)
    alpha = m / bound**2 if step is None else step
    checked_real("step", alpha, lambda s: (s > 0) & (s < 2 * m / bound**2), f"between 0 and {2 * m / bound**2:g}")
    return max(0.0, 1 - 2 * alpha * m + (alpha * bound) ** 2) ** 0.5


def peaceman_rachford_rate(strong_monotonicity: float, lipschitz: float, step: float | None = None) -> float:
    """Rate bound of Peaceman-Rachford splitting for an operator I - W, each solve with I + alpha (I-W).

        sqrt((1 - 2 alpha m + alpha^2 L^2) / (1 + 2 alpha m + alpha^2 L^2))

    Sharp over operators with these two constants; best at alpha = 1/L with rate sqrt((L-m)/(L+m)).

    Args:
        strong_monotonicity: m > 0 with <(I-W) x, x> >= m |x|^2.
        lipschitz: L >= m with |(I-W) x| <= L |x|.
        step: alpha > 0; the default is 1/L.

    Raises:
        ValueError: an argument outside its range.

    References:
        Giselsson, "Tight global linear convergence rate bounds for Douglas-Rachford splitting", J. Fixed Point Theory
        Appl. 19 (2017), doi:10.1007/s11784-017-0417-1; Winston and Kolter, arXiv:2006.08591, section 3.
    """
    m, bound = _monotone(strong_monotonicity, lipschitz)
    alpha = 1 / bound if step is None else step
    checked_real("step", alpha, lambda s: s > 0, "positive")
    shared = 1 + (alpha * bound) ** 2
    return max(0.0, (shared - 2 * alpha * m) / (shared + 2 * alpha * m)) ** 0.5


def monotone_constants(linear: Tensor) -> tuple[float, float]:
    """Strong monotonicity m and Lipschitz constant L of the operator I - W of a matrix W.

    Args:
        linear: W, real, shape (d, d).

    Returns:
        (m, L): the smallest eigenvalue of the symmetric part of I - W, and its largest singular value.

    Raises:
        ValueError: W is not a square matrix of finite numbers.
    """
    if linear.ndim != 2 or linear.shape[0] != linear.shape[1] or not bool(torch.isfinite(linear).all()):
        raise ValueError(f"W has shape {tuple(linear.shape)}; it must be a square matrix of finite numbers")
    operator = torch.eye(linear.shape[0], dtype=torch.float64) - linear.detach().to(torch.float64)
    symmetric = (operator + operator.T) / 2
    return float(torch.linalg.eigvalsh(symmetric)[0]), float(torch.linalg.matrix_norm(operator, 2))


def _monotone(strong_monotonicity: float, lipschitz: float) -> tuple[float, float]:
    m = float(
        checked_real(
            "strong_monotonicity", strong_monotonicity, lambda x: x > 0, "positive: the splittings need I - W >= m I"
        )
    )
    return m, float(checked_real("lipschitz", lipschitz, lambda x: x >= m, f"at least strong_monotonicity = {m:g}"))
