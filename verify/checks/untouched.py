"""Claim: nothing that belongs to the caller is changed."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import referred_in_float64
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.trial import Trial, cost


ADJOINTS: tuple[Adjoint, ...] = ("reversible", "unrolled")


def places(case: Case) -> Iterator[Place]:
    """A row per adjoint."""
    del case
    for adjoint in ADJOINTS:
        yield Place(adjoint=adjoint, leaf="surroundings", expected=0.0)


def check_untouched(trial: Trial) -> list[Measurement]:
    """Nothing that belongs to the caller is changed: inputs, results, random state, grad mode.

    Returns:
        A row per adjoint; `measured` is the number of things changed, which `reason` names.

    How this can fail: in-place steps on aliased tensors, a random state saved and not restored, a mode left switched.

    References:
        (A9).
    """
    rows: list[Measurement] = []
    for adjoint in trial.asked(ADJOINTS):
        seen = trial.observe(adjoint)
        rows.append(
            trial.row(
                adjoint,
                leaf="surroundings",
                got=float(len(seen.changed)),
                expected=0.0,
                measured=float(len(seen.changed)),
                reason="; ".join(seen.changed),
                **cost(seen),
            )
        )
    return rows


CHECK = Check(
    name="untouched",
    topic="surroundings",
    criterion=Criterion(
        claim="inputs, parameters, random state and grad mode are what they were",
        comparison="==",
        threshold=0.0,
        why="a solve has no business changing them",
        unit="count",
        reading=DIFFERENCE,
        observed="args",
    ),
    kills=("random-state-advanced", "start-overwritten", "grad-mode-left-off"),
    applies=referred_in_float64,
    places=places,
    rows=check_untouched,
)
