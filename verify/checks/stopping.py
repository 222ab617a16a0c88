"""Claim: each sample stops by itself, at the first state that meets the tolerance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import defined, state_shape, tolerance
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.reference.method_run import residuals
from verify.result import Measurement
from verify.trial.asked import told
from verify.trial.trial import STOPS, Trial, cost


def applies(case: Case) -> bool:
    """The cases of methods that end by a tolerance, extrapolations left out."""
    return tolerance(case) and defined(case)


def places(case: Case) -> Iterator[Place]:
    """A row per sample."""
    for sample in range(state_shape(case)[0]):
        yield Place(adjoint="unrolled", leaf=f"steps of sample {sample}")


def check_stopping(trial: Trial) -> list[Measurement]:
    """Compare the reported steps of each sample with the first n at which ||f(z_n) - z_n|| <= stop ||f(z_n)||.

    The right side is found in multiprecision along the method's definition.

    Returns:
        A row per sample; `measured` is the distance of the counts.

    How this can fail: the increment taken for the residual, a norm over the batch, one count for all samples, a step
    too many. A residual within a rounding of the tolerance could move a count; the problems have none.

    References:
        (A11).
    """
    seen = trial.observe("unrolled")
    reported = seen.num_steps.reshape(-1).expand(len(trial.problem.z0)).tolist()
    stop, first = STOPS[trial.case.dtype], np.full(len(reported), -1)
    for n, now in zip(range(trial.case.num_steps + 1), residuals(trial.problem, told(trial)), strict=False):
        first[(first < 0) & (now.residual <= stop * now.value)] = n
        if (first >= 0).all():
            break
    return [
        trial.row(
            "unrolled",
            leaf=f"steps of sample {sample}",
            got=float(got),
            expected=float(expected),
            measured=abs(float(got) - float(expected)),
            **cost(seen),
        )
        for sample, (got, expected) in enumerate(zip(reported, first, strict=True))
    ]


CHECK = Check(
    name="stopping",
    topic="states",
    criterion=Criterion(
        claim="each sample takes the fewest steps that meet its own tolerance, and the solve reports them",
        comparison="==",
        threshold=0.0,
        why="the first state that meets the tolerance is one and no other; the tolerance is far above rounding",
        unit="count",
        reading=DIFFERENCE,
        observed="args",
    ),
    kills=("tolerance-on-increment", "tolerance-on-batch", "tolerance-taken-loosely"),
    applies=applies,
    places=places,
    rows=check_stopping,
    steps=True,
)
