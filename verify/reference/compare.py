"""Differences of arrays across precisions, taken without losing the digits that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Array


_DIGITS = 400
"""More than any reference uses: the subtraction is exact wherever the operands agree to within 400 digits."""

_WIDE = Multiprecision(_DIGITS)


def difference(measured: NDArray[Any], expected: Array) -> NDArray[np.float64]:
    """Distance measured - expected, subtracted before it is rounded to float64.

    Args:
        measured: float64, longdouble or mpf array; NaN and infinities stay what they are.
        expected: mpf array of the same shape.

    Returns:
        float64 array of that shape.

    Raises:
        ValueError: the shapes differ (nothing is broadcast).
    """
    got = np.asarray(measured)
    if got.shape != expected.shape:
        raise ValueError(f"shapes {got.shape} and {expected.shape} differ; compare arrays of one shape")
    return _WIDE.to_float64(_WIDE.subtract(_WIDE.convert(got), _WIDE.convert(expected)))


def greatest_difference(measured: NDArray[Any], expected: Array) -> float:
    """Greatest |measured - expected|; 0 for empty arrays, NaN if any difference is NaN."""
    distances = np.abs(difference(measured, expected))
    return float(np.max(distances)) if distances.size else 0.0
