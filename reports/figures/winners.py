"""Which gradient is nearer to a target, the exact or the implicit one: a map of problems against steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from reports.content import Drawing
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLACK
from reports.figures.svg import drawing, literal, to_svg


Gains = Mapping[str, Mapping[float, float]]
"""Problem -> number of steps -> log10 of the implicit error over the exact one; NaN where both are not known."""

ALIKE = 2.0
"""Factor up to which two errors count as alike."""

_BINS: tuple[tuple[float, str, str], ...] = (
    (-3.0, "#A04000", "implicit nearer, over 1000 times"),
    (-1.0, "#D9793A", "over 10 times"),
    (-math.log10(ALIKE), "#F3C9A5", "over 2 times"),
    (math.log10(ALIKE), "#F2F2F2", "alike, within 2"),
    (1.0, "#B4CFE6", "exact nearer, over 2 times"),
    (3.0, "#5B9BC9", "over 10 times"),
    (math.inf, "#0B5A94", "over 1000 times"),
)
"""Upper edge of log10, colour and name; orange and blue stay apart for every kind of colour vision."""


def winners(
    panels: Mapping[str, Gains], *, columns: int, name: str, caption: str, x_label: str = "number of steps N"
) -> Drawing:
    """A cell for each problem and number of steps; a black bar where the nearer one changes.

    Args:
        panels: title -> gains; all panels have the same problems in the same order.
        columns: panels in a row.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
        x_label: label of every x axis.
    """
    problems = list(dict.fromkeys(problem for gains in panels.values() for problem in gains))
    steps = sorted({n for gains in panels.values() for row in gains.values() for n in row})
    with drawing(name):
        entries: list[tuple[Artist, str]] = [(Patch(facecolor=colour), label) for _, colour, label in _BINS]
        entries.append((Line2D([], [], color=BLACK, linewidth=2.2), "here the nearer one changes"))
        if any(math.isnan(gain) for gains in panels.values() for row in gains.values() for gain in row.values()):
            entries.append((Line2D([], [], color=BLACK, linestyle="none", marker="x"), "one of them is NaN"))
        height = 0.155 * len(problems) + 0.35
        figure, places = grid(len(panels), columns=columns, panel_height=height, entries=len(entries))
        # Room for the names of the problems.
        figure.subplots_adjust(left=1.3 / figure.get_size_inches()[0], wspace=0.05)
        for axes, (panel, gains) in zip(places, panels.items(), strict=True):
            title(axes, panel)
            axes.grid(visible=False)
            for row, problem in enumerate(problems):
                _draw_row(axes, row, [gains.get(problem, {}).get(n) for n in steps])
            axes.set_xlim(-0.5, len(steps) - 0.5)
            axes.set_ylim(len(problems) - 0.5, -0.5)
            axes.set_xticks(range(len(steps)), [f"{n:g}" for n in steps])
            axes.set_yticks(range(len(problems)), [literal(name) for name in problems])
            axes.tick_params(length=0.0)
        axis_labels(figure, x_label, "")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)


def _draw_row(axes: Axes, row: int, gains: Sequence[float | None]) -> None:
    for column, gain in enumerate(gains):
        if gain is None:
            continue
        colour = "#FFFFFF" if math.isnan(gain) else next(shade for edge, shade, _ in _BINS if gain <= edge)
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1.0, 1.0, facecolor=colour, edgecolor="white", linewidth=0.4)
        )
        if math.isnan(gain):
            axes.plot([column], [row], color=BLACK, marker="x", markersize=3.5)
    for column in changes(gains):
        axes.plot([column + 0.5, column + 0.5], [row - 0.5, row + 0.5], color=BLACK, linewidth=2.2, zorder=3.0)


def changes(gains: Sequence[float | None]) -> list[int]:
    """The places after which the other gradient is nearer than before; where they are alike, neither is."""
    found: list[int] = []
    held: bool | None = None
    for place, gain in enumerate(gains):
        if gain is None or not abs(gain) > math.log10(ALIKE):
            continue
        if held is not None and held != (gain > 0.0):
            found.append(place - 1)
        held = gain > 0.0
    return found
