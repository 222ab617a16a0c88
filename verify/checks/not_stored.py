"""Claim: backward reverses the states, and does not store them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import floating, state_shape
from verify.criteria import SELDOM, Criterion
from verify.plan import Place
from verify.reading import STORED, UNIT_ROUNDOFF
from verify.result import Measurement
from verify.trial.rebuilt import forward_rounds, rebuilt_row, state_name
from verify.trial.trial import Trial


AMPLIFICATION = 1e3


def plain(case: Case) -> bool:
    """The floating cases whose states are as narrow as f: wider ones come back better than f can see."""
    return floating(case) and case.dtype == case.state_dtype


def places(case: Case) -> Iterator[Place]:
    """A row for z_0."""
    yield Place(adjoint="reversible", leaf=state_name(0), shape=state_shape(case))


def check_not_stored(trial: Trial) -> list[Measurement]:
    """Look whether z_0 comes back better than reversal can bring it back.

    The row is that of "backward-states" for z_0; its power is one over the amplification of rounding, u size / scale.

    Returns:
        One row, which has power where rounding is amplified more than 1e3 times and forward did round: on round numbers
        it need not.

    How this can fail: states stored after all, or kept wider than asked for.

    References:
        (T6, A4).
    """
    row = rebuilt_row(trial, 0)
    if row.status == "failed":
        return [row]
    power, reason = math.inf, row.reason
    if row.status == "measured" and row.size is not None and row.scale is not None:
        if forward_rounds(trial):
            power = UNIT_ROUNDOFF[trial.case.dtype] * row.size / row.scale
            reason = f"rounding is amplified {1 / power:.2g} times, less than {AMPLIFICATION:g}"
        else:
            reason = "no operation of the forward pass rounded"
    if power <= 1 / AMPLIFICATION:
        return [replace(row, power=power)]
    return [replace(row, power=power, status="no-power", reason=reason)]


CHECK = Check(
    name="not-stored",
    topic="states",
    criterion=Criterion(
        claim="backward reverses the states: it neither stores nor widens them",
        comparison=">=",
        threshold=1e-3,
        why="where rounding is amplified 1e3 times, a state a thousand times better was not reversed (A4)",
        unit="ratio R",
        reading=STORED,
        reference=True,
        power=1 / AMPLIFICATION,
        effective=SELDOM,
        observed="args",
    ),
    kills=("states-stored", "states-widened", "rounding-scale-inflated"),
    applies=plain,
    places=places,
    rows=check_not_stored,
    reverses=True,
)
