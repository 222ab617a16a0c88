"""The form that all line figures share: one panel per problem or setting, logarithmic axes, predictions as lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from reports.content import Drawing
from reports.figures.key import band_entry, broken_entry, mark_entry, prediction_entry
from reports.figures.panels import (
    Limits,
    axis_labels,
    count_axis,
    draw,
    grid,
    legend,
    log_axis,
    log_limits,
    shade,
    title,
)
from reports.figures.style import (
    BLACK,
    MARK_LINE,
    MARK_WIDTH,
    OWN_PREDICTION_LINE,
    OWN_PREDICTION_WIDTH,
    PREDICTION_LINE,
    PREDICTION_WIDTH,
    Appearance,
    LineStyle,
    precision_line,
)
from reports.figures.svg import drawing, to_svg
from reports.text import precision
from verify.result import Curve


def curve_line(curve: Curve) -> LineStyle:
    """Line style of a curve's precision."""
    return precision_line(precision(curve.dtype, curve.state_dtype))


def panel_of_problem(curve: Curve) -> str:
    """Panel of a curve where there is one for each problem."""
    return curve.problem


@dataclass(frozen=True)
class Multiples:
    """How a figure of small multiples is drawn.

    Args:
        x_label: label of every x axis, with its unit.
        y_label: label of every y axis, with its unit.
        look: colour and marker of a line.
        line: line style of a line.
        panel: title of the panel in which a curve is drawn; panels stand in the order in which their curves come.
        prediction: legend text of the predicted lines, "" where they are not drawn.
        own_colour: whether a predicted line is dashed in the colour of its curve; thin and black otherwise.
        marks: panel -> places on the x axis with the colour of a vertical line there.
        mark: legend text of those lines.
        band: legend text of the shaded band, "" where it is not drawn.
        columns: panels in a row.
        panel_height: height of one panel in inches.
        floor: lowest ordinate that is worth showing; what is smaller is drawn as zero is.
        ceiling: highest ordinate that is worth showing; lines leave the panel above it.
        sharey: whether all panels have one range.
        sharex: the same of x.
        log_x: whether x is logarithmic; on a linear axis what falls at a constant rate is a straight line.
        entries: legend entries of the lines.
    """

    x_label: str
    y_label: str
    look: Callable[[Curve], Appearance]
    line: Callable[[Curve], LineStyle]
    panel: Callable[[Curve], str] = panel_of_problem
    prediction: str = ""
    own_colour: bool = False
    marks: Mapping[str, Sequence[tuple[float, str]]] = field(default_factory=dict[str, Sequence[tuple[float, str]]])
    mark: str = ""
    band: str = ""
    columns: int = 4
    panel_height: float = 2.0
    floor: float = 0.0
    ceiling: float = math.inf
    sharey: bool = True
    log_x: bool = True
    sharex: bool = True
    entries: Sequence[tuple[Artist, str]] = field(default_factory=tuple)

    def render(self, curves: Sequence[Curve], *, name: str, caption: str) -> Drawing:
        """Draw `curves`, each in its panel.

        Args:
            curves: at least one line.
            name: name of the figure, unique in the report.
            caption: what the reader sees.
        """
        panels = list(dict.fromkeys(self.panel(curve) for curve in curves))
        counts = [value for curve in curves for value in curve.x]
        shared = self._limits(curves)
        with drawing(name):
            entries = self._entries(curves)
            figure, places = grid(
                len(panels),
                columns=self.columns,
                panel_height=self.panel_height,
                entries=len(entries),
                sharex=self.sharex,
                sharey=self.sharey,
            )
            for axes, panel in zip(places, panels, strict=True):
                own = [curve for curve in curves if self.panel(curve) == panel]
                limits = shared if self.sharey else self._limits(own)
                log_axis(axes, limits)
                if self.log_x:
                    count_axis(axes, counts)
                title(axes, panel)
                for place, colour in self.marks.get(panel, ()):
                    axes.axvline(place, color=colour, linestyle=MARK_LINE, linewidth=MARK_WIDTH, zorder=2.0)
                for curve in own:
                    self._draw(axes, curve, limits)
            axis_labels(figure, self.x_label, self.y_label)
            legend(figure, entries)
            return Drawing(name, to_svg(figure), caption + self._doubt(curves))

    def _limits(self, curves: Sequence[Curve]) -> Limits:
        shown = [value if not 0.0 < value < self.floor else 0.0 for curve in curves for value in curve.y]
        limits = log_limits(shown)
        # A mark on the lower edge would look like a zero.
        low = limits.low / 10.0 if any(0.0 < value < 2.0 * limits.low for value in shown) else limits.low
        return Limits(low, max(min(limits.high, self.ceiling), 10.0 * low))

    def _draw(self, axes: Axes, curve: Curve, limits: Limits) -> None:
        look = self.look(curve)
        if self.band and curve.band is not None:
            shade(axes, curve.x, curve.band, limits)
        if self.prediction and curve.predicted is not None:
            inside = [
                (a, b) for a, b in zip(curve.x, curve.predicted, strict=True) if limits.low <= b <= 1e3 * limits.high
            ]
            axes.plot(
                [a for a, _ in inside], [b for _, b in inside], zorder=2.5,
                color=look.colour if self.own_colour else BLACK,
                linestyle=OWN_PREDICTION_LINE if self.own_colour else PREDICTION_LINE,
                linewidth=OWN_PREDICTION_WIDTH if self.own_colour else PREDICTION_WIDTH,
            )  # fmt: skip
        shown = [value if not 0.0 < value < limits.low else 0.0 for value in curve.y]
        draw(axes, curve.x, shown, limits, look, self.line(curve))

    def _band_is_seen(self, curves: Sequence[Curve]) -> bool:
        low = self._limits(curves).low
        return any(value > low for curve in curves for value in curve.band or ())

    def _doubt(self, curves: Sequence[Curve]) -> str:
        """What the caption says of the references where their uncertainty is too small to be drawn."""
        values = [value for curve in curves for value in curve.band or ()]
        if not self.band or not values or self._band_is_seen(curves):
            return ""
        return f" The references are uncertain by at most {max(values):.1e}, far below the axis."

    def _entries(self, curves: Sequence[Curve]) -> list[tuple[Artist, str]]:
        entries = list(self.entries)
        if self.prediction and any(curve.predicted is not None for curve in curves):
            entries.append(prediction_entry(self.prediction, self.own_colour))
        if self.mark and any(self.marks.values()):
            entries.append(mark_entry(self.mark))
        if self.band and self._band_is_seen(curves):
            entries.append(band_entry(self.band))
        if any(not math.isfinite(value) for curve in curves for value in curve.y):
            entries.append(broken_entry())
        return entries
