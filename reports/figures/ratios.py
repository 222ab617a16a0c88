"""How large the ratios R are: one panel per check, one histogram per precision, with the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.content import Drawing
from reports.figures.histogram import RatioBins
from reports.figures.key import precision_order
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE
from reports.figures.svg import drawing, to_svg


_COLOURS = (BLUE, ORANGE, PURPLE, GREEN)
_LOW, _HIGH = -10, 6
_BIN = 0.5


def ratios(
    groups: Mapping[str, Mapping[str, Sequence[float]]], *, limits: Mapping[str, float], name: str, caption: str
) -> Drawing:
    """Histograms of log2 R.

    Args:
        groups: check -> precision -> the ratios R; what is not finite is counted in the last bin, zeros in the first.
        limits: check -> the largest R that passes.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    precisions = precision_order(kind for by_precision in groups.values() for kind in by_precision)
    bins = RatioBins(math.log2, _LOW, _HIGH, _BIN, precisions, _COLOURS)
    with drawing(name):
        entries = bins.entries()
        entries.append((Line2D([], [], color=BLACK, linestyle=":"), "limit"))
        figure, places = grid(len(groups), columns=3, panel_height=1.9, entries=len(entries), sharey=False)
        for axes, (check, by_precision) in zip(places, groups.items(), strict=True):
            title(axes, check)
            for kind in precisions:
                if by_precision.get(kind):
                    bins.draw(axes, kind, by_precision[kind])
            axes.axvline(math.log2(limits[check]), color=BLACK, linewidth=1.0, linestyle=":")
            axes.set_xlim(_LOW, _HIGH)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axis_labels(figure, "log2 R (bits); R = error / spread that rounding alone gives", "measurements (count)")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)
