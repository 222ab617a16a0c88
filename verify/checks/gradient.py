"""Claim: the gradient of every leaf is the gradient of the N-step map."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import leaf_shapes, referred
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.gradients import gradient_rows
from verify.trial.trial import Trial


ADJOINTS: tuple[Adjoint, ...] = ("reversible", "default", "unrolled")


def places(case: Case) -> Iterator[Place]:
    """A row per adjoint and leaf."""
    for adjoint in _adjoints(case):
        for leaf, shape in leaf_shapes(case).items():
            yield Place(adjoint=adjoint, target="n-step", leaf=leaf, shape=shape)


def check_gradient(trial: Trial) -> list[Measurement]:
    """Compare the gradient of each leaf with the multiprecision gradient of the same N steps.

        R = RMS(g - dL/dleaf) / sig(leaf),      L = <cotangent_z, z1> + <cotangent_y, y1>

    Returns:
        A row per adjoint and leaf; "failed" where a leaf got no gradient.

    How this can fail: a lost term, leaf or cotangent, a wrong factor, the implicit gradient in place of this one, sums
    in a narrow dtype. Only rows with power below 2^-20 see a dropped term; bfloat16 rows see rounding alone, and rows
    of a reversal that is predicted to lose the states see nothing.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the reversible backward pass; (T0, M1).
    """
    adjoints = trial.asked(_adjoints(trial.case))
    return [row for adjoint in adjoints for row in gradient_rows(trial, adjoint, trial.observe(adjoint))]


def _adjoints(case: Case) -> tuple[Adjoint, ...]:
    """All three; the unrolled one, a yardstick, only where states and f have one dtype of at least float32."""
    plain = case.dtype == case.state_dtype and case.dtype != "bfloat16"
    return ADJOINTS if plain else ADJOINTS[:2]


CHECK = Check(
    name="gradient",
    topic="gradients",
    criterion=Criterion(
        claim="each leaf's gradient is the gradient of the N-step map, up to rounding",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=RATIO,
        power=ROUNDING_POWER,
        logic=True,
        reference=True,
        observed="args",
    ),
    kills=("coupling-dropped", "relative-error-1e-9", "float32-accumulators", "args-lost", "last-steps-only"),
    applies=referred,
    places=places,
    rows=check_gradient,
)
