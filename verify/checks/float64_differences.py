"""Claim: the gradient agrees with differences of the subject's own forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import RATIO_LIMIT, Criterion
from verify.plan import Place
from verify.reading import SCALED_DIFFERENCE
from verify.reference import float64_finite_differences
from verify.result import Measurement
from verify.trial.directions import VALUE_ROUNDOFF, direction_scale, loss_along, slope_along
from verify.trial.trial import Trial, cost


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", target="n-step", leaf="all leaves")


def check_float64_differences(trial: Trial) -> list[Measurement]:
    """Compare <g, d> with the central difference of the subject's own loss in float64, the kind that users know.

        measured |<g, d> - D| / sqrt((error estimate of D)^2 + (rounding of <g, d>)^2)

    Returns:
        One row; "failed" where a leaf got no gradient.

    How this can fail: a gradient of something else than the forward pass; a step count that changes with the inputs.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002), section 25.6.
    """
    slope = slope_along(trial)
    if isinstance(slope, str):
        return CHECK.failed(trial, slope)
    loss = loss_along(trial)
    derivative = float64_finite_differences(
        lambda h: loss(float(h[0])), np.zeros(1), np.ones(1), value_roundoff=VALUE_ROUNDOFF
    )
    # Near beta = 1 reversal costs the gradient more digits than the difference loses.
    scale = math.hypot(derivative.error_estimate, direction_scale(trial)[0])
    return [
        trial.row(
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=slope,
            expected=derivative.value,
            measured=abs(slope - derivative.value) / scale,
            scale=scale,
            **cost(trial.observe("reversible")),
        )
    ]


CHECK = Check(
    name="float64-differences",
    topic="gradients",
    criterion=Criterion(
        claim="the gradient agrees with central differences of the subject's own forward pass",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why="the unit is the difference's own error estimate, with what rounding does to the gradient",
        unit="error estimates",
        reading=SCALED_DIFFERENCE,
        observed="args",
    ),
    kills=("parameter-beta-missing", "float32-cotangents"),
    applies=probe,
    places=places,
    rows=check_float64_differences,
)
