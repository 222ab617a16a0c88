"""Claim: the backward pass costs what it promises."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import referred_in_float64
from verify.criteria import ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import COUNTED
from verify.result import Measurement
from verify.trial.counted import count_row
from verify.trial.ratio import start_scale
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row for the evaluations and one for the products."""
    for leaf in LEAVES:
        yield Place(adjoint="reversible", leaf=leaf, expected=2.0 * case.num_steps)


LEAVES = ("backward evaluations", "vector-Jacobian products")


def check_backward_evaluations(trial: Trial) -> list[Measurement]:
    """Count the evaluations of f and the VJPs through it in the reversible backward pass: 2N of each.

    Returns:
        Two rows; `measured` is the distance from the expected count. They have no power where reversal is predicted to
        lose the states: doing something else is right there.

    How this can fail: states rebuilt by one evaluation and differentiated by another; a step left out.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, cost of the backward pass; (T0).
    """
    scale, size = start_scale(trial)
    power = scale / size if size > 0 else math.inf
    lost = not power <= ROUNDING_POWER
    return [
        replace(
            count_row(trial, "reversible", leaf, 2 * trial.case.num_steps),
            scale=scale,
            size=size,
            power=power,
            status="no-power" if lost else "measured",
            reason="reversal is predicted to lose the states" if lost else "",
        )
        for leaf in LEAVES
    ]


CHECK = Check(
    name="backward-evaluations",
    topic="cost",
    criterion=Criterion(
        claim="2N evaluations of f and 2N VJPs in the reversible backward pass",
        comparison="==",
        threshold=0.0,
        why="the cost that the method promises, counted",
        unit="count",
        reading=COUNTED,
        power=ROUNDING_POWER,
        observed="args",
    ),
    kills=("evaluates-twice", "first-step-dropped"),
    applies=referred_in_float64,
    places=places,
    rows=check_backward_evaluations,
    reverses=True,
)
