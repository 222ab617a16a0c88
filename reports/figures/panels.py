"""Small multiples: a grid of equal axes, one legend, and lines that show zeros and NaN instead of losing them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.figures.style import BAND, VERMILLION, Appearance, LineStyle


WIDTH = 10.6
"""Width of every figure in inches; the page scales it to its column."""

# Inches: the margins, the room of a panel's title, and that of one line of the legend.
_LEFT, _RIGHT, _BOTTOM = 0.95, 0.1, 0.5
_TITLE, _LEGEND_LINE = 0.4, 0.185
_MOST_MARKERS = 12


@dataclass(frozen=True)
class Limits:
    """Range of a logarithmic axis; zeros are drawn on `low`, values that are not finite on `high`."""

    low: float
    high: float


def log_limits(values: Iterable[float]) -> Limits:
    """Whole decades round the finite positive values, and one more below when a zero has to be shown.

    Returns:
        (0.1, 10) where there is nothing finite and positive.
    """
    found = list(values)
    positive = [value for value in found if math.isfinite(value) and value > 0.0]
    if not positive:
        return Limits(0.1, 10.0)
    low = math.floor(math.log10(min(positive)))
    high = math.ceil(math.log10(max(positive)))
    if high == low:
        high += 1
    if any(value == 0.0 for value in found):
        low -= 1
    if any(not math.isfinite(value) for value in found):
        high += 1
    # Python's float cannot hold 10^-324 and less, nor 10^309 and more.
    return Limits(10.0 ** max(low, -307), 10.0 ** min(high, 308))


def grid(
    count: int, *, columns: int, panel_height: float, entries: int, sharex: bool = True, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, `columns` to a row, that share the axes that they are said to share.

    Args:
        count: number of axes, at least 1.
        columns: axes in a row.
        panel_height: height of one row in inches.
        entries: number of entries of the legend, for which room is left above.
        sharex: whether every panel has the same range of x.
        sharey: the same of y.

    Returns:
        The figure and its axes in reading order; the places that are left over are empty.
    """
    across = min(columns, count)
    down = math.ceil(count / columns)
    width = WIDTH * (across / columns) if across > 1 else WIDTH / 2.0
    top = _TITLE + _LEGEND_LINE * math.ceil(entries / _legend_columns(width))
    height = panel_height * down + top + _BOTTOM
    figure = Figure(figsize=(width, height))
    made = figure.subplots(down, across, sharex=sharex, sharey=sharey, squeeze=False)
    # Margins in inches, so that labels and legend have the same room whatever the number of panels.
    figure.subplots_adjust(
        left=_LEFT / width, right=1.0 - _RIGHT / width, top=1.0 - top / height, bottom=_BOTTOM / height,
        wspace=0.08 if sharey else 0.3, hspace=0.28 if sharex else 0.42,
    )  # fmt: skip
    places: list[Axes] = list(made.ravel())
    for axes in places[count:]:
        axes.set_visible(False)
    # A hidden panel below leaves the tick labels of the one above it to be switched on.
    for position in range(max(count - across, 0), count):
        places[position].xaxis.set_tick_params(labelbottom=True)
    return figure, places[:count]


def axis_labels(figure: Figure, x: str, y: str) -> None:
    """One label for all x axes and one for all y axes; `y` may have two lines."""
    width, height = figure.get_size_inches()
    figure.text((_LEFT + width - _RIGHT) / 2.0 / width, 0.08 / height, x, ha="center", va="bottom", fontsize=9.0)
    box = figure.subplotpars
    figure.text(
        0.05 / width,
        (box.bottom + box.top) / 2.0,
        y,
        ha="left",
        va="center",
        rotation=90.0,
        fontsize=9.0,
        multialignment="center",
    )


