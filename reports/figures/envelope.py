"""The validity envelope: how many steps may be reversed, against beta, with what was measured on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLUE, GREEN, ORANGE, VERMILLION
from reports.figures.svg import drawing, to_svg


_COLOURS = (GREEN, BLUE, ORANGE)
_FOOT = 0.5
"""Where a count of 0 is drawn on the logarithmic axis of steps."""


@dataclass(frozen=True)
class Reach:
    """One line of the picture.

    Args:
        panel: title of its panel.
        constant: contraction constant k.
        betas: abscissae.
        steps: predicted number of steps; NaN where the iteration diverges.
        measured_betas: where it was measured.
        measured_steps: the greatest number of steps that still met the tolerance there; NaN is shown.
    """

    panel: str
    constant: float
    betas: Sequence[float]
    steps: Sequence[float]
    measured_betas: Sequence[float] = ()
    measured_steps: Sequence[float] = ()


def envelope(reaches: Sequence[Reach], *, columns: int, cap: int, name: str, caption: str) -> Drawing:
    """Steps against beta, one panel per precision and spectrum.

    Args:
        reaches: the lines, in the order of their panels.
        columns: panels in a row.
        cap: steps beyond which nothing is predicted.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    panels = list(dict.fromkeys(reach.panel for reach in reaches))
    constants = sorted({reach.constant for reach in reaches})
    colours = {k: _COLOURS[place % len(_COLOURS)] for place, k in enumerate(constants)}
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=colours[k], linewidth=1.6), f"predicted, k = {k:g}") for k in constants
        ]
        if any(reach.measured_betas for reach in reaches):
            mark = Line2D([], [], color="#444444", linestyle="none", marker="o", markersize=4.5)
            entries.append((mark, "measured: the most that still met it"))
        if any(math.isnan(value) for reach in reaches for value in reach.steps):
            cross = Line2D([], [], color="#888888", linestyle="none", marker="x", markersize=4.5)
            entries.append((cross, "the iteration diverges"))
        if any(math.isnan(value) for reach in reaches for value in reach.measured_steps):
            broken = Line2D([], [], color=VERMILLION, linestyle="none", marker="X", markersize=6.0)
            entries.append((broken, "measured: NaN"))
        figure, places = grid(len(panels), columns=columns, panel_height=1.62, entries=len(entries))
        for axes, panel in zip(places, panels, strict=True):
            title(axes, panel)
            _scale(axes, cap)
            for reach in reaches:
                if reach.panel == panel:
                    _draw(axes, reach, colours[reach.constant], constants.index(reach.constant), cap)
        axis_labels(figure, "relaxation parameter beta", "greatest number of steps N")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)


def _scale(axes: Axes, cap: int) -> None:
    axes.set_yscale("log", base=2)
    axes.set_ylim(_FOOT / 1.25, cap * 1.35)
    ticks = [2**power for power in range(0, int(math.log2(cap)) + 1, 2)]
    axes.set_yticks([_FOOT, *ticks], ["0", *(str(tick) for tick in ticks)])
    axes.yaxis.set_minor_locator(axes.yaxis.get_major_locator())
    axes.set_xlim(0.15, 1.6)
    axes.set_xticks([0.25, 0.5, 0.75, 1.0, 1.25, 1.5], ["0.25", "0.5", "0.75", "1", "1.25", "1.5"])
    axes.axvline(1.0, color="#aaaaaa", linewidth=0.8, linestyle=":")


def _draw(axes: Axes, reach: Reach, colour: str, place: int, cap: int) -> None:
    points = list(zip(reach.betas, reach.steps, strict=True))
    # At beta 1 no step can be reversed: the two sides do not join.
    for side in ([p for p in points if p[0] < 1.0], [p for p in points if p[0] > 1.0]):
        kept = [(beta, max(steps, _FOOT)) for beta, steps in side if math.isfinite(steps)]
        axes.plot(
            [b for b, _ in kept], [n for _, n in kept], color=colour, linewidth=1.4, marker=".", markersize=3.5
        )  # fmt: skip
    diverging = [beta for beta, steps in points if math.isnan(steps)]
    # Side by side, so that the crosses of one k do not hide those of another.
    axes.plot(
        [beta + 0.012 * (place - 1) for beta in diverging], [_FOOT] * len(diverging), color=colour, linestyle="none",
        marker="x", markersize=4.0, clip_on=False,
    )  # fmt: skip
    seen = list(zip(reach.measured_betas, reach.measured_steps, strict=True))
    found = [(beta, max(steps, _FOOT)) for beta, steps in seen if math.isfinite(steps)]
    axes.plot(
        [b for b, _ in found], [n for _, n in found], color=colour, linestyle="none", marker="o", markersize=4.5,
        markeredgecolor="white", markeredgewidth=0.6, zorder=4.0,
    )  # fmt: skip
    broken = [beta for beta, steps in seen if not math.isfinite(steps)]
    axes.plot(broken, [float(cap)] * len(broken), color=VERMILLION, linestyle="none", marker="X", markersize=6.0)
