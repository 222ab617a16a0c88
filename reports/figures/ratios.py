"""How large the ratios R are: one panel per check, one histogram per precision, with the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.content import Drawing
from reports.figures.key import precision_order
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, precision_line
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
    edges = [_LOW + _BIN * place for place in range(int((_HIGH - _LOW) / _BIN) + 1)]
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=_COLOURS[place % len(_COLOURS)], linestyle=precision_line(kind)), kind)
            for place, kind in enumerate(precisions)
        ]
        entries.append((Line2D([], [], color=BLACK, linestyle=":"), "limit"))
        figure, places = grid(len(groups), columns=3, panel_height=1.9, entries=len(entries), sharey=False)
        for axes, (check, by_precision) in zip(places, groups.items(), strict=True):
            title(axes, check)
            for place, kind in enumerate(precisions):
                values = [_place(value) for value in by_precision.get(kind, ())]
                if values:
                    axes.hist(
                        values, bins=edges, histtype="step", color=_COLOURS[place % len(_COLOURS)],
                        linestyle=precision_line(kind), linewidth=1.5,
                    )  # fmt: skip
            axes.axvline(math.log2(limits[check]), color=BLACK, linewidth=1.0, linestyle=":")
            axes.set_xlim(_LOW, _HIGH)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axis_labels(figure, "log2 R (bits); R = error / spread that rounding alone gives", "measurements (count)")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)


def _place(value: float) -> float:
    if not math.isfinite(value):
        return _HIGH - _BIN / 2.0
    if value <= 0.0:
        return _LOW + _BIN / 2.0
    return min(max(math.log2(value), _LOW + _BIN / 2.0), _HIGH - _BIN / 2.0)
