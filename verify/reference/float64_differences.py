"""The finite differences that users know: central, in float64, of any function of a numpy array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from verify.reference.finite_differences import FiniteDifference


_UNIT_ROUNDOFF = 2.0**-53


def float64_finite_differences(
    function: Callable[[NDArray[np.float64]], float],
    x: NDArray[np.float64],
    direction: NDArray[np.float64],
    *,
    step: float | None = None,
    value_roundoff: float = _UNIT_ROUNDOFF,
) -> FiniteDifference:
    """The central difference (f(x + h d) - f(x - h d)) / (2h) and an estimate of its error.

    The error estimate adds the change from h to 2h, a third of which is the truncation error of order h^2, and the
    rounding of the two values, value_roundoff (|f+| + |f-|) / (2h).

    Args:
        function: array -> float; it may call torch, or anything.
        x: where, any shape.
        direction: along what, the shape of x.
        step: h; by default (value_roundoff)^(1/3) max(1, |x|) / |d|, where the two errors balance.
        value_roundoff: relative accuracy of the function's values; coarser than 2^-53 for a long iteration.

    Returns:
        FiniteDifference with a float value.

    Raises:
        ValueError: direction of another shape or zero, a step that is not positive.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), section 25.6; Nocedal, Wright,
        Numerical Optimization, 2nd ed., Springer (2006), eq. 8.7.
    """
    if x.shape != direction.shape:
        raise ValueError(f"direction has shape {direction.shape} and x {x.shape}; give a direction of the shape of x")
    length = float(np.linalg.norm(direction))
    if not 0 < length < np.inf:
        raise ValueError(f"direction has length {length}; it must be positive and finite")
    balanced = value_roundoff ** (1 / 3) * max(1.0, float(np.linalg.norm(x))) / length
    chosen = balanced if step is None else step
    if not 0 < chosen < np.inf:
        raise ValueError(f"step is {chosen}; it must be positive and finite")

    def quotient(h: float) -> tuple[float, float]:
        plus, minus = float(function(x + h * direction)), float(function(x - h * direction))
        return (plus - minus) / (2 * h), value_roundoff * (abs(plus) + abs(minus)) / (2 * h)

    (value, rounding), (coarse, _) = quotient(chosen), quotient(2 * chosen)
    return FiniteDifference(value, abs(coarse - value) / 3 + rounding, chosen)
