"""Where the iteration converges in the plane of eigenvalues, with the eigenvalues of every equilibrium on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, SKY, VERMILLION
from reports.figures.svg import drawing, to_svg
from revdeq.rates import region_semi_axes
from verify.result import Curve


_BETAS = ((0.25, SKY), (0.5, BLUE), (0.8, GREEN), (1.25, ORANGE), (1.6, VERMILLION))
DRAWN_BETAS = tuple(beta for beta, _ in _BETAS)
"""The betas whose regions are drawn."""

_ANGLES = 61
_WIDE, _HIGH = 1.4, 1.5


def rates_regions(curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
    """Ellipses with semi-axes 1 and (2 - beta) / beta, inside of which eigenvalues must lie; one panel an equilibrium.

    Args:
        curves: lines "eigenvalues".
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    angles = [2.0 * math.pi * place / (_ANGLES - 1) for place in range(_ANGLES)]
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=colour), f"converges inside, beta {beta:g}") for beta, colour in _BETAS
        ]
        entries.append((Line2D([], [], color=BLACK, linestyle="none", marker="."), "eigenvalues of df/dz"))
        figure, places = grid(len(curves), columns=5, panel_height=2.0, entries=len(entries))
        for axes, curve in zip(places, curves, strict=True):
            title(axes, curve.problem)
            for beta, colour in _BETAS:
                across, up = region_semi_axes(beta)
                x = [across * math.cos(angle) for angle in angles]
                axes.plot(x, [up * math.sin(angle) for angle in angles], color=colour, linewidth=1.0)
            axes.plot(curve.x, curve.y, color=BLACK, linestyle="none", marker=".", markersize=3.5)
            axes.set_xlim(-_WIDE, _WIDE)
            axes.set_ylim(-_HIGH, _HIGH)
        axis_labels(figure, "real part", "imaginary part")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)
