"""Rate against beta: one panel per family of maps, one colour per contraction constant, theory as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.panels import axis_labels, grid, legend, title
from reports.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from reports.figures.svg import drawing, to_svg
from revdeq.rates import worst_rate
from verify.result import Curve


_COLOURS = (SKY, BLUE, GREEN, ORANGE, VERMILLION, PURPLE, BLACK, "#8B5A2B")
_POINTS = 160
_TOP = 2.0


def rates_lines(families: Mapping[str, Mapping[str, Curve]], *, name: str, caption: str) -> Drawing:
    """Measured rates as points, the rate of the spectrum as lines, the worst case of the constant as dots.

    Args:
        families: family of maps -> label of a line, such as "k = 0.9" -> "rate-against-beta" curve.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    labels = list(dict.fromkeys(label for lines in families.values() for label in lines))
    colours = {label: _COLOURS[place % len(_COLOURS)] for place, label in enumerate(labels)}
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=colours[label], marker="o", markersize=3.6), label) for label in labels
        ]
        entries.append((Line2D([], [], color="#777777", linestyle=":"), "worst case of that constant (T3)"))
        figure, places = grid(len(families), columns=3, panel_height=2.2, entries=len(entries))
        for axes, (family, lines) in zip(places, families.items(), strict=True):
            title(axes, family)
            axes.axhline(1.0, color="#777777", linewidth=0.7)
            axes.set_xlim(0.0, 2.0)
            axes.set_xticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "0.5", "1", "1.5", "2"])
            axes.set_ylim(0.0, _TOP)
            for label, curve in lines.items():
                colour = colours[label]
                for x, y in _sides(curve.x, curve.predicted or ()):
                    axes.plot(x, y, color=colour, linewidth=1.1)
                shown = [(b, r) for b, r in zip(curve.x, curve.y, strict=True) if math.isfinite(r)]
                axes.plot(
                    [b for b, _ in shown], [r for _, r in shown], color=colour, linestyle="none", marker="o",
                    markersize=3.4,
                )  # fmt: skip
                constant = constant_of(curve.problem)
                if constant is not None:
                    betas = [2.0 * (place + 0.5) / _POINTS for place in range(_POINTS)]
                    axes.plot(betas, [worst_rate(b, constant) for b in betas], color=colour, linewidth=0.7, ls=":")
        axis_labels(figure, "relaxation parameter beta", "rate per step (two evaluations of f)")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)


def constant_of(problem: str) -> float | None:
    """The contraction constant in the name of a map of the grid, "FAMILY k=K"; None for other problems."""
    _, found, constant = problem.partition(" k=")
    return float(constant) if found else None


def _sides(x: Sequence[float], y: Sequence[float]) -> list[tuple[list[float], list[float]]]:
    """The line below beta 1 and the one above it: at 1 no step can be reversed."""
    points = list(zip(x, y, strict=True)) if y else []
    sides = [[point for point in points if point[0] < 1.0], [point for point in points if point[0] > 1.0]]
    return [([a for a, _ in side], [b for _, b in side]) for side in sides]
