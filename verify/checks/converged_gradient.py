"""Claim: the implicit gradient is that of the fixed point, whatever solver found it or solves the adjoint equation."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import tolerance
from verify.criteria import RATIO_LIMIT, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.implicit import implicit_places, implicit_rows
from verify.trial.trial import Trial


ADJOINTS: tuple[Adjoint, ...] = ("implicit", "implicit-gmres")

CONVERGED = 2.0**6
"""Tolerance of the solve in roundings: far enough below that of the adjoint equation, 2^13, to leave no mark."""


def places(case: Case) -> Iterator[Place]:
    """A row per adjoint and leaf other than z0."""
    for adjoint in ADJOINTS:
        yield from implicit_places(case, adjoint)


def check_converged_gradient(trial: Trial) -> list[Measurement]:
    """Compare the implicit gradient after a solve to 2^6 roundings with the multiprecision one, as "implicit-gradient".

    Returns:
        A row per adjoint and leaf other than z0, on which a fixed point does not depend.

    How this can fail: a solver that stops before its tolerance, an adjoint equation that is not solved, the gradient of
    the steps returned in its place.

    References:
        Bai, Kolter, Koltun, arXiv 1909.01377, theorem 1; Saad, Schultz, DOI 10.1137/0907058 (GMRES).
    """
    stop = CONVERGED * trial.case.unit_roundoff
    asked = trial.asked(ADJOINTS)
    return [row for adjoint in asked for row in implicit_rows(trial, adjoint, trial.observe(adjoint, stop=stop))]


CHECK = Check(
    name="converged-gradient",
    topic="gradients",
    criterion=Criterion(
        claim="the implicit gradient is that of the fixed point, by every solver and for either adjoint solver",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why="an adjoint residual r leaves an error of at most r/(1-k) in the adjoint and about as much in a leaf",
        unit="ratio R",
        reading=RATIO,
        reference=True,
        observed="args",
    ),
    kills=("gmres-of-one-vector",),
    applies=tolerance,
    places=places,
    rows=check_converged_gradient,
)
