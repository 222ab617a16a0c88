"""Claim: the implicit gradient is the gradient of the fixed point."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import BETAS, FINE, PROBE_STEPS, floating
from verify.criteria import RATIO_LIMIT, Criterion
from verify.plan import Place
from verify.problems import get_problem
from verify.reading import RATIO
from verify.result import Measurement
from verify.trial.decay import predicted_rate, steps_to_fall
from verify.trial.implicit import implicit_places, implicit_rows
from verify.trial.trial import Trial


STEPS = 400
"""Steps after which most problems have converged to rounding; a slow one takes as many as its rate asks for."""


CONVERGED = 1e-18
"""What is then left of the error at the start."""


def applies(case: Case) -> bool:
    """Few steps, float64 states, a map that contracts."""
    return (
        floating(case)
        and case.num_steps == PROBE_STEPS
        and case.state_dtype == FINE
        and case.beta in BETAS
        and get_problem(case.problem).contracts
    )


def places(case: Case) -> Iterator[Place]:
    """A row per leaf other than z0, on which a fixed point does not depend."""
    return implicit_places(case, "implicit")


def check_implicit_gradient(trial: Trial) -> list[Measurement]:
    """Compare the implicit gradient, taken at a converged state, with the multiprecision one.

        R = RMS(g - f_theta^T v) / hypot(tol ||(I - K)^{-1}|| RMS(g), sig),      (I - K^T) v = cotangent_z + cotangent_y

    A residual of relative size tol in the adjoint equation moves v by at most tol ||(I - K)^{-1}|| ||v||; sig is what
    rounding adds.

    Returns:
        A row per leaf other than z0, on which a fixed point does not depend.

    How this can fail: too few iterations of the linear solve, K in place of K^T, a state that has not converged, the
    N-step gradient returned in its place.

    References:
        Bai, Kolter, Koltun, arXiv 1909.01377, theorem 1; (T0).
    """
    steps = max(STEPS, steps_to_fall(predicted_rate(trial), CONVERGED, STEPS))
    return implicit_rows(trial, "implicit", trial.observe("implicit", num_steps=steps))


CHECK = Check(
    name="implicit-gradient",
    topic="gradients",
    criterion=Criterion(
        claim="each leaf's implicit gradient is the gradient of the fixed point, up to the tolerance asked for",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why="an adjoint residual r leaves an error of at most r/(1-k) in the adjoint and about as much in a leaf",
        unit="ratio R",
        reading=RATIO,
        reference=True,
        observed="args",
    ),
    kills=("implicit-adjoint-unsolved",),
    applies=applies,
    places=places,
    rows=check_implicit_gradient,
)
