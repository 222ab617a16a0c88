"""Rigorous statements about matrices of balls: norms, spectral radius, solutions of linear systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import acb, acb_mat, arb, arb_mat
from numpy.typing import NDArray

from verify.reference.arithmetic import Array
from verify.reference.arithmetic.precision import flint_precision


def matrix(balls: Array) -> arb_mat:
    """An arb_mat of an object array of shape (m, n)."""
    return arb_mat(balls.shape[0], balls.shape[1], balls.ravel().tolist())


def exact_matrix(values: NDArray[np.float64]) -> arb_mat:
    """An arb_mat with float64 entries, exactly."""
    return arb_mat(values.shape[0], values.shape[1], values.ravel().tolist())


def float_matrix(values: arb_mat) -> NDArray[np.float64]:
    """The float64 nearest to every midpoint."""
    return np.array([float(value) for value in values.entries()]).reshape(values.nrows(), values.ncols())


def identity(size: int) -> arb_mat:
    """The identity matrix."""
    return arb_mat(size, size, [int(row == column) for row in range(size) for column in range(size)])


def _row_sums(values: Any) -> list[arb]:
    return [sum((abs(entry).abs_upper() for entry in row), arb(0)).abs_upper() for row in values.tolist()]


def inf_norm(values: Any) -> arb:
    """An upper bound of max_i sum_j |a_ij| of a matrix of real or complex balls."""
    result = arb(0)
    for total in _row_sums(values):
        result = total.max(result).abs_upper()
    return result


def off_identity(values: arb_mat) -> arb:
    """An upper bound of ||M - I||_2 <= sqrt(||M - I||_1 ||M - I||_inf)."""
    difference = values - identity(values.nrows())
    return (inf_norm(difference) * inf_norm(difference.transpose())).sqrt().abs_upper()


@dataclass(frozen=True)
class NormBound:
    """||A||_2 is between `lower` and `upper` for every matrix A of the enclosure.

    Attributes:
        lower: a number that ||A||_2 reaches or passes.
        upper: a number that ||A||_2 does not pass.
        left, right: the approximate singular vectors with which it was proved; float64.
    """

    lower: arb
    upper: arb
    left: NDArray[np.float64]
    right: NDArray[np.float64]


def euclidean_norm(values: arb_mat, bits: int) -> NormBound:
    """Rigorous bounds of the spectral norm.

    With approximate singular vectors U, V from float64: A = U^-T B V^-1 with B = U^T A V nearly diagonal, so
    ||A|| <= ||B|| / sqrt((1 - ||U^T U - I||) (1 - ||V^T V - I||)), ||B||^2 <= ||B||_1 ||B||_inf, and
    ||A|| >= |A v| / |v| for the first right singular vector v.

    Args:
        values: square matrix of balls.
        bits: working precision.

    References:
        S. M. Rump, Verified bounds for singular values, BIT Numer. Math. 51 (2011), doi:10.1007/s10543-010-0294-0.
    """
    if values.nrows() == 0:
        return NormBound(arb(0), arb(0), np.zeros((0, 0)), np.zeros((0, 0)))
    left, _, right = np.linalg.svd(float_matrix(values))
    return norm_by_vectors(values, left, right.T, bits)


def norm_by_vectors(values: arb_mat, left: NDArray[np.float64], right: NDArray[np.float64], bits: int) -> NormBound:
    """`euclidean_norm` with given approximate singular vectors, as columns."""
    with flint_precision(bits):
        u, v = exact_matrix(left), exact_matrix(right)
        b = u.transpose() * values * v
        size = (inf_norm(b) * inf_norm(b.transpose())).sqrt()
        defect = (1 - off_identity(u.transpose() * u)) * (1 - off_identity(v.transpose() * v))
        upper = (size / defect.sqrt()).upper() if defect > 0 else arb("inf")
        first = exact_matrix(right[:, :1])
        image = values * first
        length = sum((entry * entry for entry in image.entries()), arb(0)).sqrt()
        lower = (length / sum((entry * entry for entry in first.entries()), arb(0)).sqrt()).lower()
    return NormBound(lower, upper, left, right)


def spectral_radius_bound(values: arb_mat, bits: int) -> arb:
    """An upper bound of the spectral radius: ||X^-1 A X||_inf with approximate eigenvectors X.

    Infinite where the eigenvector matrix is too near to a singular one (a defective matrix).

    References:
        R. A. Horn and C. R. Johnson, Matrix Analysis, 2nd ed. (2013), corollary 6.1.5 with similarity.
    """
    if values.nrows() == 0:
        return arb(0)
    _, vectors = np.linalg.eig(float_matrix(values))
    size = values.nrows()
    with flint_precision(bits):
        x = acb_mat(size, size, [acb(value.real, value.imag) for value in vectors.astype(complex).ravel().tolist()])
        try:
            similar = x.solve(acb_mat(values) * x)
        except ZeroDivisionError:
            return arb("inf")
        bound = inf_norm(similar)
    return bound if bound.is_finite() else arb("inf")


def solve(values: arb_mat, right: arb_mat, bits: int) -> arb_mat | None:
    """The enclosure of A^-1 b, or None where the balls do not exclude a singular matrix."""
    with flint_precision(bits):
        try:
            return values.solve(right)
        except ZeroDivisionError:
            return None
