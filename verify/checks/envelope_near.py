"""Claim: the predicted number of steps is not far from the one that the tolerance allows."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import QUOTIENT
from verify.result import Measurement
from verify.rounding.envelope import CAP
from verify.trial.reach import ENVELOPE, ReachBench, settings_by_case


FAR = 20.0


def applies(case: Case) -> bool:
    """The cases of the envelope that predict fewer steps than it considers."""
    return case.problem == ENVELOPE and case.num_steps < CAP / FAR


def places(case: Case) -> Iterator[Place]:
    """One row."""
    setting = settings_by_case(case.device)[case]
    yield Place(adjoint="reversible", target="n-step", leaf=setting.leaf, expected=float(case.num_steps))


def check_envelope_near(bench: ReachBench) -> list[Measurement]:
    """Measure how many steps meet the tolerance in fact.

        measured = N_measured / N

    Returns:
        One row.

    How this can fail: states that are stored after all, or kept wider, reach far beyond the prediction.

    References:
        (M1, T6); `revdeq._precision`.
    """
    steps = bench.case.num_steps
    farthest = bench.farthest()
    at = {"target": "n-step", "leaf": bench.setting.leaf, "expected": float(steps)}
    return [bench.row("reversible", got=float(farthest), measured=farthest / steps, **at)]


CHECK = Check(
    name="envelope-near",
    topic="envelope",
    criterion=Criterion(
        claim="the number of steps that meets the tolerance is not far beyond the predicted one",
        comparison="<=",
        threshold=FAR,
        why="an envelope that is far too careful says nothing; of 567 settings the farthest was 16 times inside",
        unit="relative",
        reading=QUOTIENT,
    ),
    kills=("states-stored",),
    applies=applies,
    places=places,
    rows=check_envelope_near,
    reverses=True,
)
