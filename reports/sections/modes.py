"""Part of section 5: what each way to the gradient loses against the number of steps, and what it keeps and takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from reports.content import Block, Fold, Grid, Heading, Notice, Prose
from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.figures.modes import MODE_ORDER, mode_costs, mode_errors
from reports.figures.style import method_appearance
from reports.figures.svg import figure_name
from reports.text import ABSENT, binary_size, number, plural
from verify.result import Curve
from verify.rounding.envelope import TOLERANCES
from verify.studies.rounding.cost import SAMPLES, WIDTH


EXACT = ("floating", "wide", "bitwise", "checkpointed")
"""The modes whose gradient is that of the N steps; the default takes one of them."""

_COSTS = {
    "mode-bytes": "kept between passes, bytes",
    "mode-peak": "most alive at once, bytes",
    "mode-time": "time over floating, ratio",
}


def mode_label(mode: str) -> str:
    """What the tables call a mode."""
    return method_appearance(mode).label


def modes_in(curves: Sequence[Curve]) -> list[str]:
    """The modes of some curves, in the order of the legend."""
    found = {curve.adjoint for curve in curves}
    return [mode for mode in MODE_ORDER if mode in found] + sorted(found - set(MODE_ORDER))


def mode_gradients(dossier: Dossier, target: str = "n-step") -> list[Curve]:
    """The curves of the gradient's error by mode, to one target."""
    return [curve for curve in dossier.named("mode-gradient-error") if curve.target == target]


def mode_blocks(dossier: Dossier) -> list[Block]:
    """Errors by mode, with the model, and the steps from which on each mode is too wrong."""
    heading = Heading("roundoff-modes", "What each way to the gradient loses")
    gradients = [curve for curve in mode_gradients(dossier) if curve.adjoint in EXACT]
    rebuilt = dossier.named("mode-reconstruction")
    if not gradients or not rebuilt:
        return [heading, Notice("note", "No error was measured by mode: the run has no study of round-off.")]
    figures = [_figures(problem, rebuilt, gradients) for problem in dict.fromkeys(curve.problem for curve in gradients)]
    folded = [block for pair in figures[1:] for block in pair]
    names = ", ".join(dict.fromkeys(curve.problem for curve in gradients if curve.problem != gradients[0].problem))
    return [
        heading,
        Prose(
            "The same N steps, differentiated in four ways: reversed with states in the dtype of f; reversed with "
            "float64 states, which is bit-exact for the first steps (M3); reversed in integers with a tape of "
            "remainders, which is bit-exact at any depth (T8); and with stored states (checkpointed). Dashed lines are "
            "the model, computed from the eigenvalues of df/dz alone and without any run."
        ),
        *figures[0],
        *([Fold(f"The same on {names}", tuple(folded))] if folded else []),
        _first_beyond(gradients),
        *(Prose(sentence) for sentence in mode_sentences(dossier)),
    ]


def _figures(problem: str, rebuilt: Sequence[Curve], gradients: Sequence[Curve]) -> list[Block]:
    own = [curve for curve in rebuilt if curve.problem == problem]
    drawn: list[Block] = []
    if own:
        caption = (
            f"{problem}: error of the start state that reversal rebuilds. {_agreement(own)} Hollow marks on the lower "
            "edge are errors of exactly 0; a checkpointed gradient rebuilds nothing."
        )
        name = figure_name("mode-reconstruction", problem)
        drawn.append(mode_errors(own, name=name, caption=caption, floor=1e-18, ceiling=1e4))
    own = [curve for curve in gradients if curve.problem == problem]
    caption = f"{problem}: error of the whole gradient against that of the same N steps in 50 digits. {_safe(own)}"
    name = figure_name("mode-gradient", problem)
    return [*drawn, mode_errors(own, name=name, caption=caption, floor=1e-18, ceiling=1e2)]


def _pairs(curves: Sequence[Curve]) -> Iterator[tuple[Curve, float, float, float]]:
    """(curve, N, measured, predicted) wherever the model says that something is left."""
    for curve in curves:
        for x, y, predicted in zip(curve.x, curve.y, curve.predicted or (), strict=bool(curve.predicted)):
            if predicted < 1.0:
                yield curve, x, y, predicted


