"""Fit contraction rates to error curves, many at once, above a stated round-off floor and with an uncertainty.

How this can fail: the window still holds the transient (then the halves disagree and the uncertainty says so); the
floor is set too low (then the end of the window bends and the halves disagree); a curve with too few points above its
floor has no rate, and none is given.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


Floats = npt.NDArray[np.float64]

MINIMUM_POINTS = 6
"""Fewest points in a window: two halves of three, the least from which a slope and its scatter follow."""


@dataclass(frozen=True)
class RateFit:
    """Fitted rates of C curves.

    Attributes:
        rate: factor per step, NaN where the window has too few points.
        log_uncertainty: uncertainty of ln(rate): three standard errors of the slope, plus the difference of the slopes
            of the window's halves, plus 3/2 of the peak-to-peak scatter over the window's length: the most that
            an oscillation of that height, which complex eigenvalues make, can turn a least-squares slope by.
        points: number of points in each window.
    """

    rate: Floats
    log_uncertainty: Floats
    points: npt.NDArray[np.int64]


def fit_rates(errors: Floats, floors: Floats, *, transient: float = 0.25) -> RateFit:
    """Fit ln(error) = intercept + n ln(rate) to each curve over its window.

    The window runs from the first step to the last one before the error meets its floor (or stops being finite), less
    the leading fraction `transient`.

    Args:
        errors: shape (C, N+1), errors after 0, 1, ..., N steps.
        floors: shape (C,), round-off floors in the unit of the errors; growing curves are never near them.
        transient: fraction of each window that is left out at its start, 0 <= transient < 1.

    Raises:
        ValueError: shapes that do not fit, a negative or NaN floor, or a transient outside [0, 1).
    """
    if errors.ndim != 2 or floors.shape != errors.shape[:1]:
        raise ValueError(f"errors are {errors.shape} and floors {floors.shape}; they must be (C, N+1) and (C,)")
    if not (floors >= 0).all():
        raise ValueError(f"floors are {floors}; they must not be negative or NaN")
    if not (0 <= transient < 1):
        raise ValueError(f"transient is {transient!r}; it must be in [0, 1)")
    usable = np.isfinite(errors) & (errors > floors[:, None]) & (errors > 0)
    end = np.where(usable.all(axis=1), errors.shape[1], np.argmin(usable, axis=1))
    start = np.ceil(transient * end).astype(np.int64)
    steps = np.arange(errors.shape[1])
    window = (steps >= start[:, None]) & (steps < end[:, None])
    middle = ((start + end) // 2)[:, None]
    logs = np.log(np.where(window, errors, 1.0))
    slope, standard_error, scatter = _slopes(logs, window)
    first, _, _ = _slopes(logs, window & (steps < middle))
    second, _, _ = _slopes(logs, window & (steps >= middle))
    points = window.sum(axis=1)
    enough = points >= MINIMUM_POINTS
    return RateFit(
        np.where(enough, np.exp(slope), np.nan),
        np.where(
            enough, 3 * standard_error + np.abs(first - second) + 1.5 * scatter / np.maximum(points - 1, 1), np.nan
        ),
        points,
    )


def _slopes(values: Floats, window: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Slopes over masked windows, their standard errors and the peak-to-peak scatter; NaN with fewer than 2 points."""
    weights = window.astype(np.float64)
    count = weights.sum(axis=1)
    x = np.arange(values.shape[1], dtype=np.float64)[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = (weights * x).sum(axis=1) / count, (weights * values).sum(axis=1) / count
        dx, dy = weights * (x - mean_x[:, None]), weights * (values - mean_y[:, None])
        spread = (dx * dx).sum(axis=1)
        slope = (dx * dy).sum(axis=1) / spread
        deviation = dy - slope[:, None] * dx
        variance = (deviation**2).sum(axis=1) / np.maximum(count - 2, 1)
        return slope, np.sqrt(variance / spread), deviation.max(axis=1) - deviation.min(axis=1)
