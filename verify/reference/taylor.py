"""The Taylor test: remainders along a line, and the order that they show above the round-off floor.

A gradient is right if the first-order remainder R1(h) = |L(x + h d) - L(x) - h <g, d>| falls like h^2 where R0(h) =
|L(x + h d) - L(x)| falls like h. A fitted order near 1 says that the gradient is wrong. Other causes of a bad order:
steps so large that higher terms rule, remainders below round-off (the floor leaves them out), a direction along which
the second derivative vanishes (order 3), a function with a kink between x and x + h d.

References:
    Farrell, Ham, Funke, Rognes, doi:10.1137/120873558, section 4.1 (the Taylor remainder convergence test).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats


class TooFewPoints(ValueError):
    """Too few remainders stand above the round-off floor to fit an order."""


@dataclass(frozen=True)
class TaylorTable:
    """Remainders at each step.

    Args:
        h: the steps, falling.
        r0: |L(h) - L(0)|, order 1.
        r1: |L(h) - L(0) - h L'(0)|, order 2.
        r2: |L(h) - L(0) - h L'(0) - h^2 L''(0)/2|, order 3; None without a second derivative.
    """

    h: tuple[float, ...]
    r0: tuple[float, ...]
    r1: tuple[float, ...]
    r2: tuple[float, ...] | None


@dataclass(frozen=True)
class FittedOrder:
    """The slope of log(remainder) against log(h).

    Args:
        order: fitted slope.
        uncertainty: half-width of its 95 % confidence interval.
        points: how many remainders were used.
        h: the smallest and the greatest step used.
    """

    order: float
    uncertainty: float
    points: int
    h: tuple[float, float]


def taylor_remainders(
    value: Callable[[Any], Any], derivative: Any, steps: Sequence[Any], second_derivative: Any | None = None
) -> TaylorTable:
    """The remainders of orders 1, 2 (and 3) along a line.

    Args:
        value: h -> L(x + h d), float or mpf; called once at 0 and once per step.
        derivative: <gradient, d>.
        steps: positive steps, in any order.
        second_derivative: d^T H d, for the third-order remainder.

    Returns:
        TaylorTable, steps falling.

    Raises:
        ValueError: no steps, or one that is not positive.
    """
    ordered = sorted(steps, reverse=True)
    if not ordered or not all(step > 0 for step in ordered):
        raise ValueError(f"the steps are {list(steps)}; give at least one, all positive")
    at_zero = value(0 * ordered[0])
    r0: list[float] = []
    r1: list[float] = []
    r2: list[float] = []
    for h in ordered:
        change = value(h) - at_zero
        first = change - h * derivative
        r0.append(abs(float(change)))
        r1.append(abs(float(first)))
        if second_derivative is not None:
            r2.append(abs(float(first - h * h * second_derivative / 2)))
    return TaylorTable(
        h=tuple(float(h) for h in ordered),
        r0=tuple(r0),
        r1=tuple(r1),
        r2=None if second_derivative is None else tuple(r2),
    )


def fitted_order(
    h: Sequence[float],
    remainders: Sequence[float],
    *,
    floor: float,
    margin: float = 64.0,
    max_points: int = 6,
    min_points: int = 4,
) -> FittedOrder:
    """The order of the remainders, by least squares over the smallest steps that stand above round-off.

    Args:
        h: positive steps.
        remainders: one per step.
        floor: absolute round-off of a remainder, such as u (|L(0)| + |L(h)|).
        margin: a remainder counts if it is above margin times floor; 64 keeps round-off below 1.6 %, .02 of an order.
        max_points: only so many of the smallest steps that count are used, where the leading term rules.
        min_points: with fewer the fit is refused.

    Returns:
        FittedOrder.

    Raises:
        TooFewPoints: fewer than min_points remainders are finite and above the floor.
        ValueError: lengths differ, or floor is negative or NaN.
    """
    if len(h) != len(remainders):
        raise ValueError(f"there are {len(h)} steps and {len(remainders)} remainders; give one remainder per step")
    if not floor >= 0:
        raise ValueError(f"floor is {floor}; it must be 0 or positive")
    window = sorted(
        (step, remainder)
        for step, remainder in zip(h, remainders, strict=True)
        if math.isfinite(remainder) and remainder > margin * floor and remainder > 0
    )[:max_points]
    if len(window) < max(min_points, 3):
        raise TooFewPoints(
            f"{len(window)} of {len(h)} remainders stand above {margin:g} times the round-off floor {floor:.3g}; "
            f"at least {max(min_points, 3)} are needed, take larger steps or a higher precision"
        )
    x, y = (np.log([pair[place] for pair in window]) for place in (0, 1))
    fit: Any = scipy.stats.linregress(x, y)
    quantile = float(scipy.stats.t.ppf(0.975, len(window) - 2))
    return FittedOrder(
        order=float(fit.slope),
        uncertainty=quantile * float(fit.stderr),
        points=len(window),
        h=(window[0][0], window[-1][0]),
    )
