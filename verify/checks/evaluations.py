"""Claim: the method costs what it promises, and reports the steps that it took."""

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
from verify.trial.counted import count_row
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """The forward pass of both adjoints, and the backward pass of the unrolled one."""
    for adjoint, counts in _EXPECTED.items():
        for leaf, steps in counts.items():
            yield Place(adjoint=adjoint, leaf=leaf, expected=float(steps * case.num_steps))


_FORWARD = {"forward evaluations": 2, "reported steps": 1}
_EXPECTED: dict[Adjoint, dict[str, int]] = {
    "reversible": _FORWARD,
    "unrolled": {**_FORWARD, "backward evaluations": 0, "vector-Jacobian products": 2},
}
"""Adjoint -> what is counted -> how much of it a step takes."""


def check_evaluations(trial: Trial) -> list[Measurement]:
    """Count the evaluations of f forward, and what the unrolled backward pass takes.

        forward 2N;   unrolled backward 0 evaluations and 2N VJPs

    Returns:
        Two rows for the reversible adjoint, four for the unrolled one; `measured` is the distance from the expected
        count.

    How this can fail: a step too many or too few, a step count that was not updated.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the forward iteration; (T0).
    """
    return [
        count_row(trial, adjoint, leaf, steps * trial.case.num_steps)
        for adjoint in trial.asked(list(_EXPECTED))
        for leaf, steps in _EXPECTED[adjoint].items()
    ]


CHECK = Check(
    name="evaluations",
    topic="cost",
    criterion=Criterion(
        claim="2N evaluations of f forward; 2N evaluations and 2N VJPs backward; num_steps says N",
        comparison="==",
        threshold=0.0,
        why="the cost that the method promises, counted",
        unit="count",
        reading=DIFFERENCE,
        observed="args",
    ),
    kills=("one-step-too-few", "one-step-too-many", "stale-step-count"),
    applies=referred_in_float64,
    places=places,
    rows=check_evaluations,
    steps=True,
)
