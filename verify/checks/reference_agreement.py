"""Claim: two references that share no code agree before either judges a subject."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import REFERENCE_SHARE, Criterion
from verify.plan import Place
from verify.reading import ERROR
from verify.reference.finite_differences import Target
from verify.result import Measurement
from verify.trial.directions import direction_scale
from verify.trial.trial import Trial


FLOAT64_ROUNDOFF = 2.0**-53


TARGETS: tuple[Target, ...] = ("n-step", "fixed-point")


def places(case: Case) -> Iterator[Place]:
    """A row per target."""
    del case
    for target in TARGETS:
        yield Place(target=target, leaf="all leaves")


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
    amplified, size = direction_scale(trial)
    scale = FLOAT64_ROUNDOFF * amplified / (amplified / size)
    rows: list[Measurement] = []
    for target in TARGETS:
        agreement = trial.references.agreement(trial.problem, trial.case.beta, trial.case.num_steps, target)
        rows.append(
            trial.row(
                target=target,
                leaf="all leaves",
                error=agreement.disagreement,
                measured=agreement.disagreement / scale,
                scale=scale,
                uncertainty=agreement.uncertainty,
            )
        )
    return rows


CHECK = Check(
    name="reference-agreement",
    topic="references",
    criterion=Criterion(
        claim="the reference's gradients agree with differences that share no differentiation code",
        comparison="<=",
        threshold=REFERENCE_SHARE,
        why="A0: a reference is wrong by at most 2^-10 of the rounding that it is used to see",
        unit="roundings",
        reading=ERROR,
        reference=True,
    ),
    kills=("reference-in-float64", "reference-with-wrong-term"),
    applies=probe,
    places=places,
    rows=check_reference_agreement,
)
