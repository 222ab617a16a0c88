"""Claim: reversal costs little accuracy where the error model says that it costs little."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import referred
from verify.criteria import SELDOM, Criterion
from verify.plan import Place
from verify.reading import GREATER
from verify.reference import difference
from verify.result import Measurement
from verify.rounding.scale import RoundingScale
from verify.subject import Adjoint
from verify.trial.trial import Trial, cost, to_numpy


BENIGN = 1.5


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", target="n-step", leaf="all leaves")


def check_relative_to_unrolled(trial: Trial) -> list[Measurement]:
    """Compare the errors of the reversible and of the unrolled gradient, both against the reference.

        measured ||g_reversible - g|| / max(||g_unrolled - g||, sig_unrolled)

    The unrolled error is not taken for less than what rounding gives it, since a handful of components may be right by
    luck.

    Returns:
        One row; without power where rounding is predicted to cost the reversible gradient more than 1.5 times as much
        as the unrolled one: there "gradient" judges it.

    How this can fail: sums in a narrower dtype than autograd's, states narrower than asked for.

    References:
        (M1, A12).
    """
    case = trial.case
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    reversal, stored = (_spread(trial, trial.scale(kind)) for kind in ("reversible", "unrolled"))
    power = reversal / stored if stored > 0 else math.inf
    if not power <= BENIGN:
        reason = f"reversal is predicted to cost {power:.2g} times the rounding, more than {BENIGN:g}"
        at: dict[str, Any] = {"leaf": "all leaves", "target": "n-step", "power": power, "reason": reason}
        return [trial.row("reversible", status="no-power", **at, **cost(trial.observe("reversible")))]
    reversible, unrolled = (_error(trial, adjoint) for adjoint in ("reversible", "unrolled"))
    return [
        trial.row(
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=reversible,
            expected=unrolled,
            measured=reversible / max(unrolled, stored),
            scale=max(unrolled, stored),
            size=stored,
            power=power,
            uncertainty=max(expected.uncertainty.values()),
            **cost(trial.observe("reversible")),
        )
    ]


def _spread(trial: Trial, scale: RoundingScale) -> float:
    """What rounding does to the whole gradient, one rounding to f's dtype at least."""
    expected = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps).gradient
    floor = trial.case.unit_roundoff / math.sqrt(3.0)
    return math.hypot(
        *(
            max(scale.gradient[leaf] * math.sqrt(value.size), floor * float(np.linalg.norm(value.astype(np.float64))))
            for leaf, value in expected.items()
        )
    )


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


CHECK = Check(
    name="relative-to-unrolled",
    topic="gradients",
    criterion=Criterion(
        claim="the reversible gradient is at most 3 times as wrong as the unrolled one of the same dtype",
        comparison="<=",
        threshold=3.0,
        why="A12, where the error model predicts that reversal costs at most 1.5 times the rounding (M1)",
        unit="relative",
        reading=GREATER,
        power=BENIGN,
        effective=SELDOM,
        reference=True,
        observed="args",
    ),
    kills=("float32-accumulators", "float32-cotangents"),
    applies=referred,
    places=places,
    rows=check_relative_to_unrolled,
    reverses=True,
)
