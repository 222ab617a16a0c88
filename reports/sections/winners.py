"""Part of section 3: who is nearer, the exact gradient, which rounding limits, or the implicit one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from reports.content import Block, Drawing, Fold, Grid, Heading, Notice, Prose
from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.figures.modes import mode_errors, mode_panel
from reports.figures.style import method_appearance
from reports.figures.svg import figure_name
from reports.figures.winners import ALIKE, Gains, winners
from reports.sections.modes import mode_gradients, mode_label
from reports.text import ABSENT, number, plural, precision
from verify.result import Curve


TARGETS = {"n-step": "the gradient of the N steps", "fixed-point": "the gradient of the fixed point"}
_RACED = ("floating", "wide", "bitwise", "implicit")


def winner_blocks(dossier: Dossier, betas: Sequence[float]) -> list[Block]:
    """Maps of who is nearer, and the number of steps at which that changes.

    Args:
        dossier: the runs.
        betas: relaxation parameters that are shown.
    """
    heading = Heading("gradients-winners", "Who is nearer")
    blocks: list[Block] = [
        Prose(
            "Reversal loses bits with every step, and the implicit gradient gains them: against the gradient of the N "
            "steps the exact one wins first and, where its states are not kept to the bit, loses once rounding has "
            "grown past what convergence still lacks. Against the gradient of the fixed point both lack convergence "
            f"until rounding stops them. Errors within a factor of {ALIKE:g} count as a draw."
        )
    ]
    drawn = [drawing for target in TARGETS for drawing in _maps(dossier, target, betas)]
    raced = _race(dossier)
    if not drawn and not raced:
        return [heading, Notice("note", "No exact and implicit gradients were measured side by side.")]
    return [heading, *blocks, *drawn, *raced]


def gain(exact: float, implicit: float) -> float:
    """log10 of the implicit error over the exact one; positive where the exact gradient is nearer.

    A gradient that was refused (NaN) is beaten by one that was not; NaN where both were, 0 where both are exact.
    """
    if math.isnan(exact) or math.isnan(implicit):
        if math.isnan(exact) and math.isnan(implicit):
            return math.nan
        return -math.inf if math.isnan(exact) else math.inf
    if exact == implicit:
        return 0.0
    if exact == 0.0:
        return math.inf
    return -math.inf if implicit == 0.0 else math.log10(implicit) - math.log10(exact)


def _maps(dossier: Dossier, target: str, betas: Sequence[float]) -> list[Drawing]:
    curves = [curve for curve in dossier.named("error-vs-evaluations") if curve.target == target]
    drawings: list[Drawing] = []
    for device in sorted({curve.device for curve in curves}):
        own = [curve for curve in curves if curve.device == device and curve.beta in betas]
        names = precision_order(precision(curve.dtype, curve.state_dtype) for curve in own)
        panels: dict[str, Gains] = {}
        for beta in sorted({curve.beta for curve in own if curve.beta is not None}):
            for name in names:
                gains = _gains([c for c in own if c.beta == beta and precision(c.dtype, c.state_dtype) == name])
                if gains:
                    panels[f"{name}, {beta:g}"] = gains
        if panels:
            caption = (
                f"The gradient by reversal against the implicit one, measured against {TARGETS[target]}, by precision "
                f"and beta, on {device}. {_tally(panels)}"
            )
            figure = figure_name("winners", target, device)
            drawings.append(winners(panels, columns=len(names), name=figure, caption=caption))
    return drawings


def _gains(curves: Sequence[Curve]) -> Gains:
    by_adjoint: dict[str, dict[str, Curve]] = {}
    for curve in curves:
        by_adjoint.setdefault(curve.adjoint, {})[curve.problem] = curve
    exact, implicit = by_adjoint.get("reversible", {}), by_adjoint.get("implicit", {})
    gains: dict[str, Mapping[float, float]] = {}
    for problem, curve in exact.items():
        other = implicit.get(problem)
        if other is not None and other.x == curve.x:
            # A step is two evaluations of f.
            gains[problem] = {x / 2.0: gain(a, b) for x, a, b in zip(curve.x, curve.y, other.y, strict=True)}
    return gains


def _tally(panels: Mapping[str, Gains]) -> str:
    said: list[str] = []
    edge = math.log10(ALIKE)
    for panel, gains in panels.items():
        values = [value for row in gains.values() for value in row.values()]
        exact, implicit = sum(value > edge for value in values), sum(value < -edge for value in values)
        said.append(f"{panel}: {exact} and {implicit} of {len(values)}")
    return f"Cells in which the exact and in which the implicit one is nearer: {'; '.join(said)}."


def _race(dossier: Dossier) -> list[Block]:
    """The same by mode, further out, with the crossing marked."""
    blocks: list[Block] = []
    folded: list[Block] = []
    for target, said in TARGETS.items():
        curves = [curve for curve in mode_gradients(dossier, target) if curve.adjoint in _RACED]
        for place, problem in enumerate(dict.fromkeys(curve.problem for curve in curves)):
            own = [curve for curve in curves if curve.problem == problem]
            figure = mode_errors(
                own,
                name=figure_name("mode-race", target, problem),
                caption=f"{problem}: error of the whole gradient against {said}, without z0 for the implicit one. "
                + _crossing_text(own),
                floor=1e-18,
                ceiling=1e2,
                marks=_marks(own),
                mark="from here on the implicit one is nearer",
            )
            (blocks if place == 0 and target == "n-step" else folded).append(figure)
    if not blocks:
        return []
    table = _crossings([c for c in mode_gradients(dossier) if c.adjoint in _RACED])
    more = plural(len(folded), "figure")
    return [*blocks, *([table] if table else []), *([Fold(f"The other target and problems ({more})", tuple(folded))])]


def crossing(exact: Curve, implicit: Curve) -> float | None:
    """The number of steps from which on the implicit gradient stays nearer, between the measured ones; None if never.

    Between two measured N both errors are taken to be powers of N. Errors within `ALIKE` of each other, such as two of
    the size of one rounding, are a draw: nearer is who is nearer by more at some N and is not overtaken again.
    """
    gains = [gain(a, b) for a, b in zip(exact.y, implicit.y, strict=True)]
    if not any(value < -math.log10(ALIKE) for value in gains):
        return None
    last = max((place for place, value in enumerate(gains) if not value < 0.0), default=-1)
    if last == len(gains) - 1:
        return None
    if last < 0:
        return exact.x[0]
    before, after = gains[last], gains[last + 1]
    if not (math.isfinite(before) and math.isfinite(after)):
        return exact.x[last + 1]
    share = before / (before - after)
    return exact.x[last] ** (1.0 - share) * exact.x[last + 1] ** share


def _partners(curves: Sequence[Curve]) -> list[tuple[Curve, Curve]]:
    implicit = {(c.problem, c.dtype, c.beta): c for c in curves if c.adjoint == "implicit"}
    return [
        (curve, implicit[curve.problem, curve.dtype, curve.beta])
        for curve in curves
        if curve.adjoint != "implicit" and (curve.problem, curve.dtype, curve.beta) in implicit
    ]


def _marks(curves: Sequence[Curve]) -> dict[str, list[tuple[float, str]]]:
    marks: dict[str, list[tuple[float, str]]] = {}
    for exact, implicit in _partners(curves):
        place = crossing(exact, implicit)
        if place is not None and exact.adjoint != "bitwise":
            marks.setdefault(mode_panel(exact), []).append((place, method_appearance(exact.adjoint).colour))
    return marks


def _crossing_text(curves: Sequence[Curve], places_name: str = "panels") -> str:
    """From where on each way is overtaken by the implicit gradient, in words; "" where nothing was raced."""
    said: list[str] = []
    for mode in ("floating", "wide", "bitwise"):
        pairs = [pair for pair in _partners(curves) if pair[0].adjoint == mode]
        places = [place for place in (crossing(*pair) for pair in pairs) if place is not None]
        if pairs:
            where = f", in the middle at N = {number(median(places), 2)}" if places else ""
            said.append(f"{mode_label(mode)} is overtaken in {len(places)} of {len(pairs)} {places_name}{where}")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if said else ""


def crossing_sentence(dossier: Dossier) -> list[str]:
    """In how many settings, and from where on, the implicit gradient is nearer to that of the N steps."""
    text = _crossing_text([curve for curve in mode_gradients(dossier) if curve.adjoint in _RACED], "settings")
    return [f"Against the implicit gradient, measured by the gradient of the N steps: {text}"] if text else []


def _crossings(curves: Sequence[Curve]) -> Grid | None:
    pairs = _partners(curves)
    if not pairs:
        return None
    settings = sorted(
        {(exact.dtype, exact.beta or 0.0) for exact, _ in pairs},
        key=lambda item: (precision_order(exact.dtype for exact, _ in pairs).index(item[0]), item[1]),
    )
    found = {(e.problem, e.adjoint, e.dtype, e.beta): (e, i) for e, i in pairs}
    rows: list[tuple[str, ...]] = []
    for problem, mode in dict.fromkeys((exact.problem, exact.adjoint) for exact, _ in pairs):
        cells: list[str] = []
        for dtype, beta in settings:
            pair = found.get((problem, mode, dtype, beta))
            place = None if pair is None else crossing(*pair)
            cells.append("" if pair is None else (ABSENT if place is None else number(place, 2)))
        rows.append((problem, mode_label(mode), *cells))
    columns = ("problem", "exact gradient", *(f"{dtype}, {beta:g}" for dtype, beta in settings))
    caption = (
        "From how many steps on the implicit gradient is nearer to the gradient of the N steps than the exact one, by "
        f"dtype of f and beta; a dash: not up to N = {max(x for curve in curves for x in curve.x):g}."
    )
    return Grid(caption, columns, tuple(rows), (), frozenset(range(2, len(columns))))
