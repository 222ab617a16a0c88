"""Claim: the two kinds of gradient draw together at the forward rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import BETAS, probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.problems import get_problem
from verify.reading import RELATIVE
from verify.result import Measurement
from verify.trial.decay import LEAST_POINTS, fit_rate_with_linear_factor, predicted_rate
from verify.trial.trial import Trial, to_numpy


DRAWN = (1e-2, 1e-8)
"""The same for gradients, whose round-off floor is higher."""


SAMPLES = 16


def applies(case: Case) -> bool:
    """The probes at the betas of every profile, of the problems chosen for it."""
    return probe(case) and case.beta in BETAS and get_problem(case.problem).scope.targets


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="default", target="fixed-point", leaf="all leaves")


def check_target_difference(trial: Trial) -> list[Measurement]:
    """Fit how the exact gradient of N steps approaches the implicit gradient as N grows.

        ||g_N - g*|| = (C0 + C1 N) rho^N,      measured |ln(rho) fitted / ln(rho) predicted - 1|

    g_N and g* are both the subject's, by its default and its implicit adjoint.

    Returns:
        One row; "failed" where fewer than 8 step counts lie between 1e-2 and 1e-8 of ||g*||.

    How this can fail: one kind of gradient is returned for the other (no decay at all), a truncated adjoint, an
    implicit solve that stops early (the difference levels off).

    References:
        Christianson, DOI 10.1080/10556789408805572 (reverse accumulation at a fixed point); (M2, A8).
    """
    predicted = math.log(predicted_rate(trial))
    far = math.ceil(math.log(1e-14) / predicted)
    star = _flat(trial, "implicit", far)
    size = float(np.linalg.norm(star))
    # The window is entered later than rho^N alone says, by the factor that grows with N: sample beyond its ends.
    first, last = math.log(DRAWN[0]) / predicted, math.log(1e-2 * DRAWN[1]) / predicted
    counts = np.unique(np.linspace(first, last, SAMPLES).astype(int))
    apart = np.array([np.linalg.norm(_flat(trial, "default", int(n)) - star) for n in counts], dtype=np.float64)
    chosen = (apart <= DRAWN[0] * size) & (apart >= DRAWN[1] * size)
    common: dict[str, Any] = {"leaf": "all leaves", "expected": predicted, "target": "fixed-point"}
    if int(chosen.sum()) < LEAST_POINTS:
        reason = f"{int(chosen.sum())} step counts lie in the window {DRAWN}, at least {LEAST_POINTS} are needed"
        return CHECK.failed(trial, reason)
    fitted = fit_rate_with_linear_factor(counts[chosen], apart[chosen])
    return [trial.row("default", got=fitted, measured=abs(fitted / predicted - 1.0), **common)]


def _flat(trial: Trial, adjoint: Any, num_steps: int) -> NDArray[np.float64]:
    """All leaves but z0, which the implicit gradient has not, as one vector; NaN where a leaf got none."""
    gradients = trial.observe(adjoint, num_steps=num_steps).gradients
    parts = [
        np.array([math.nan]) if value is None else to_numpy(value).ravel()
        for leaf, value in gradients.items()
        if leaf != "z0"
    ]
    return np.concatenate(parts)


CHECK = Check(
    name="target-difference",
    topic="rates",
    criterion=Criterion(
        claim="the exact and the implicit gradient draw together at the forward rate, (C0 + C1 N) rho^N",
        comparison="<=",
        threshold=0.05,
        why="A8: the fitted slope is within 5 % of ln rho (M2)",
        unit="relative",
        reading=RELATIVE,
    ),
    kills=("implicit-adjoint-unsolved", "slower-than-asked"),
    applies=applies,
    places=places,
    rows=check_target_difference,
    needs=("implicit",),
)
