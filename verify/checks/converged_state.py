"""Claim: what is returned as converged is near the fixed point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import tolerance
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import ERROR
from verify.reference import difference
from verify.result import Measurement
from verify.trial.implicit import amplification
from verify.trial.trial import STOPS, Trial, to_numpy


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="unrolled", target="fixed-point", leaf="z1")


def check_converged_state(trial: Trial) -> list[Measurement]:
    """Compare z1 with the multiprecision fixed point, in what the tolerance leaves, and take the worst sample.

        measured ||z1 - z*|| / (stop ||f(z*)|| ||(I - K)^-1||)

    Returns:
        One row.

    How this can fail: a sample that ended early, another norm, an extrapolation whose residual was judged before it
    was taken. A solver that goes on for longer than it must passes; "stopping" sees that.

    References:
        Bai, Kolter, Koltun, arXiv 1909.01377; (A11).
    """
    expected = trial.references.fixed_point(trial.problem)
    seen = trial.observe("unrolled")
    samples = len(trial.problem.z0)
    star = np.linalg.norm(expected.z_star.astype(np.float64).reshape(samples, -1), axis=1)
    apart = np.linalg.norm(difference(to_numpy(seen.z1), expected.z_star).reshape(samples, -1), axis=1)
    bound = STOPS[trial.case.dtype] * amplification(trial) * star
    worst = int(np.argmax(apart / bound))
    error, scale = float(apart[worst]), float(bound[worst])
    return [
        trial.row(
            "unrolled",
            leaf="z1",
            target="fixed-point",
            error=error,
            measured=error / scale,
            scale=scale,
            uncertainty=expected.uncertainty["z"],
        )
    ]


CHECK = Check(
    name="converged-state",
    topic="states",
    criterion=Criterion(
        claim="a solve to a tolerance returns a state as near to the fixed point as the tolerance says",
        comparison="<=",
        threshold=2.0,
        why="a residual r leaves an error of ||(I - K)^-1|| r, to first order in r; twice that is slack for the rest",
        unit="relative",
        reading=ERROR,
        reference=True,
    ),
    kills=("tolerance-taken-loosely",),
    applies=tolerance,
    places=places,
    rows=check_converged_state,
)
