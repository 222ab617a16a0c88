"""Bytes that the graph keeps between forward and backward, against the number of steps."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Drawing
from reports.figures.key import method_entries, precision_entries
from reports.figures.multiples import Multiples, curve_line
from reports.figures.style import method_appearance
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
        columns=3,
        panel_height=2.3,
        sharey=False,
        entries=[
            *method_entries(curve.adjoint for curve in curves),
            *precision_entries(curves),
        ],
    ).render(curves, name=name, caption=caption)
