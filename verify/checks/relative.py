"""Claim: reversal costs little accuracy where theory says that it costs little."""

from __future__ import annotations

import math

import numpy as np

from verify.checks.asymptotic import worst_rate
from verify.checks.trial import Trial, cost, to_numpy
from verify.reference import difference
from verify.result import Measurement
from verify.subject import Adjoint


def check_relative_to_unrolled(trial: Trial) -> list[Measurement]:
    """Compare the errors of the reversible and of the unrolled gradient, both against the reference.

        measured ||g_reversible - g|| / max(||g_unrolled - g||, u ||g|| / sqrt 3)

    Returns:
        One row, or none where the predicted growth (rho / |1 - beta|)^(2N) is 10 or more or rho is not known.

    How this can fail: sums in a narrower dtype than autograd's, states narrower than asked for.

    References:
        (THEORY M1, A12).
    """
    case, constant = trial.case, trial.problem.contraction_constant
    if constant is None or not (worst_rate(constant, case.beta) / abs(1 - case.beta)) ** (2 * case.num_steps) < 10:
        return []
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    reversible, unrolled = (_error(trial, adjoint) for adjoint in ("reversible", "unrolled"))
    size = math.sqrt(sum(float(np.sum(np.square(g.astype(np.float64)))) for g in expected.gradient.values()))
    floor = trial.case.unit_roundoff * size / math.sqrt(3.0)
    return [
        trial.row(
            "relative-to-unrolled",
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=reversible,
            expected=unrolled,
            measured=reversible / max(unrolled, floor),
            unit="relative",
            scale=max(unrolled, floor),
            uncertainty=max(expected.uncertainty.values()),
            **cost(trial.observe("reversible")),
        )
    ]


def _error(trial: Trial, adjoint: Adjoint) -> float:
    """Euclidean error of the whole gradient; NaN where a leaf got none."""
    expected = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps)
    gradients = trial.observe(adjoint).gradients
    total = 0.0
    for leaf, gradient in expected.gradient.items():
        got = gradients.get(leaf)
        if got is None:
            return math.nan
        total += float(np.sum(difference(to_numpy(got), gradient) ** 2))
    return math.sqrt(total)
