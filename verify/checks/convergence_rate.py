"""Claim: the error falls at the spectral rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import BETAS, probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.problems import get_problem
from verify.reading import LOG_RATIO
from verify.result import Measurement
from verify.trial.decay import FALLEN, LEAST_POINTS, decay
from verify.trial.trial import Trial


def applies(case: Case) -> bool:
    """The probes at the betas of every profile, of problems whose error falls along a line."""
    return probe(case) and case.beta in BETAS and get_problem(case.problem).scope.straight


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", leaf="z")


def check_convergence_rate(trial: Trial) -> list[Measurement]:
    """Fit the rate at which ||z_n - z*|| falls and compare it with the spectral rate of the step.

        ln ||z_n - z*|| = c + n ln(rate),      measured |ln(rate / predicted)|

    Returns:
        One row; "failed" where fewer than 8 steps lie between 1e-4 and 1e-11 of ||z*||.

    How this can fail: another beta than asked for, another order of the half steps, a damped or repeated update; on a
    defective or strongly non-normal spectrum also a right solver, whose error has a polynomial factor.

    References:
        Young, Trans. AMS 76 (1954), DOI 10.1090/S0002-9947-1954-0059635-7; (T2, A7).
    """
    seen = decay(trial)
    window = seen.window()
    common: dict[str, Any] = {"leaf": "z", "expected": seen.predicted}
    if len(window) < LEAST_POINTS or not np.all(np.isfinite(seen.errors)):
        reason = f"{len(window)} steps lie in the window {FALLEN}, at least {LEAST_POINTS} are needed"
        return CHECK.failed(trial, reason)
    slope, _ = np.polyfit(window, np.log(seen.errors[window]), 1)
    apart = abs(float(slope) - math.log(seen.predicted))
    return [trial.row("reversible", got=math.exp(slope), measured=apart, **common)]


CHECK = Check(
    name="convergence-rate",
    topic="rates",
    criterion=Criterion(
        claim="the error falls by the spectral rate of the step",
        comparison="<=",
        threshold=0.02,
        why="A7: |ln(observed / predicted)| on normal fixtures, fitted above round-off (T2)",
        unit="log ratio",
        reading=LOG_RATIO,
    ),
    kills=("jacobi-update", "slower-than-asked"),
    applies=applies,
    places=places,
    rows=check_convergence_rate,
)
