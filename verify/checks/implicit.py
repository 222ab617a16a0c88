"""Claim: the implicit gradient is the gradient of the fixed point."""

from __future__ import annotations

import math

import numpy as np

from verify.checks.asymptotic import predicted_rate, steps_to_fall
from verify.reference import jacobian
from verify.result import Measurement
from verify.trial.ratio import ratio_row, rms
from verify.trial.trial import Trial, cost, default_tolerance


STEPS = 400
"""Steps after which most problems have converged to rounding; a slow one takes as many as its rate asks for."""

CONVERGED = 1e-18
"""What is then left of the error at the start."""


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
        Bai, Kolter, Koltun, arXiv 1909.01377, theorem 1; (THEORY 1).
    """
    expected = trial.references.fixed_point(trial.problem)
    steps = max(STEPS, steps_to_fall(predicted_rate(trial), CONVERGED, STEPS))
    seen = trial.observe("implicit", num_steps=steps)
    matrix = jacobian(trial.problem, expected.z_star.astype(np.float64), trial.problem.args)
    amplification = float(np.linalg.norm(np.linalg.inv(np.eye(len(matrix)) - matrix), 2))
    tolerance = default_tolerance(trial.case)
    spread = trial.references.implicit_rounding_scale(
        trial.problem,
        unit_roundoff_function=trial.case.unit_roundoff,
        accumulate_roundoff=trial.case.accumulate_roundoff,
    )
    return [
        ratio_row(
            trial,
            "implicit-gradient",
            leaf,
            seen.gradients.get(leaf),
            gradient,
            scale=math.hypot(tolerance * amplification * rms(gradient.astype(np.float64)), spread[leaf]),
            uncertainty=expected.uncertainty[leaf],
            adjoint="implicit",
            power_limit=None,
            target="fixed-point",
            num_steps=steps,
            **cost(seen),
        )
        for leaf, gradient in expected.gradient.items()
        if leaf != "z0"
    ]
