"""Part of section 2: the validity envelope, predicted, and what was measured on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from reports.content import Block, Fold, Grid, Heading, Notice, Prose
from reports.dossier import Dossier
from reports.figures.envelope import Reach, envelope
from reports.figures.key import precision_order
from reports.text import ABSENT, number, plural, precision
from verify.result import Curve
from verify.rounding.envelope import BITWISE, CAP, TOLERANCES


SHOWN_CONSTANT = 0.9
"""The contraction constant of the table that is not folded."""


@dataclass(frozen=True)
class _Confirmed:
    """One measured setting: what was predicted, what was found there, and how far the tolerance really reaches."""

    curve: Curve
    beta: float
    error: float
    tolerance: float
    predicted: float
    reached: float

    @property
    def safe(self) -> bool:
        return self.error <= self.tolerance

    @property
    def inside(self) -> float:
        return self.reached / self.predicted

    @property
    def where(self) -> str:
        return f"{precision(self.curve.dtype, self.curve.state_dtype)}, {self.curve.problem}, beta {self.beta:g}"


def envelope_blocks(dossier: Dossier) -> list[Block]:
    """The envelope as a sentence, a picture and tables."""
    heading = Heading("trust-envelope", "How many steps may be reversed")
    predicted = dossier.named("envelope-predicted")
    if not predicted:
        return [heading, Notice("note", "No validity envelope was computed: the run has no study of round-off.")]
    measured = dossier.named("envelope-measured")
    kinds = list(dict.fromkeys(_kind(curve) for curve in predicted))
    asked = ", ".join(f"{tolerance:g} in {dtype}" for dtype, tolerance in TOLERANCES.items())
    constants = sorted({_constant(curve) for curve in predicted})
    shown = SHOWN_CONSTANT if SHOWN_CONSTANT in constants else constants[-1]
    others = tuple(_table(predicted, constant, kinds) for constant in constants if constant != shown)
    return [
        heading,
        Prose(
            "The greatest number of steps after which the gradient of a weight is still as right as asked: its "
            f"relative error at most {asked}. It depends on beta, on the contraction constant k, on where the "
            "eigenvalues of df/dz lie, and on the dtypes of f and of the states, and is computed from the model. The "
            "measured points are the most steps, sought beyond the predicted number, that still met the tolerance."
        ),
        *(Notice("good" if good else "bad", sentence) for good, sentence in envelope_sentences(dossier)),
        envelope(
            _reaches([curve for curve in predicted if curve.state_dtype != BITWISE], measured, kinds),
            columns=len(kinds),
            cap=CAP,
            name="envelope",
            caption=f"Steps against beta, by precision and kind of spectrum; nothing is predicted beyond {CAP} steps. "
            "Lines that lie high are settings to choose; a measured point below its line would be unsafe. "
            + _of_integers(predicted),
        ),
        _table(predicted, shown, kinds),
        *([Fold("The same for other contraction constants", others)] if others else []),
    ]


def envelope_sentences(dossier: Dossier) -> list[tuple[bool, str]]:
    """Whether the envelope was safe where it was measured, and how far it really reaches; (safe, sentence).

    Nothing where there is no envelope; what was only predicted does not count as safe.
    """
    found = _confirmed(dossier)
    if not found and not dossier.named("envelope-predicted"):
        return []
    if not found:
        return [(False, "Nothing was measured on the envelope: it is a prediction.")]
    unsafe = [item for item in found if not item.safe]
    if unsafe:
        worst = max(unsafe, key=lambda item: math.inf if math.isnan(item.error) else item.error / item.tolerance)
        said = (
            f"The envelope is not safe: {len(unsafe)} of {plural(len(found), 'measured setting')} are more wrong than "
            f"asked after the predicted number of steps, the worst by {number(worst.error, 2)} where "
            f"{worst.tolerance:g} is asked ({worst.where})."
        )
        return [(False, said)]
    farthest = max(found, key=lambda item: item.inside)
    said = (
        f"The envelope is safe in all {plural(len(found), 'measured setting')}. The tolerance is met up to "
        f"{number(median(item.inside for item in found), 2)} times the predicted number of steps in the middle, and up "
        f"to {number(farthest.inside, 2)} times at most ({farthest.where}: {farthest.predicted:g} predicted, "
        f"{farthest.reached:g} found)."
    )
    return [(True, said)]


def _confirmed(dossier: Dossier) -> list[_Confirmed]:
    reached = {_key(curve): curve for curve in dossier.named("envelope-measured")}
    found: list[_Confirmed] = []
    for curve in dossier.named("envelope-error"):
        other = reached.get(_key(curve))
        if other is None or other.x != curve.x:
            continue
        rows = zip(curve.x, curve.y, curve.band or (), other.predicted or (), other.y, strict=True)
        found += [_Confirmed(curve, *row) for row in rows]
    return sorted(found, key=lambda item: item.where)


def _key(curve: Curve) -> tuple[str, str, str]:
    return curve.problem, curve.dtype, curve.state_dtype


def _kind(curve: Curve) -> str:
    return curve.problem.partition(" k=")[0]


def _constant(curve: Curve) -> float:
    return float(curve.problem.partition(" k=")[2])


def _ordered(curves: Sequence[Curve], kinds: Sequence[str]) -> list[Curve]:
    names = precision_order(precision(curve.dtype, curve.state_dtype) for curve in curves)
    return sorted(
        curves,
        key=lambda c: (names.index(precision(c.dtype, c.state_dtype)), kinds.index(_kind(c)), _constant(c)),
    )


def _reaches(predicted: Sequence[Curve], measured: Sequence[Curve], kinds: Sequence[str]) -> list[Reach]:
    seen = {_key(curve): curve for curve in measured}
    reaches: list[Reach] = []
    for curve in _ordered(predicted, kinds):
        own = seen.get(_key(curve))
        panel = f"{precision(curve.dtype, curve.state_dtype)}: {_kind(curve)}"
        points = ((), ()) if own is None else (own.x, own.y)
        reaches.append(Reach(panel, _constant(curve), curve.x, curve.y, *points))
    return reaches


def _of_integers(predicted: Sequence[Curve]) -> str:
    """How far states that are kept to the bit reach, which the picture leaves out."""
    steps = [y for curve in predicted if curve.state_dtype == BITWISE for y in curve.y if not math.isnan(y)]
    if not steps:
        return ""
    free = sum(step >= CAP for step in steps)
    return (
        f"Bitwise states, which the table has, allow {_cell(float(CAP))} steps in {free} of {len(steps)} settings that "
        f"converge; in the others f's own rounding sets the limit, {_cell(min(steps))} at least."
    )


def _table(predicted: Sequence[Curve], constant: float, kinds: Sequence[str]) -> Grid:
    own = [curve for curve in _ordered(predicted, kinds) if _constant(curve) == constant]
    betas = sorted({beta for curve in own for beta in curve.x})
    rows: list[tuple[str, ...]] = []
    for curve in own:
        steps = dict(zip(curve.x, curve.y, strict=True))
        name = precision(curve.dtype, curve.state_dtype)
        rows.append((name, _kind(curve), *(_cell(steps[beta]) if beta in steps else ABSENT for beta in betas)))
    shown = [("" if place and rows[place - 1][0] == row[0] else row[0], *row[1:]) for place, row in enumerate(rows)]
    columns = ("precision", "eigenvalues", *(f"beta {beta:g}" for beta in betas))
    caption = (
        f"The greatest number of steps that the model allows at k = {constant:g}; a star: the iteration diverges; a "
        "dash: the beta has no bitwise form."
    )
    return Grid(caption, columns, tuple(shown), (), frozenset(range(2, len(columns))))


def _cell(steps: float) -> str:
    if math.isnan(steps):
        return "*"
    return f"at least {CAP}" if steps >= CAP else f"{steps:g}"
