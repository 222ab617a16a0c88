"""Reconstruction error of the reversed states against the number of steps, with the predicted envelope."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Drawing
from reports.figures.key import beta_entries, precision_entries
from reports.figures.multiples import Multiples, curve_line
from reports.figures.style import beta_appearance
from verify.result import Curve


def reconstruction(curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
    """How far the start state that the inverse returns lies from the true one.

    Args:
        curves: lines "reconstruction" of one device.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    betas = [curve.beta for curve in curves]
    return Multiples(
        x_label=curves[0].x_name,
        y_label=curves[0].y_name,
        look=lambda curve: beta_appearance(curve.beta, betas),
        line=curve_line,
        prediction="predicted by rounding alone",
        band="below the reference's uncertainty",
        columns=3,
        panel_height=2.3,
        log_x=False,
        entries=[*beta_entries(betas), *precision_entries(curves)],
    ).render(curves, name=name, caption=caption)
