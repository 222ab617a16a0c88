"""Claim: the fixed point is the one that a routine finds which we did not write."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.problems import get_problem
from verify.reading import ERROR
from verify.reference import difference
from verify.result import Measurement
from verify.trial.ratio import rms
from verify.trial.trial import Trial


def applies(case: Case) -> bool:
    """The probes of problems that have such a routine."""
    return probe(case) and get_problem(case.problem).oracle_float64 is not None


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(target="fixed-point", leaf="z_star")


def check_oracle(trial: Trial) -> list[Measurement]:
    """Compare the fixed point with the one of a routine that we did not write.

        measured RMS(z* - oracle) / RMS(z*)

    Returns:
        One row.

    How this can fail: the problem is stated wrongly, or its fixed point is another one than the oracle's. The routine
    works in float64 to its own tolerance, so agreement to half of float64's digits is asked for.

    References:
        The routine is named in the problem's `oracle_source`.
    """
    oracle = trial.problem.oracle()
    if oracle is None:
        return []
    expected = trial.references.fixed_point(trial.problem)
    apart = rms(difference(oracle, expected.z_star))
    size = rms(expected.z_star.astype(np.float64))
    return [
        trial.row(
            leaf="z_star",
            target="fixed-point",
            error=apart,
            measured=apart / size,
            scale=size,
            uncertainty=expected.uncertainty["z"],
            reason=trial.problem.oracle_source,
        )
    ]


CHECK = Check(
    name="oracle",
    topic="references",
    criterion=Criterion(
        claim="the fixed point is the one that a routine finds which we did not write",
        comparison="<=",
        threshold=2.0**-26,
        why="half of float64's digits: the routine has its own tolerance, and another fixed point is far away",
        unit="relative",
        reading=ERROR,
        reference=True,
        notes=True,
    ),
    kills=("another-fixed-point",),
    applies=applies,
    places=places,
    rows=check_oracle,
)
