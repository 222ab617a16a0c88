"""States that should agree to the bit, and the rows that count where they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verify.result import Measurement
from verify.trial.observation import same_bits
from verify.trial.trial import Trial, cost


def differing_states(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Number of components that differ in any bit; NaN where there is nothing to compare, or another number of it."""
    if not expected or len(expected) != len(got):
        return math.nan
    count = 0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return math.nan
        if not same_bits(one, other):
            count += int(torch.count_nonzero((one != other) & ~(one.isnan() & other.isnan())))
    return float(count)


def bits_row(trial: Trial, leaf: str, differing: float) -> Measurement:
    """A row whose `measured` is the number of components that differ."""
    return trial.row(
        "reversible",
        leaf=leaf,
        got=differing,
        expected=0.0,
        measured=differing,
        **cost(trial.observe("reversible")),
    )
