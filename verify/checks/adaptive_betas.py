"""Claim: betas that adapt follow their rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import of_method
from verify.criteria import LOGIC_POWER, RATIO_LIMIT, Criterion
from verify.methods import METHODS
from verify.plan import Place
from verify.reading import POWERED_DIFFERENCE
from verify.reference.method_run import Residuals, residuals
from verify.result import Measurement
from verify.trial.asked import asked
from verify.trial.trial import Trial


START, NEAREST, LARGEST, CAREFUL = 0.8, 2.0**-4, 1.95, 0.5
"""The first beta, the least distance of a risen one from 1, the greatest, and the greatest after a step that lost."""


def applies(case: Case) -> bool:
    """The cases of methods whose betas adapt."""
    return of_method(case) and METHODS[case.solver].relaxation == "adaptive"


def places(case: Case) -> Iterator[Place]:
    """A row per step."""
    for step in range(case.num_steps):
        yield Place(adjoint="unrolled", leaf=f"beta of step {step}")


def check_adaptive_betas(trial: Trial) -> list[Measurement]:
    """Compare the betas that the subject reports with the rule, at the residuals of a multiprecision run with them.

        r = ||f(z_n) - z_n|| / ||f(z_{n-1}) - z_{n-1}||,   k = (r - 1 + beta) / (beta sqrt r)
        next = max(beta, 2 / (1 + sqrt(1 - k^2))) where r > |1 - beta|, at most .5 where r >= 1, else beta

    A rounding of f moves r by u (||f(z_n)|| / ||f(z_n) - z_n|| + the same of n - 1), and the next beta by what the rule
    makes of that: the scale, a rounding of beta itself at least.

    Returns:
        A row per step, of its worst sample.

    How this can fail: a ratio of another step or of the batch, a beta that is used and not recorded, or the reverse.

    References:
        Hageman, Young, Applied Iterative Methods (1981), chapter 9.
    """
    solve = asked(trial, trial.observe("unrolled"))
    seen = list(islice(residuals(trial.problem, solve), trial.case.num_steps))
    return [_row(trial, step, seen, [first for first, _ in solve.betas]) for step in range(trial.case.num_steps)]


def _row(trial: Trial, step: int, seen: list[Residuals], betas: list[tuple[float, ...]]) -> Measurement:
    u = trial.case.unit_roundoff
    compared: list[tuple[float, float, float, float]] = []
    for sample, got in enumerate(betas[step]):
        expected, scale = START, u
        if step > 0:
            (now, value), (before, value_before) = (
                (float(at.residual[sample]), float(at.value[sample])) for at in (seen[step], seen[step - 1])
            )
            beta, ratio, doubt = betas[step - 1][sample], now / before, u * (value / now + value_before / before)
            expected = next_beta(beta, ratio)
            scale = max(u, *(abs(next_beta(beta, ratio * (1 + sign * doubt)) - expected) for sign in (-1, 1)))
        apart = abs(got - expected) / scale
        compared.append((math.inf if math.isnan(apart) else apart, got, expected, scale))
    measured, got, expected, scale = max(compared)
    power = scale / expected
    lost = not power <= LOGIC_POWER
    return trial.row(
        "unrolled",
        leaf=f"beta of step {step}",
        got=got,
        expected=expected,
        measured=measured,
        scale=scale,
        size=expected,
        power=power,
        status="no-power" if lost else "measured",
        reason=f"rounding moves the ratio of the residuals: {power:.2g} of beta" if lost else "",
    )


def next_beta(beta: float, ratio: float) -> float:
    """The rule, for one sample."""
    if ratio >= 1:
        return min(beta, CAREFUL)
    if not ratio > abs(1 - beta):
        return beta
    k = (ratio - 1 + beta) / (beta * math.sqrt(ratio))
    young = 2 / (1 + math.sqrt(max(0.0, 1 - k * k)))
    return max(beta, min(max(young, 1 + NEAREST), LARGEST))


CHECK = Check(
    name="adaptive-betas",
    topic="rates",
    criterion=Criterion(
        claim="betas that adapt follow the ratios of each sample's residuals by their rule",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why="the scale is what one rounding of each of two values of f makes of the next beta",
        unit="ratio R",
        reading=POWERED_DIFFERENCE,
        power=LOGIC_POWER,
        effective=0.5,
    ),
    kills=("adaptive-betas-of-the-batch",),
    applies=applies,
    places=places,
    rows=check_adaptive_betas,
)
