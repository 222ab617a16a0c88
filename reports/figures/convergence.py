"""Convergence of the state: one panel per problem, one line per beta, with the predicted rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from reports.content import Drawing
from reports.figures.key import beta_entries
from reports.figures.multiples import Multiples
from reports.figures.style import beta_appearance
from verify.result import Curve


_FLAT = 3.0
_TAIL = 1.25


def until_flat(curve: Curve) -> Curve:
    """The curve up to a little after it has come within a factor of three of its least value.

    What follows is the floor of rounding, which would press the part that is looked at against the axis.
    """
    finite = [value for value in curve.y if math.isfinite(value)]
    if not finite:
        return curve
    first = next(place for place, value in enumerate(curve.y) if value <= _FLAT * min(finite))
    last = _TAIL * curve.x[first]
    kept = max(2, sum(value <= last for value in curve.x))
    return replace(
        curve,
        x=curve.x[:kept],
        y=curve.y[:kept],
        predicted=None if curve.predicted is None else curve.predicted[:kept],
        band=None if curve.band is None else curve.band[:kept],
    )


def convergence(curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
    """Distance to the fixed point against the number of steps.

    Args:
        curves: lines "convergence" of one dtype and device.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    betas = [curve.beta for curve in curves]
    return Multiples(
        x_label=curves[0].x_name,
        y_label=curves[0].y_name,
        look=lambda curve: beta_appearance(curve.beta, betas),
        line=lambda curve: "-",
        prediction="predicted rate",
        band="below the reference's uncertainty",
        columns=3,
        panel_height=2.4,
        floor=1e-20,
        sharex=False,
        log_x=False,
        entries=beta_entries(betas),
    ).render(curves, name=name, caption=caption)
