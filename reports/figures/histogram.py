"""Histograms of ratios by precision on a logarithmic axis, as steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.figures.style import precision_line


@dataclass(frozen=True)
class RatioBins:
    """Bins of equal width on a logarithmic axis, and how each precision is drawn over them.

    Attributes:
        logarithm: of the axis, such as `math.log10`.
        low: lower end of the first bin, in logarithms.
        high: upper end of the last bin.
        width: of a bin.
        precisions: their names, in the order of the colours.
        colours: repeated where there are fewer.
    """

    logarithm: Callable[[float], float]
    low: float
    high: float
    width: float
    precisions: Sequence[str]
    colours: Sequence[str]

    def entries(self) -> list[tuple[Artist, str]]:
        """One entry of the legend per precision."""
        return [
            (Line2D([], [], color=self._colour(kind), linestyle=precision_line(kind)), kind) for kind in self.precisions
        ]

    def draw(self, axes: Axes, kind: str, ratios: Sequence[float]) -> None:
        """Draw the histogram of one precision; what is not finite is counted in the last bin, zeros in the first."""
        edges = [self.low + self.width * place for place in range(round((self.high - self.low) / self.width) + 1)]
        axes.hist(
            [self.place(ratio) for ratio in ratios], bins=edges, histtype="step", linewidth=1.5,
            color=self._colour(kind), linestyle=precision_line(kind),
        )  # fmt: skip

    def place(self, ratio: float) -> float:
        """Where on the axis a ratio is shown: in the middle of an outer bin where it lies beyond."""
        first, last = self.low + self.width / 2.0, self.high - self.width / 2.0
        if not math.isfinite(ratio):
            return last
        if ratio <= 0.0:
            return first
        return min(max(self.logarithm(ratio), first), last)

    def _colour(self, kind: str) -> str:
        return self.colours[list(self.precisions).index(kind) % len(self.colours)]
