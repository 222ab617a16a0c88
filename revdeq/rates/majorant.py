"""Two-by-two matrices that carry one step: the step on an eigenvector, the majorants of its errors and its inverse."""

import torch
from torch import Tensor

from revdeq.rates.arguments import checked_beta, checked_constant, checked_eigenvalue


def step_matrix(kappa: complex | Tensor, beta: float | Tensor) -> Tensor:
    """One step on the coordinates (y, z) along an eigenvector of df/dz with eigenvalue kappa.

        M = [[a, beta kappa], [a beta kappa, a + beta^2 kappa^2]],     det M = a^2,     a = 1 - beta

    Args:
        kappa: eigenvalue(s), real or complex.
        beta: relaxation parameter, > 0; broadcasts against kappa.

    Returns:
        complex128 tensor of shape (..., 2, 2).

    Raises:
        ValueError: beta <= 0, or an argument that is not finite, or an empty spectrum.

    References:
        (T1, T2).
    """
    k, b = torch.broadcast_tensors(checked_eigenvalue(kappa), checked_beta(beta))
    a, w = (1 - b).to(torch.complex128), b * k
    return _matrix(a, w, a * w, a + w * w)


def forward_majorant(beta: float | Tensor, contraction_constant: float | Tensor) -> Tensor:
    """Matrix F that bounds the distances of two runs, (|y - y~|, |z - z~|), after a step by F times those before it.

        F = [[|a|, c], [c |a|, |a| + c^2]],     c = beta k,     a = 1 - beta

    Holds for every map with Lipschitz constant k in any norm, linear or not; with the fixed point as the second run it
    bounds the error. Its spectral radius is `worst_rate`. Its transpose bounds the adjoint iteration's cotangents.

    Args:
        beta: relaxation parameter, > 0.
        contraction_constant: Lipschitz constant k of f in z, >= 0.

    Returns:
        float64 tensor of shape (..., 2, 2), entries >= 0.

    Raises:
        ValueError: beta <= 0, k < 0, or an argument that is not finite.

    References:
        (T3).
    """
    b, k = torch.broadcast_tensors(checked_beta(beta), checked_constant(contraction_constant))
    a, c = (1 - b).abs(), b * k
    return _matrix(a, c, c * a, a + c * c)


def reverse_majorant(beta: float | Tensor, contraction_constant: float | Tensor) -> Tensor:
    """Matrix Rv that bounds the distances (|y - y~|, |z - z~|) before a step by Rv times those after it.

        Rv = [[A (1 + A c^2), A^2 c], [A c, A]],     A = 1/|a|,     c = beta k,     a = 1 - beta

    Its spectral radius is worst_rate / a^2.

    Args:
        beta: relaxation parameter, > 0 and different from 1.
        contraction_constant: Lipschitz constant k of f in z, >= 0.

    Returns:
        float64 tensor of shape (..., 2, 2), entries >= 0.

    Raises:
        ValueError: beta <= 0 or beta = 1, k < 0, or an argument that is not finite.

    References:
        (T7).
    """
    b, k = torch.broadcast_tensors(checked_beta(beta, reversible=True), checked_constant(contraction_constant))
    amplification, c = 1 / (1 - b).abs(), b * k
    return _matrix(
        amplification * (1 + amplification * c * c), amplification**2 * c, amplification * c, amplification.clone()
    )


def error_floor(beta: float, contraction_constant: float, local_error: tuple[float, float]) -> tuple[float, float]:
    """Bounds on (|y - z*|, |z - z*|) that rounding leaves: (I - F)^-1 (l_y, c l_y + l_z).

    Args:
        beta: relaxation parameter with worst_rate < 1.
        contraction_constant: Lipschitz constant k of f in z, < 1.
        local_error: (l_y, l_z), bounds on what rounding adds to y and to z in their half steps, in the norm of the
            states; l <= u (|a||y| + beta |f| + |y'|) + beta eps_f.

    Returns:
        The two bounds, in the unit of `local_error`.

    Raises:
        ValueError: the worst rate is not below 1, so that rounding has no bounded effect.

    References:
        (T3, T7). Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. (2002), chapter 17,
        doi:10.1137/1.9780898718027.
    """
    majorant = forward_majorant(beta, contraction_constant)
    c = beta * contraction_constant
    if not (abs(1 - beta) + c < 1):
        raise ValueError(
            f"beta = {beta:g} with contraction_constant = {contraction_constant:g} is not sure to converge: "
            "take 0 < beta < 2/(1+k) with k < 1"
        )
    local_y, local_z = local_error
    source = torch.tensor([local_y, c * local_y + local_z], dtype=torch.float64)
    bound = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - majorant, source)
    return float(bound[0]), float(bound[1])


def _matrix(upper_left: Tensor, upper_right: Tensor, lower_left: Tensor, lower_right: Tensor) -> Tensor:
    upper = torch.stack([upper_left, upper_right], dim=-1)
    return torch.stack([upper, torch.stack([lower_left, lower_right], dim=-1)], dim=-2)
