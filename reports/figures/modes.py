"""The ways to the gradient side by side: one panel per dtype of f and beta, one line per way, the model dashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.content import Drawing
from reports.figures.key import method_entries, precision_order
from reports.figures.multiples import Multiples
from reports.figures.style import method_appearance
from verify.result import Curve


MODE_ORDER = ("floating", "wide", "bitwise", "checkpointed", "default", "unrolled", "implicit")


def mode_panel(curve: Curve) -> str:
    """Title of the panel of a curve: dtype of f and beta."""
    return f"{curve.dtype} f, beta {curve.beta:g}"


def mode_errors(
    curves: Sequence[Curve],
    *,
    name: str,
    caption: str,
    floor: float,
    ceiling: float,
    marks: Mapping[str, Sequence[tuple[float, str]]] | None = None,
    mark: str = "",
) -> Drawing:
    """An error of every mode against the number of steps.

    Args:
        curves: lines of one study and one problem, `adjoint` the name of the mode.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
        floor: lowest error that is worth showing.
        ceiling: highest error that is worth showing.
        marks: panel -> places on the x axis that are marked, with their colour.
        mark: what the marks say.
    """
    ranks = {dtype: place for place, dtype in enumerate(precision_order(curve.dtype for curve in curves))}
    ordered = sorted(curves, key=lambda curve: (ranks[curve.dtype], curve.beta or 0.0))
    return Multiples(
        x_label=curves[0].x_name,
        y_label=curves[0].y_name,
        look=lambda curve: method_appearance(curve.adjoint),
        line=lambda curve: "-",
        panel=mode_panel,
        prediction="predicted by the model",
        own_colour=True,
        marks={} if marks is None else marks,
        mark=mark,
        columns=len({curve.beta for curve in curves}),
        panel_height=1.95,
        floor=floor,
        ceiling=ceiling,
        entries=method_entries((curve.adjoint for curve in curves), MODE_ORDER),
    ).render(ordered, name=name, caption=caption)


def mode_costs(curves: Sequence[Curve], titles: Mapping[str, str], *, name: str, caption: str) -> Drawing:
    """Bytes and time of every mode against the number of steps, one panel a quantity and beta.

    Args:
        curves: lines of the cost study.
        titles: name of a curve -> what its panel is called, with the unit.
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    several = len({curve.beta for curve in curves}) > 1
    order = list(titles)
    ordered = sorted(curves, key=lambda curve: (curve.beta or 0.0, order.index(curve.name)))
    return Multiples(
        x_label=curves[0].x_name,
        y_label="bytes, or ratio of times",
        look=lambda curve: method_appearance(curve.adjoint),
        line=lambda curve: "-",
        panel=lambda curve: titles[curve.name] + (f", beta {curve.beta:g}" if several else ""),
        columns=len(order),
        panel_height=2.2,
        sharey=False,
        entries=method_entries((curve.adjoint for curve in curves), MODE_ORDER),
    ).render(ordered, name=name, caption=caption)
