"""Claim: the exact adjoints differentiate the steps that every solver took."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import defined
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.methods import METHODS
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.asked import defined_rows, gradient_places
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row per adjoint and leaf."""
    for adjoint in _adjoints(case):
        yield from gradient_places(case, adjoint, case.solver)


def check_method_gradient(trial: Trial) -> list[Measurement]:
    """Compare the gradient of each leaf with that of the method's definition, differentiated in multiprecision.

        R = RMS(g - dL/dleaf) / sig(leaf),      L = <cotangent_z, z1> + <cotangent_y, y1>

    Betas are constants, however they were chosen, and so is the number of steps.

    Returns:
        A row per adjoint and leaf; "failed" where a leaf got no gradient.

    How this can fail: a segment taken again from the wrong state, or not differentiated; betas that depend on the data
    and are differentiated; a sample that goes on after its last step; a mixing weight taken as a constant.

    References:
        Griewank, DOI 10.1080/10556789208805505 (checkpoints); (A11).
    """
    leaves = list(trial.problem.leaves)
    return [row for adjoint in trial.asked(_adjoints(trial.case)) for row in defined_rows(trial, adjoint, leaves)]


def _adjoints(case: Case) -> tuple[Adjoint, ...]:
    adjoints: tuple[Adjoint, ...] = ("unrolled", "checkpointed", "default")
    return adjoints if METHODS[case.solver].coupled else adjoints[:2]


CHECK = Check(
    name="method-gradient",
    topic="gradients",
    criterion=Criterion(
        claim="unrolled, checkpointed and reversible adjoints differentiate the very steps that a solver took",
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
    kills=("checkpointed-in-part", "adaptive-betas-differentiated", "mixing-weights-constant"),
    applies=defined,
    places=places,
    rows=check_method_gradient,
)
