"""Evaluations of f to a tolerance: one row per equilibrium, one mark per solver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.panels import WIDTH, axis_labels, count_axis, grid, legend
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from reports.figures.svg import drawing, literal, to_svg


_LOOKS: Mapping[str, tuple[str, str, bool]] = {
    "reversible .5": (SKY, "o", False),
    "reversible .8": (BLUE, "o", False),
    "reversible optimal": (GREEN, "o", False),
    "reversible auto": (VERMILLION, "D", False),
    "reversible adaptive": (ORANGE, "s", False),
    "reversible chebyshev": (PURPLE, "^", False),
    "reversible averaged": (BLACK, "v", False),
    "relaxed .5": (SKY, "x", True),
    "picard": (BLACK, "x", True),
    "anderson": (GREEN, "P", True),
    "broyden": (PURPLE, "P", True),
    "forward-backward": (ORANGE, "*", True),
    "peaceman-rachford": (VERMILLION, "*", True),
}
"""Colour, marker, and whether it is hollow: what cannot be reversed."""


def rates_race(evaluations: Mapping[str, Mapping[str, float]], *, name: str, caption: str) -> Drawing:
    """One mark for each solver on the line of each equilibrium; a solver that did not get there has none.

    Args:
        evaluations: equilibrium -> solver -> evaluations of f, NaN where the budget did not do.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    solvers = [label for label in _LOOKS if any(label in found for found in evaluations.values())]
    with drawing(name):
        entries: list[tuple[Artist, str]] = [(_mark(label), label) for label in solvers]
        height = 0.24 * len(evaluations) + 0.4
        # One panel of half the width has one column of the legend; at full width there are four.
        figure, (axes,) = grid(1, columns=1, panel_height=height, entries=math.ceil(len(entries) / 4))
        figure.set_size_inches(WIDTH, figure.get_size_inches()[1])
        figure.subplots_adjust(left=0.16, right=0.98)
        counts: list[float] = []
        for row, found in enumerate(evaluations.values()):
            axes.axhline(row, color="#dddddd", linewidth=0.6)
            for label in solvers:
                value = found.get(label, math.nan)
                if math.isfinite(value):
                    counts.append(max(value, 1.0))
                    colour, marker, hollow = _LOOKS[label]
                    axes.plot(
                        [max(value, 1.0)], [row], color=colour, marker=marker, markersize=6.0, linestyle="none",
                        markerfacecolor="none" if hollow else colour, alpha=0.9,
                    )  # fmt: skip
        count_axis(axes, [2.0**power for power in range(1, 10)])
        axes.set_yticks(range(len(evaluations)), [literal(name) for name in evaluations])
        axes.set_ylim(len(evaluations) - 0.5, -0.5)
        axis_labels(figure, "evaluations of f (count)", "")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)


def solver_order(labels: Sequence[str]) -> list[str]:
    """The solvers in the order of the legend, unknown ones last."""
    known = [label for label in _LOOKS if label in labels]
    return known + sorted(set(labels) - set(known))


def _mark(label: str) -> Line2D:
    colour, marker, hollow = _LOOKS[label]
    face = "none" if hollow else colour
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=6.0, markerfacecolor=face)
