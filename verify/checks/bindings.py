"""Claim: what f reads gets its gradient, however it is bound."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import leaf_shapes, probe
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.trial.gradients import gradient_rows
from verify.trial.observation import Binding
from verify.trial.trial import Trial


BINDINGS: tuple[Binding, ...] = ("module", "closure")


def places(case: Case) -> Iterator[Place]:
    """A row per binding and leaf."""
    for binding in BINDINGS:
        for leaf, shape in leaf_shapes(case).items():
            yield Place(adjoint="reversible", target="n-step", leaf=f"{binding} {leaf}", shape=shape)


def check_bindings(trial: Trial) -> list[Measurement]:
    """Compare the gradients of module parameters and of captured tensors, as `check_gradient` does those of args.

    Returns:
        A row per binding and leaf, the leaf "module args.W" or "closure args.W".

    How this can fail: the adjoint differentiates what it is passed and not what f reads.

    References:
        The reentrant form of torch.utils.checkpoint loses captured tensors in the same way (its documentation).
    """
    rows: list[Measurement] = []
    for binding in BINDINGS:
        rows += gradient_rows(trial, "reversible", trial.observe("reversible", binding), f"{binding} ")
    return rows


CHECK = Check(
    name="bindings",
    topic="gradients",
    criterion=Criterion(
        claim="module parameters and captured tensors get the gradient that args get",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=RATIO,
        power=ROUNDING_POWER,
        logic=True,
        reference=True,
        observed="binding",
    ),
    kills=("parameters-not-reached", "captured-not-reached"),
    applies=probe,
    places=places,
    rows=check_bindings,
)
