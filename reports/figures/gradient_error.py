"""Gradient error against evaluations of f: one panel per problem, one line per method and dtype."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Drawing
from reports.figures.key import method_entries, precision_entries
from reports.figures.multiples import Multiples, curve_line
from reports.figures.style import method_appearance
from verify.result import Curve


def gradient_error(curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
    """The gradient's relative error to one target.

    Args:
        curves: lines "error-vs-evaluations" of one beta, device and target.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    return Multiples(
        x_label=curves[0].x_name,
        y_label=f"relative error of the gradient\nto the {curves[0].target} gradient",
        look=lambda curve: method_appearance(curve.adjoint),
        line=curve_line,
        prediction="predicted size of rounding",
        band="below the reference's uncertainty",
        ceiling=100.0,
        entries=[
            *method_entries(curve.adjoint for curve in curves),
            *precision_entries(curves),
        ],
    ).render(curves, name=name, caption=caption)
