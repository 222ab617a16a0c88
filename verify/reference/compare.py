"""Differences of arrays across precisions, taken without losing the digits that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Array


# Operands are converted without rounding and their difference is rounded once, so 20 digits serve every precision.
_EXACT_OPERANDS = Multiprecision(20)


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
    return _EXACT_OPERANDS.to_float64(
        _EXACT_OPERANDS.subtract(_EXACT_OPERANDS.convert(got), _EXACT_OPERANDS.convert(expected))
    )


def greatest_difference(measured: NDArray[Any], expected: Array) -> float:
    """Greatest |measured - expected|; 0 for empty arrays, NaN if any difference is NaN."""
    distances = np.abs(difference(measured, expected))
    return float(np.max(distances)) if distances.size else 0.0