def _agreement(curves: Sequence[Curve]) -> str:
    """How near the model of the rebuilt start is, where a start is left and reversal was not exact."""
    said: list[str] = []
    for mode in ("floating", "wide"):
        pairs = [pair for pair in _pairs(curves) if pair[0].adjoint == mode]
        zeros = sum(y == 0.0 for _, _, y, _ in pairs)
        ratios = [y / predicted for _, _, y, predicted in pairs if y != 0.0]
        if any(math.isnan(ratio) for ratio in ratios):
            said.append(f"{mode_label(mode)} gives NaN where the model says that a start is left")
        elif ratios:
            said.append(
                f"{mode_label(mode)}: {number(min(ratios), 2)} to {number(max(ratios), 2)} times the prediction, and "
                f"exactly 0 at {zeros} of {plural(len(pairs), 'point')}"
            )
    return f"Where the model says that a start is left, {'; '.join(said)}." if said else ""


def _safe(curves: Sequence[Curve]) -> str:
    """Whether the measured gradients are at least as right as the model says."""
    found = list(_pairs(curves))
    beyond = [(y / predicted, curve, x) for curve, x, y, predicted in found if not y <= predicted]
    if not found:
        return "No point can be compared with the model."
    points = plural(len(found), "point")
    said = f"Of {points} where the model says that something is left, {len(found) - len(beyond)} lie on its safe side"
    if not beyond:
        return said + "."
    worst, curve, x = max(beyond, key=lambda item: math.inf if math.isnan(item[0]) else item[0])
    where = f"{mode_label(curve.adjoint)}, {curve.dtype} f, beta {curve.beta:g}, N = {x:g}"
    return f"{said}; the farthest beyond it is {number(worst, 2)} times the predicted one ({where})."


def _first_beyond(curves: Sequence[Curve]) -> Grid:
    """A row for each mode: from how many steps on the gradient is more wrong than is asked for."""
    dtypes = precision_order(curve.dtype for curve in curves)
    betas = sorted({curve.beta for curve in curves if curve.beta is not None})
    settings = [(dtype, beta) for dtype in dtypes for beta in betas]
    rows: list[tuple[str, ...]] = []
    for mode in modes_in(curves):
        cells = [
            first_beyond([c for c in curves if (c.adjoint, c.dtype, c.beta) == (mode, dtype, beta)])
            for dtype, beta in settings
        ]
        rows.append((mode_label(mode), *cells))
    columns = ("way to the gradient", *(f"{dtype}, {beta:g}" for dtype, beta in settings))
    asked = ", ".join(f"{TOLERANCES[dtype]:g} in {dtype}" for dtype in dtypes if dtype in TOLERANCES)
    most = max(x for curve in curves for x in curve.x)
    problems = plural(len({curve.problem for curve in curves}), "problem")
    caption = (
        f"The first measured N at which the gradient of any of {problems} is more wrong than {asked}, by dtype of f "
        f"and beta; a dash: not up to N = {most:g}; empty: float64 states are those of the row above."
    )
    return Grid(caption, columns, tuple(rows), (), frozenset(range(1, len(columns))))


def first_beyond(curves: Sequence[Curve]) -> str:
    """The first N whose error is above the tolerance of its dtype, or NaN; "" where there is no curve."""
    if not curves:
        return ""
    points = [
        (x, y, TOLERANCES.get(curve.dtype, 0.0)) for curve in curves for x, y in zip(curve.x, curve.y, strict=True)
    ]
    beyond = [x for x, y, tolerance in points if not y <= tolerance]
    return f"{min(beyond):g}" if beyond else ABSENT


