"""Numbers of the problems: seeded, representable in bfloat16, with norms bounded in exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from verify.problems.problem import Float64Array, to_bfloat16


_SQUARINGS = 6


def normal(seed: int, shape: tuple[int, ...], scale: float = 1.0) -> Float64Array:
    """Normal numbers of the standard deviation `scale`, rounded to bfloat16."""
    return to_bfloat16(np.random.default_rng(seed).normal(0.0, scale, shape))


def cotangents(seed: int, shape: tuple[int, ...]) -> tuple[Float64Array, Float64Array]:
    """(cotangent_z, cotangent_y): two independent normal arrays of standard deviation 1, rounded to bfloat16."""
    return normal(seed, shape), normal(seed + 1, shape)


def contraction(seed: int, size: int, norm: float) -> Float64Array:
    """A normal size x size matrix scaled to the spectral norm `norm` before it is rounded to bfloat16."""
    matrix = np.random.default_rng(seed).normal(0.0, 1.0, (size, size))
    return to_bfloat16(matrix * (norm / np.linalg.norm(matrix, 2)))


def spectral_norm_bound(matrix: Float64Array) -> float:
    """A proved upper bound on the spectral norm, at most d^(1/128) above it.

        |W|_2 <= trace((W^T W)^64)^(1/128)

    The trace is computed in rational arithmetic (the entries are floats, hence rationals), the root is rounded up.

    Args:
        matrix: (d, d) array.

    Returns:
        The bound as a float64.

    References:
        Horn, Johnson, Matrix Analysis, 2nd ed., Cambridge (2013), section 5.6.
    """
    exact = np.array([[Fraction(value) for value in row] for row in matrix.tolist()], dtype=object)
    power: NDArray[Any] = exact.T @ exact
    for _ in range(_SQUARINGS):
        power = power @ power
    trace = Fraction(sum(power.diagonal().tolist()))
    root = math.exp(math.log(trace) / 2 ** (_SQUARINGS + 1)) if trace else 0.0
    while Fraction(root) ** (2 ** (_SQUARINGS + 1)) < trace:
        root = math.nextafter(root, math.inf)
    return root


@lru_cache(maxsize=1)
def _digit_images() -> Float64Array:
    pixels, _ = load_digits(return_X_y=True)
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 8, 8)


def digit_images(indices: tuple[int, ...], size: int) -> Float64Array:
    """Handwritten digits as (len(indices), size, size) mean intensities in [0, 1], exactly representable in bfloat16.

    Args:
        indices: which of the 1797 images.
        size: 8, or 4 for the means of 2 x 2 pixels (grey levels 0..16, so multiples of 1/64).

    Returns:
        float64 array.

    References:
        Alpaydin, Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), doi:10.24432/C50P49.
    """
    images = _digit_images()[list(indices)] / 16
    pool = 8 // size
    return images.reshape(len(indices), size, pool, size, pool).mean(axis=(2, 4))
