"""Claim: every solver and adjoint costs what it promises."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import FINE, fixed_steps
from verify.criteria import Criterion
from verify.methods import METHODS
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.subject import PHANTOM, Adjoint
from verify.trial.counted import count_row
from verify.trial.trial import Trial


def applies(case: Case) -> bool:
    """The float64 cases of methods with a fixed number of steps that say how often they evaluate f."""
    return fixed_steps(case) and case.dtype == FINE and METHODS[case.solver].evaluations is not None


def places(case: Case) -> Iterator[Place]:
    """A row per adjoint and count."""
    for adjoint, leaf, expected in _expected(case):
        yield Place(adjoint=adjoint, leaf=leaf, expected=float(expected))


def check_method_evaluations(trial: Trial) -> list[Measurement]:
    """Count evaluations of f and VJPs through it: e a step forward, with e = 2 for the reversible solver, else 1.

        unrolled      backward 0 evaluations and e N VJPs
        checkpointed  backward e N evaluations and e N VJPs: each step is taken again, and once
        phantom       K VJPs, for its K steps, which may be taken forward or backward

    Returns:
        A row each; `measured` is the distance from the expected count.

    How this can fail: a graph that is kept where a segment should be taken again, or a segment taken again twice.

    References:
        Chen, Xu, Zhang, Guestrin, arXiv 1604.06174; Geng, Zhang, Bai, Wang, Lin, arXiv 2111.05177.
    """
    wanted = _expected(trial.case)
    return [count_row(trial, adjoint, leaf, expected) for adjoint, leaf, expected in wanted if trial.asked([adjoint])]


def _expected(case: Case) -> Iterator[tuple[Adjoint, str, int]]:
    total = (METHODS[case.solver].evaluations or 0) * case.num_steps
    steps = ("reported steps", case.num_steps)
    forward = ("forward evaluations", total)
    counts: dict[Adjoint, tuple[tuple[str, int], ...]] = {
        "unrolled": (forward, steps, ("backward evaluations", 0), ("vector-Jacobian products", total)),
        "checkpointed": (forward, steps, ("backward evaluations", total), ("vector-Jacobian products", total)),
        "phantom": (steps, ("vector-Jacobian products", PHANTOM[0])),
    }
    for adjoint, wanted in counts.items():
        for leaf, expected in wanted:
            yield adjoint, leaf, expected


CHECK = Check(
    name="method-evaluations",
    topic="cost",
    criterion=Criterion(
        claim="every solver and exact adjoint takes the evaluations and VJPs of its method, and reports its steps",
        comparison="==",
        threshold=0.0,
        why="the cost that the method promises, counted",
        unit="count",
        reading=DIFFERENCE,
        observed="args",
    ),
    kills=("checkpointed-keeps-the-graph", "phantom-a-step-short"),
    applies=applies,
    places=places,
    rows=check_method_evaluations,
    steps=True,
)
