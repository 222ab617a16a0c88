"""Claim: the result is the N-step iterate."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import FINE, referred, state_shape
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.ratio import ratio_row
from verify.trial.trial import Trial, cost


ADJOINTS: tuple[Adjoint, ...] = ("reversible", "unrolled")


def places(case: Case) -> Iterator[Place]:
    """A row per state, and in float64 per adjoint."""
    for adjoint in _adjoints(case):
        for leaf in ("z1", "y1"):
            yield Place(adjoint=adjoint, leaf=leaf, shape=state_shape(case))


def check_forward(trial: Trial) -> list[Measurement]:
    """Compare z1 and y1 with the multiprecision iterates.

        R = RMS(z1 - z_N) / sig(z_N),      likewise y

    Returns:
        A row per state, and in float64 per adjoint.

    How this can fail: another number of steps, another beta, a narrower dtype inside, a state returned before its last
    update, samples that mix. It cannot see a fault below rounding, nor one that comes only with tolerances.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the forward iteration; (T0, M0).
    """
    case = trial.case
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    scale = trial.scale()
    rows: list[Measurement] = []
    for adjoint in trial.asked(_adjoints(case)):
        seen = trial.observe(adjoint)
        for leaf, got, state, spread in (
            ("z1", seen.z1, expected.z, scale.forward_z),
            ("y1", seen.y1, expected.y, scale.forward_y),
        ):
            uncertainty = expected.uncertainty[leaf[0]]
            rows.append(
                ratio_row(
                    trial,
                    leaf,
                    got,
                    state,
                    scale=spread,
                    uncertainty=uncertainty,
                    adjoint=adjoint,
                    **cost(seen),
                )
            )
    return rows


def _adjoints(case: Case) -> tuple[Adjoint, ...]:
    return ADJOINTS if case.dtype == FINE else ADJOINTS[:1]


CHECK = Check(
    name="forward",
    topic="states",
    criterion=Criterion(
        claim="z1 and y1 are the N-step iterates, up to rounding",
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
    kills=("one-step-too-few", "one-step-too-many", "state-before-last-update", "float32-forward"),
    applies=referred,
    places=places,
    rows=check_forward,
    steps=True,
)
