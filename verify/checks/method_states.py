"""Claim: every solver returns the iterates that define it."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import defined, state_shape
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.methods import METHODS
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.trial.asked import defined_rows
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row for z1, and one for y1 where the solver has it."""
    for leaf in _leaves(case):
        yield Place(adjoint="unrolled", leaf=leaf, shape=state_shape(case))


def check_method_states(trial: Trial) -> list[Measurement]:
    """Compare the states with those that the method's definition in `verify.methods` gives in multiprecision.

        R = RMS(z1 - z_N) / sig(z_N),      likewise y

    N is what was asked for, with a tolerance what the subject reports of each sample ("stopping" judges it); betas that
    were left to the subject are those that it reports ("adaptive-betas" and "automatic-beta" judge them).

    Returns:
        A row per state.

    How this can fail: another formula, beta or order of steps; what was left to the subject and used is not what it
    reports; the wrong sample's step count. The definition itself is trusted: it cites its source.

    References:
        (M0), and those of each module of `verify.methods`.
    """
    return defined_rows(trial, "unrolled", _leaves(trial.case))


def _leaves(case: Case) -> list[str]:
    return ["z1", "y1"] if METHODS[case.solver].coupled else ["z1"]


CHECK = Check(
    name="method-states",
    topic="states",
    criterion=Criterion(
        claim="every solver returns the iterates that define it, up to rounding",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=RATIO,
        power=ROUNDING_POWER,
        logic=True,
        reference=True,
        shared=False,
        observed="args",
    ),
    kills=(
        "anderson-unmixed",
        "broyden-by-anderson",
        "peaceman-rachford-averaged",
        "schedule-a-step-late",
        "betas-misreported",
    ),
    applies=defined,
    places=places,
    rows=check_method_states,
    steps=True,
)