def log_axis(axes: Axes, limits: Limits) -> None:
    """Make y logarithmic over `limits`, with a tick every few decades and no minor labels."""
    axes.set_yscale("log")
    axes.set_ylim(limits.low, limits.high)
    axes.yaxis.set_major_locator(LogLocator(base=10.0, numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(LogLocator(base=10.0, numticks=1))


def count_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make x logarithmic to base 2 with plain numbers at the measured counts (evaluations, steps)."""
    counts = sorted({value for value in values if value > 0.0})
    if not counts:
        return
    axes.set_xscale("log", base=2)
    thinned = counts
    if len(counts) > 7:
        thinned = [value for value in counts if math.log2(value).is_integer()] or counts
    if len(thinned) > 8:
        thinned = thinned[:: math.ceil(len(thinned) / 8)]
    axes.set_xticks(thinned, [f"{value:g}" for value in thinned])
    axes.xaxis.set_minor_locator(LogLocator(base=2.0, numticks=1))
    axes.set_xlim(counts[0] / 1.25, counts[-1] * 1.25)


def draw(
    axes: Axes, x: Sequence[float], y: Sequence[float], limits: Limits, look: Appearance, line: LineStyle = "-"
) -> None:
    """One measured line: zeros are hollow markers on the lower edge, NaN and infinity are crosses on the upper edge."""
    zeros = [a for a, b in zip(x, y, strict=True) if b == 0.0]
    broken = [a for a, b in zip(x, y, strict=True) if not math.isfinite(b)]
    # NaN and infinity break the line: nothing is known between the points beside them.
    heights = [math.nan if not math.isfinite(b) else (b if b > 0.0 else limits.low) for b in y]
    face = "none" if look.hollow else look.colour
    axes.plot(
        list(x), heights, color=look.colour, linestyle=line, marker=look.marker, markersize=look.size,
        markerfacecolor=face, markeredgewidth=0.9, markevery=max(1, len(x) // _MOST_MARKERS),
        zorder=look.order,
    )  # fmt: skip
    if zeros:
        axes.plot(
            zeros, [limits.low] * len(zeros), color=look.colour, linestyle="none", marker=look.marker, markersize=6.0,
            markerfacecolor="white", clip_on=False, zorder=4.0,
        )  # fmt: skip
    if broken:
        axes.plot(
            broken, [limits.high] * len(broken), color=VERMILLION, linestyle="none", marker="x", markersize=8.0,
            markeredgewidth=2.0, clip_on=False, zorder=5.0,
        )  # fmt: skip


def shade(axes: Axes, x: Sequence[float], top: Sequence[float], limits: Limits) -> None:
    """Shade what lies below `top`, where the reference cannot tell one error from another."""
    kept = [(a, b) for a, b in zip(x, top, strict=True) if math.isfinite(b) and b > limits.low]
    if kept:
        axes.fill_between(
            [a for a, _ in kept], limits.low, [b for _, b in kept], color=BAND, alpha=0.45, linewidth=0.0, zorder=0.5
        )  # fmt: skip


def title(axes: Axes, text: str) -> None:
    """Name a panel at its upper left."""
    axes.set_title(text, loc="left", pad=4.0, fontweight="bold")


def legend(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """One legend above all panels."""
    width, height = figure.get_size_inches()
    figure.legend(
        [handle for handle, _ in entries], [label for _, label in entries],
        loc="upper left", bbox_to_anchor=(0.5 * _LEFT / width, 1.0 - 0.02 / height), ncols=_legend_columns(width),
        handlelength=3.0, borderaxespad=0.0, columnspacing=1.6,
    )  # fmt: skip


_SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def _power_of_ten(value: float, position: int | None) -> str:
    """10 with a superscript in plain text, which is smaller in the page and faster to draw than a formula."""
    del position
    return f"10{str(round(math.log10(value))).translate(_SUPERSCRIPTS)}" if value > 0.0 else ""


def _legend_columns(width: float) -> int:
    return max(1, int((width - _LEFT) / 2.3))
