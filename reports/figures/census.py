"""The census of all 16-bit states: bits forgotten and bits wrong against beta, with their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.key import broken_entry
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from reports.figures.svg import drawing, to_svg
from verify.result import Curve


_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#8B5A2B", "#666666")
_MARKERS = ("o", "s", "^", "D", "P", "v", "*")


def census(curves: Sequence[Curve], titles: dict[str, str], *, name: str, caption: str) -> Drawing:
    """Points are counted, lines predicted or proved; one colour a value of f, black crosses are done in integers.

    Args:
        curves: lines of the census.
        titles: name of a curve -> what its panels are called, with the unit.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    panels = [(curve, dtype) for curve in titles for dtype in dict.fromkeys(c.dtype for c in curves)]
    values = list(dict.fromkeys(curve.problem for curve in curves))
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (_mark(_COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]), value)
            for place, value in enumerate(values)
        ]
        entries.append((Line2D([], [], color="#777777", linewidth=1.2), "predicted, or proved bound"))
        if any(curve.adjoint == "bitwise" for curve in curves):
            entries.append((_mark(BLACK, "x"), "bitwise, any value"))
        if any(not math.isfinite(y) for curve in curves for y in curve.y):
            entries.append(broken_entry())
        figure, places = grid(len(panels), columns=2, panel_height=2.0, entries=len(entries), sharey=False)
        for axes, (kind, dtype) in zip(places, panels, strict=True):
            title(axes, f"{dtype}: {titles[kind]}")
            own = [curve for curve in curves if curve.name == kind and curve.dtype == dtype]
            top = max((y for c in own for y in (*c.y, *(c.predicted or ())) if math.isfinite(y)), default=1.0)
            for curve in own:
                place = values.index(curve.problem)
                bitwise = curve.adjoint == "bitwise"
                colour = BLACK if bitwise else _COLOURS[place % len(_COLOURS)]
                marker = "x" if bitwise else _MARKERS[place % len(_MARKERS)]
                if curve.predicted is not None and not bitwise:
                    axes.plot(curve.x, curve.predicted, color=colour, linewidth=0.9, alpha=0.8)
                axes.plot(curve.x, curve.y, color=colour, linestyle="none", marker=marker, markersize=4.0)
                broken = [x for x, y in zip(curve.x, curve.y, strict=True) if not math.isfinite(y)]
                axes.plot(
                    broken, [1.05 * top] * len(broken), color=VERMILLION, linestyle="none", marker="x", markersize=7.0,
                    markeredgewidth=1.8,
                )  # fmt: skip
            axes.set_xlim(0.0, 2.0)
            axes.set_xticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "0.5", "1", "1.5", "2"])
            axes.set_ylim(-0.04 * top, 1.1 * top)
            axes.axvline(1.0, color="#aaaaaa", linewidth=0.8, linestyle=":")
        axis_labels(figure, "relaxation parameter beta", "bits, mean over all states")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)


def _mark(colour: str, marker: str) -> Line2D:
    return Line2D([], [], color=colour, linestyle="none", marker=marker, markersize=4.5)
