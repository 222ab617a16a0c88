"""Convergence of the state: one panel per problem, one line per beta, with the predicted rate."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Drawing
from reports.figures.key import beta_entries
from reports.figures.multiples import Multiples
from reports.figures.style import beta_appearance
from verify.result import Curve


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
        panel_height=2.3,
        floor=1e-20,
        log_x=False,
        entries=beta_entries(betas),
    ).render(curves, name=name, caption=caption)
