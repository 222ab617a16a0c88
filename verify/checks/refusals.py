"""Claim: settings that cannot be right are refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe_at_half
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.refusing import attempt_solve, refused_row
from verify.trial.trial import Trial


WRONG_BETAS: tuple[Any, ...] = (0.0, 1.0, 2.0, -0.5, math.nan, math.inf, "0.5")


NUM_STEPS = (-1,)


def places(case: Case) -> Iterator[Place]:
    """A row per setting."""
    for leaf, _, _ in _asked(case):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


def check_refusals(trial: Trial) -> list[Measurement]:
    """Ask for settings that have no inverse or no meaning.

    Returns:
        A row per setting; `measured` is 1 where it was accepted, or where the error is not a ValueError or TypeError
        with words in it, else 0.

    How this can fail: beta = 1 makes the inverse 0/0 and comes out as a finite, wrong gradient; NaN passes a check
    written as beta <= 0.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917: the inverse divides by 1 - beta.
    """
    rows: list[Measurement] = []
    for leaf, beta, number in _asked(trial.case):
        attempt = partial(attempt_solve, trial, trial.problem.function, beta, number)
        rows.append(refused_row(trial, leaf, attempt, (ValueError, TypeError)))
    return rows


def _asked(case: Case) -> list[tuple[str, Any, int]]:
    asked: list[tuple[str, Any, int]] = [(f"beta={beta!r}", beta, case.num_steps) for beta in WRONG_BETAS]
    return asked + [(f"num_steps={number}", case.beta, number) for number in NUM_STEPS]


CHECK = Check(
    name="refusals",
    topic="refusals",
    criterion=Criterion(
        claim="settings without an inverse or without meaning are refused",
        comparison="==",
        threshold=0.0,
        why="beta = 1 divides zero by zero in the inverse, and a number comes out",
        unit="count",
        reading=DIFFERENCE,
        notes=True,
    ),
    kills=("beta-one-accepted",),
    applies=probe_at_half,
    places=places,
    rows=check_refusals,
    reverses=True,
)
