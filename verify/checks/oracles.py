"""Claims about the references themselves: two oracles that share no code agree before either judges a subject."""

from __future__ import annotations

import numpy as np

from verify.checks.differences import direction_scale
from verify.reference import difference
from verify.reference.finite_differences import Target
from verify.result import Measurement
from verify.trial.ratio import rms
from verify.trial.trial import Trial


FLOAT64_ROUNDOFF = 2.0**-53
TARGETS: tuple[Target, ...] = ("n-step", "fixed-point")


def check_reference_agreement(trial: Trial) -> list[Measurement]:
    """Compare the reference's gradients with differences of its forward pass along a random direction.

        measured |<g, d> - D| / (2^-53 ||g_leaf|| ||d_leaf||, over all leaves)

    The unit is one rounding of <g, d> in float64, the finest that any row is judged by.

    Returns:
        A row per target.

    How this can fail: a wrong VJP rule or adjoint term in the reference, a reference that fell back to float64, too few
    digits.

    References:
        mpmath and scipy.special check a reference at two precisions; (A0).
    """
    amplified, power = direction_scale(trial)
    scale = FLOAT64_ROUNDOFF * amplified / power
    rows: list[Measurement] = []
    for target in TARGETS:
        agreement = trial.references.agreement(trial.problem, trial.case.beta, trial.case.num_steps, target)
        rows.append(
            trial.row(
                "reference-agreement",
                target=target,
                leaf="all leaves",
                measured=agreement.disagreement / scale,
                unit="roundings",
                scale=scale,
                uncertainty=agreement.uncertainty,
            )
        )
    return rows


def check_oracle(trial: Trial) -> list[Measurement]:
    """Compare the fixed point with the one of a routine that we did not write.

        measured RMS(z* - oracle) / RMS(z*)

    Returns:
        One row, none where the problem has no such routine.

    How this can fail: the problem is stated wrongly, or its fixed point is another one than the oracle's. The routine
    works in float64 to its own tolerance, so agreement to half of float64's digits is asked for.

    References:
        The routine is named in the problem's `oracle_source`.
    """
    oracle = trial.problem.oracle()
    if oracle is None:
        return []
    expected = trial.references.fixed_point(trial.problem)
    apart = difference(oracle, expected.z_star)
    size = rms(expected.z_star.astype(np.float64))
    return [
        trial.row(
            "oracle",
            leaf="z_star",
            target="fixed-point",
            measured=rms(apart) / size,
            unit="relative",
            scale=size,
            uncertainty=expected.uncertainty["z"],
            reason=trial.problem.oracle_source,
        )
    ]
