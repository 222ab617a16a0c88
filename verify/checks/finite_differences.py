"""Claim: the gradient agrees with high-precision differences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import LOGIC_POWER, RATIO_LIMIT, RATIO_WHY, Criterion
from verify.plan import Place
from verify.reading import POWERED_DIFFERENCE
from verify.result import Measurement, Status
from verify.trial.directions import direction_scale, slope_along
from verify.trial.trial import Trial, cost


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", target="n-step", leaf="all leaves")


def check_finite_differences(trial: Trial) -> list[Measurement]:
    """Compare <g, d> with the high-precision difference of the N-step loss along d, N frozen.

        R = |<g, d> - D| / sqrt(sum over leaves of sig^2 ||d||^2)

    Returns:
        One row; "failed" where a leaf got no gradient.

    How this can fail: any error in the gradient that shows along a random direction; a reference whose adjoint is wrong
    in the same way as the subject's, which D does not share.

    References:
        Ridders, DOI 10.1016/S0141-1195(82)80057-0.
    """
    derivative = trial.references.finite_differences(trial.problem, trial.case.beta, trial.case.num_steps)
    slope = slope_along(trial)
    if isinstance(slope, str):
        return CHECK.failed(trial, slope)
    scale, size = direction_scale(trial)
    power = scale / size if size > 0 else math.inf
    status: Status = "measured" if power <= LOGIC_POWER else "no-power"
    return [
        trial.row(
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=slope,
            expected=float(derivative.value),
            measured=abs(slope - float(derivative.value)) / scale,
            scale=scale,
            size=size,
            power=power,
            uncertainty=derivative.error_estimate,
            status=status,
            reason="" if status == "measured" else f"rounding is {power:.2g} of the gradient",
            **cost(trial.observe("reversible")),
        )
    ]


CHECK = Check(
    name="finite-differences",
    topic="gradients",
    criterion=Criterion(
        claim="the gradient agrees with high-precision differences of the N-step map, N frozen",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=POWERED_DIFFERENCE,
        power=LOGIC_POWER,
        logic=True,
        reference=True,
        observed="args",
    ),
    kills=("relative-error-1e-9", "float32-beta-in-backward"),
    applies=probe,
    places=places,
    rows=check_finite_differences,
)
