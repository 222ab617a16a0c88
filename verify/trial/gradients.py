"""The rows that compare every leaf of a gradient with the reference."""

from __future__ import annotations

import math

from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.observation import Observation
from verify.trial.ratio import ratio_row, reversal_loses_the_states
from verify.trial.trial import Trial, cost


def gradient_rows(trial: Trial, adjoint: Adjoint, seen: Observation, prefix: str = "") -> list[Measurement]:
    """R of every leaf of an observed gradient, the leaves' names behind a prefix."""
    case = trial.case
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    scale = trial.scale("unrolled" if adjoint == "unrolled" else "reversible")
    spoilt = adjoint == "reversible" and reversal_loses_the_states(trial)
    return [
        ratio_row(
            trial,
            prefix + leaf,
            seen.gradients.get(leaf),
            gradient,
            scale=scale.gradient[leaf],
            uncertainty=expected.uncertainty[leaf],
            adjoint=adjoint,
            least_power=math.inf if spoilt else 0.0,
            target="n-step",
            **cost(seen),
        )
        for leaf, gradient in expected.gradient.items()
    ]