def mode_sentences(dossier: Dossier) -> list[str]:
    """What to conclude, from the data."""
    rebuilt = [curve for curve in dossier.named("mode-reconstruction") if curve.adjoint == "bitwise"]
    said: list[str] = []
    if rebuilt:
        points = [y for curve in rebuilt for y in curve.y]
        exact = sum(y == 0.0 for y in points)
        most = max(x for curve in rebuilt for x in curve.x)
        said.append(
            f"Bitwise reversal returned the start to the bit in {exact} of {plural(len(points), 'run')}, up to "
            f"N = {most:g}."
        )
    for mode, subject in (("default", "the default gradient"), ("bitwise", "the bitwise gradient")):
        worst = _against_checkpointed(mode_gradients(dossier), mode)
        if worst is not None:
            ratio, curve, x = worst
            where = f"{curve.problem}, {curve.dtype}, beta {curve.beta:g}, N = {x:g}"
            said.append(
                f"Where f is narrower than float64, the error of {subject} is at most {number(ratio, 2)} times that of "
                f"the gradient from stored states ({where})."
            )
    return said


def _against_checkpointed(curves: Sequence[Curve], mode: str) -> tuple[float, Curve, float] | None:
    """The largest error of a mode over that of stored states in the same setting; NaN counts as the largest."""
    stored = {(c.problem, c.dtype, c.beta): c for c in curves if c.adjoint == "checkpointed" and c.dtype != "float64"}
    found = [
        (y / base if base > 0.0 else (math.inf if y > 0.0 else 1.0), curve, x)
        for curve in curves
        if curve.adjoint == mode and (curve.problem, curve.dtype, curve.beta) in stored
        for x, y, base in zip(
            curve.x, curve.y, stored[curve.problem, curve.dtype, curve.beta].y, strict=True
        )
    ]  # fmt: skip
    return max(found, key=lambda item: math.inf if math.isnan(item[0]) else item[0], default=None)


def mode_cost_blocks(dossier: Dossier) -> list[Block]:
    """Bytes and time of the modes against the number of steps."""
    heading = Heading("roundoff-cost", "What each way to the gradient keeps and takes")
    curves = [curve for name in _COSTS for curve in dossier.named(name)]
    if not curves:
        return [heading, Notice("note", "No bytes and no times were measured by mode.")]
    layer = f"one dense layer, {curves[0].dtype}, {SAMPLES} samples of {WIDTH} numbers"
    return [
        heading,
        mode_costs(
            curves,
            _COSTS,
            name="mode-costs",
            caption=f"Bytes and time on {layer}. Bytes are counted, the same in every run; times are ratios inside one "
            "run on a machine that may have been busy, and information only.",
        ),
        _cost_table(curves),
    ]


def _cost_table(curves: Sequence[Curve]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for beta in sorted({curve.beta for curve in curves if curve.beta is not None}):
        for mode in modes_in(curves):
            own = {curve.name: curve for curve in curves if (curve.adjoint, curve.beta) == (mode, beta)}
            kept, peak, time = (own.get(name) for name in _COSTS)
            rows.append(
                (
                    f"{beta:g}", mode_label(mode), *(binary_size(None if c is None else c.y[-1]) for c in (kept, peak)),
                    ABSENT if kept is None else number(_bits_per_half_step(kept), 3),
                    ABSENT if time is None else _last(time),
                )
            )  # fmt: skip
    most = max(x for curve in curves for x in curve.x)
    columns = (
        "beta", "way to the gradient", f"kept, N = {most:g}", f"at most alive, N = {most:g}",
        "bits per state component and half step", "time over floating",
    )  # fmt: skip
    caption = (
        "The same in numbers; the bits are the growth of what is kept between the two largest N. A tape of remainders "
        "costs log2 m bits at beta = 1 - 1/m or 1 + 1/m where m is a power of two, some tenths more where it is not, "
        "and nothing while the states are exact without it."
    )
    return Grid(caption, columns, tuple(rows), (), frozenset(range(2, 6)))


def _last(curve: Curve) -> str:
    """The ordinate at the largest N, and where that is NaN the one before which is not, with its N."""
    known = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if not math.isnan(y)]
    if not known:
        return number(math.nan)
    x, y = known[-1]
    return number(y, 2) if x == curve.x[-1] else f"NaN; {number(y, 2)} at N = {x:g}"


def _bits_per_half_step(kept: Curve) -> float:
    """Growth of the kept bytes between the two largest N, in bits per component of a state and half step."""
    if len(kept.x) < 2:
        return math.nan
    steps = kept.x[-1] - kept.x[-2]
    return 8.0 * (kept.y[-1] - kept.y[-2]) / (2.0 * steps * SAMPLES * WIDTH)
