"""Bytes that the graph keeps between forward and backward, against the number of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.content import Drawing
from reports.figures.key import method_entries, precision_entries
from reports.figures.multiples import Multiples, curve_line
from reports.figures.style import method_appearance
from reports.text import binary_size
from verify.result import Curve


def memory(curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
    """Saved bytes of each adjoint.

    Args:
        curves: lines "memory" of one device.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    return Multiples(
        x_label=curves[0].x_name,
        y_label=curves[0].y_name,
        look=lambda curve: method_appearance(curve.adjoint),
        line=curve_line,
        prediction="predicted",
        columns=4,
        panel_height=1.8,
        sharey=False,
        entries=[
            *method_entries(curve.adjoint for curve in curves),
            *precision_entries(curves),
        ],
    ).render(curves, name=name, caption=f"{caption} {_growth(curves)}".rstrip())


def _growth(curves: Sequence[Curve]) -> str:
    """What each adjoint keeps for one step more, between the two largest numbers of steps."""
    slopes: dict[str, list[float]] = {}
    for curve in curves:
        if len(curve.x) > 1:
            slope = (curve.y[-1] - curve.y[-2]) / (curve.x[-1] - curve.x[-2])
            slopes.setdefault(curve.adjoint, []).append(slope)
    said: list[str] = []
    for adjoint, found in slopes.items():
        low, high = (math.nan, math.nan) if any(map(math.isnan, found)) else (min(found), max(found))
        span = binary_size(low) if low == high else f"{binary_size(low)} to {binary_size(high)}"
        said.append(f"{method_appearance(adjoint).label} {span}")
    return f"Growth for one step more, at the largest N: {', '.join(said)}." if said else ""
