"""The rows that compare an implicit gradient, taken at a converged state, with that of the fixed point."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._where import leaf_shapes
from verify.plan import Place
from verify.reference import jacobian
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.observation import Observation
from verify.trial.ratio import ratio_row, rms
from verify.trial.trial import Trial, cost, default_tolerance


def implicit_places(case: Case, adjoint: Adjoint) -> Iterator[Place]:
    """A row per leaf other than z0, on which a fixed point does not depend."""
    for leaf, shape in leaf_shapes(case).items():
        if leaf != "z0":
            yield Place(adjoint=adjoint, target="fixed-point", leaf=leaf, shape=shape)


def implicit_rows(trial: Trial, adjoint: Adjoint, seen: Observation) -> list[Measurement]:
    """R of every leaf other than z0, in units of what the tolerance of the adjoint equation and rounding leave."""
    expected = trial.references.fixed_point(trial.problem)
    tolerance = default_tolerance(trial.case) * amplification(trial)
    spread = trial.references.implicit_rounding_scale(
        trial.problem,
        unit_roundoff_function=trial.case.unit_roundoff,
        accumulate_roundoff=trial.case.accumulate_roundoff,
    )
    return [
        ratio_row(
            trial,
            leaf,
            seen.gradients.get(leaf),
            gradient,
            scale=math.hypot(tolerance * rms(gradient.astype(np.float64)), spread[leaf]),
            uncertainty=expected.uncertainty[leaf],
            adjoint=adjoint,
            power_limit=None,
            target="fixed-point",
            **cost(seen),
        )
        for leaf, gradient in expected.gradient.items()
        if leaf != "z0"
    ]


def amplification(trial: Trial) -> float:
    """||(I - K)^-1|| at the fixed point: what a residual there is multiplied with."""
    star = trial.references.fixed_point(trial.problem).z_star.astype(np.float64)
    matrix = jacobian(trial.problem, star, trial.problem.args)
    return float(np.linalg.norm(np.linalg.inv(np.eye(len(matrix)) - matrix), 2))
