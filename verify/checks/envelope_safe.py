"""Claim: up to the predicted number of steps the gradient is as right as asked."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import QUOTIENT
from verify.result import Measurement
from verify.trial.reach import ENVELOPE, ReachBench, settings_by_case


def applies(case: Case) -> bool:
    """The cases of the envelope."""
    return case.problem == ENVELOPE


def places(case: Case) -> Iterator[Place]:
    """One row."""
    setting = settings_by_case(case.device)[case]
    yield Place(adjoint="reversible", target="n-step", leaf=setting.leaf, expected=setting.tolerance)


def check_envelope_safe(bench: ReachBench) -> list[Measurement]:
    """Measure the error after the predicted number of steps.

        measured = error(N) / tolerance

    Returns:
        One row.

    How this can fail: states narrower than asked for end the envelope early.

    References:
        (M1, T6); `revdeq._precision`.
    """
    error, setting = bench.safe, bench.setting
    at = {"target": "n-step", "leaf": setting.leaf, "expected": setting.tolerance}
    return [bench.row("reversible", got=error, measured=error / setting.tolerance, **at)]


CHECK = Check(
    name="envelope-safe",
    topic="envelope",
    criterion=Criterion(
        claim="after the predicted number of steps the gradient is as right as was asked",
        comparison="<=",
        threshold=1.0,
        why="the envelope is what plans stand on: a measured point beyond it is a broken promise",
        unit="relative",
        reading=QUOTIENT,
    ),
    kills=("float32-states-in-reverse", "coupling-dropped"),
    applies=applies,
    places=places,
    rows=check_envelope_safe,
    reverses=True,
)
