"""All ratios R of a run in one histogram, with the limit and the extremes named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.histogram import RatioBins
from reports.figures.key import precision_order
from reports.figures.panels import WIDTH, axis_labels, grid, legend
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from reports.figures.svg import drawing, to_svg


_COLOURS = (BLUE, ORANGE, PURPLE, GREEN, SKY, BLACK)
_LOW, _HIGH = -4.0, 2.5
"""Decades of R that are shown; what lies beyond is counted in the first or the last bin."""

_BIN = 0.125


def ratio_histogram(
    groups: Mapping[str, Sequence[float]],
    extremes: Sequence[tuple[float, str]],
    *,
    limit: float,
    ceiling: float,
    name: str,
    caption: str,
) -> Drawing:
    """How often each R occurred, on logarithmic axes, so that a single row is seen.

    Args:
        groups: precision -> ratios; zeros are counted in the first bin, what is not finite in the last.
        extremes: (R, its name) of the rows that are pointed out.
        limit: largest R that passes.
        ceiling: R beyond which no explanation is accepted.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    precisions = precision_order(groups)
    bins = RatioBins(math.log10, _LOW, _HIGH, _BIN, precisions, _COLOURS)
    with drawing(name):
        entries = bins.entries()
        entries.append((Line2D([], [], color=VERMILLION, linewidth=2.0), f"limit, R = {limit:g}"))
        entries.append((Line2D([], [], color=VERMILLION, linewidth=1.0, linestyle="--"), f"hard ceiling, {ceiling:g}"))
        # One panel of half the width has one column of the legend; at full width there are four.
        figure, (axes,) = grid(1, columns=1, panel_height=3.1, entries=math.ceil(len(entries) / 4))
        figure.set_size_inches(WIDTH, figure.get_size_inches()[1])
        figure.subplots_adjust(left=0.07, right=0.99)
        for kind in precisions:
            bins.draw(axes, kind, groups[kind])
        axes.axvline(math.log10(limit), color=VERMILLION, linewidth=2.0)
        axes.axvline(math.log10(ceiling), color=VERMILLION, linewidth=1.0, linestyle="--")
        axes.set_yscale("log")
        axes.set_ylim(0.7, None)
        axes.set_xlim(_LOW, _HIGH)
        ticks = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]
        axes.set_xticks(ticks, [f"{10.0**tick:g}" for tick in ticks])
        for place, (value, said) in enumerate(extremes):
            left = value < 1e-1
            axes.annotate(
                said, xy=(bins.place(value), 1.0), xytext=(0.03 if left else 0.99, 0.95 - 0.13 * place),
                textcoords="axes fraction", ha="left" if left else "right", va="top", fontsize=7.5,
                bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
                arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.6}, zorder=5.0,
            )  # fmt: skip
        axis_labels(figure, "R = error over the spread that rounding alone gives", "rows (count)")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)
