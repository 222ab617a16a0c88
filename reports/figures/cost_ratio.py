"""Time of a training step over that of the floor: one row per method, one mark per width of the cell."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.panels import WIDTH, axis_labels, grid, legend
from reports.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from reports.figures.svg import drawing, literal, to_svg
from verify.result import Curve


_LOOKS = ((SKY, "o"), (BLUE, "s"), (GREEN, "^"), (VERMILLION, "D"), (ORANGE, "v"), (PURPLE, "P"))


def cost_ratio(labels: Sequence[str], curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
    """Draw ratios to the floor, which is a line at 1, with half the distance between their quartiles as bars.

    Args:
        labels: what the reader calls each method.
        curves: "cost-ratio" of each, as many as labels, over the same widths.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    widths = curves[0].x
    looks = {width: _LOOKS[place % len(_LOOKS)] for place, width in enumerate(widths)}
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=5.0), f"width {width:g}")
            for width, (colour, marker) in looks.items()
        ]
        entries.append((Line2D([], [], color="#555555", linewidth=1.2), "floor"))
        figure, (axes,) = grid(1, columns=1, panel_height=0.21 * len(labels) + 0.3, entries=2)
        figure.set_size_inches(WIDTH, figure.get_size_inches()[1])
        figure.subplots_adjust(left=0.36, right=0.98)
        axes.axvline(1.0, color="#555555", linewidth=1.2, zorder=1.0)
        for row, curve in enumerate(curves):
            axes.axhline(row, color="#dddddd", linewidth=0.6, zorder=0.5)
            for width, ratio, spread in zip(curve.x, curve.y, curve.band or (0.0,) * len(curve.x), strict=True):
                colour, marker = looks[width]
                axes.plot([ratio - spread, ratio + spread], [row, row], color=colour, linewidth=2.2, alpha=0.5)
                axes.plot([ratio], [row], color=colour, marker=marker, markersize=5.0, linestyle="none")
        axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0.0)
        axes.grid(visible=False, axis="y")
        axis_labels(figure, "time of a training step over that of the floor in the same round", "")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)
