"""Claim: backward evaluates f at the states of the forward pass."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import floating, rebuilt_steps, state_shape
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.result import Measurement
from verify.trial.rebuilt import rebuilt_row, state_name
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row for z_0 and one for the middle."""
    for n in rebuilt_steps(case):
        yield Place(adjoint="reversible", leaf=state_name(n), shape=state_shape(case))


def check_backward_states(trial: Trial) -> list[Measurement]:
    """Watch where backward evaluates f, and compare those states with the forward trajectory.

    Backward evaluates f at y_N, z_{N-1}, y_{N-1}, ..., y_1, z_0, in this order. The last is the worst: R of z_0.

    Returns:
        A row for z_0 and one for the middle.

    How this can fail: VJPs at the wrong state, states kept narrower or wider than asked for, states stored after all.
    A subject that evaluates f in another order, or another number of times, is reported as failed, unless reversal is
    predicted to lose the state altogether: then doing something else is right, and the rows have no power.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the reversible backward pass; (T6, A4).
    """
    return [rebuilt_row(trial, n) for n in rebuilt_steps(trial.case)]


CHECK = Check(
    name="backward-states",
    topic="states",
    criterion=Criterion(
        claim="backward evaluates f at the states of the forward pass, up to amplified rounding",
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
    kills=("vjp-at-next-z", "evaluates-twice", "float32-states-in-reverse"),
    applies=floating,
    places=places,
    rows=check_backward_states,
    reverses=True,
)
