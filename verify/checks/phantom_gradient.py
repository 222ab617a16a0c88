"""Claim: the phantom gradient is what it is defined to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import fixed_steps
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.subject import PHANTOM
from verify.trial.asked import defined_rows, gradient_places
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row per leaf other than z0, which a phantom gradient does not know."""
    yield from gradient_places(case, "phantom", "phantom")


def check_phantom_gradient(trial: Trial) -> list[Measurement]:
    """Compare the phantom gradient with its definition in multiprecision.

        x_0 = z1, a constant;   x_{i+1} = (1 - beta) x_i + beta f(x_i);   L = <cotangent_z + cotangent_y, x_K>
        R = RMS(g - dL/dleaf) / sig(leaf)

    Returns:
        A row per leaf other than z0.

    How this can fail: another number of steps or beta, x_0 that is no constant, a cotangent lost.

    References:
        Geng, Zhang, Bai, Wang, Lin, On training implicit models, arXiv 2111.05177, equation (11).
    """
    rows = defined_rows(trial, "phantom", [leaf for leaf in trial.problem.leaves if leaf != "z0"], PHANTOM)
    return [replace(row, target="phantom") for row in rows]


CHECK = Check(
    name="phantom-gradient",
    topic="gradients",
    criterion=Criterion(
        claim="the phantom gradient is that of its relaxed steps from the state returned, up to rounding",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=RATIO,
        power=ROUNDING_POWER,
        logic=True,
        reference=True,
        shared=False,
        observed="args",
    ),
    kills=("phantom-a-step-short", "phantom-through-the-solve"),
    applies=fixed_steps,
    places=places,
    rows=check_phantom_gradient,
)
