"""Claim: backward is linear in its cotangent, to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.pulled import differing, differing_row, pull
from verify.trial.trial import Trial


EXPONENT = 10


def places(case: Case) -> Iterator[Place]:
    """A row each."""
    del case
    for leaf in ("cotangent 0", f"cotangent 2^{EXPONENT} w"):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


def check_linear(trial: Trial) -> list[Measurement]:
    """Backward of 0 is 0, and of 2^10 w is 2^10 times backward of w, to the bit.

    Returns:
        A row each; `measured` is the number of components that are not so.

    How this can fail: clipping, a stale or constant term, a threshold on the cotangent, gradients left from before.

    References:
        (A9): a product with a power of two commutes with rounding, short of over- and underflow.
    """
    plain, scaled, zero = pull(trial, [1.0, 2.0**EXPONENT, 0.0], same_graph=True)
    expected = [None if value is None else value * 2.0**EXPONENT for value in plain]
    nothing = [None if value is None else torch.zeros_like(value) for value in zero]
    return [
        differing_row(trial, "cotangent 0", differing(zero, nothing)),
        differing_row(trial, f"cotangent 2^{EXPONENT} w", differing(scaled, expected)),
    ]


CHECK = Check(
    name="linear",
    topic="bits",
    criterion=Criterion(
        claim="backward of zero is zero, and of 2^k w is 2^k times backward of w",
        comparison="==",
        threshold=0.0,
        why="multiplication by a power of two commutes with rounding",
        unit="count",
        reading=DIFFERENCE,
    ),
    kills=("cotangent-clipped",),
    applies=probe,
    places=places,
    rows=check_linear,
)
