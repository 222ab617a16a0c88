"""Claim: a beta that is chosen by itself is no worse than the usual one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import of_method
from verify.criteria import Criterion
from verify.methods import METHODS
from verify.plan import Place
from verify.reading import QUOTIENT
from verify.reference import jacobian
from verify.result import Measurement
from verify.trial.asked import asked
from verify.trial.decay import step_rate
from verify.trial.trial import Trial


def applies(case: Case) -> bool:
    """The cases of methods that choose one beta by themselves."""
    return of_method(case) and METHODS[case.solver].relaxation == "auto"


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="unrolled", target="fixed-point", leaf="rate of the chosen beta")


def check_automatic_beta(trial: Trial) -> list[Measurement]:
    """Compare the rate per step of the beta that the subject chose with that of the case's beta, the usual .8.

        measured rate(chosen) / rate(.8),      rates at the multiprecision fixed point, (T2)

    Returns:
        One row.

    How this can fail: a trial that is misread, or a beta that is used without one. It asks of a choice that it does not
    harm; how much it gains the study of rates shows.

    References:
        Young, Trans. AMS 76 (1954), DOI 10.1090/S0002-9947-1954-0059635-7.
    """
    chosen = asked(trial, trial.observe("unrolled")).betas[0][0][0]
    star = trial.references.fixed_point(trial.problem).z_star.astype(np.float64)
    eigenvalues = np.linalg.eigvals(jacobian(trial.problem, star, trial.problem.args))
    rate, usual = (step_rate(eigenvalues, beta) for beta in (chosen, trial.case.beta))
    return [
        trial.row(
            "unrolled",
            target="fixed-point",
            leaf="rate of the chosen beta",
            got=rate,
            expected=usual,
            measured=rate / usual,
        )
    ]


CHECK = Check(
    name="automatic-beta",
    topic="rates",
    criterion=Criterion(
        claim="a beta that is chosen by itself converges at least as fast as the usual one",
        comparison="<=",
        threshold=1.0,
        why="the usual beta could have been kept, and costs no trial",
        unit="relative",
        reading=QUOTIENT,
    ),
    kills=("automatic-beta-by-chance",),
    applies=applies,
    places=places,
    rows=check_automatic_beta,
)
