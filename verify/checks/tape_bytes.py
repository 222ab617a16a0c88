"""Claim: a remainder takes as many bits as are lost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import bitwise_probe, state_shape
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import TAPE
from verify.result import Measurement
from verify.trial.counted import STEPS, kept_bytes
from verify.trial.trial import Trial


def applies(case: Case) -> bool:
    """Where f is in float64, whose first steps need a tape too, and m is a power of two, so that bits are whole."""
    return bitwise_probe(case) and math.log2(_m(case)).is_integer()


def places(case: Case) -> Iterator[Place]:
    """One row."""
    yield Place(adjoint="reversible", leaf="remainders", expected=_expected(case))


def check_tape_bytes(trial: Trial) -> list[Measurement]:
    """Measure what the remainders of 12 steps take, for beta = 1 - 1/m or 1 + 1/m, m a power of two.

        measured = (bytes(16) - bytes(4)) / (2 * 12 samples ceil(components log2 m / 8))

    Returns:
        One row: 1 where a component of a state takes log2 m bits in a half step, packed sample by sample.

    How this can fail: remainders kept as bytes or as numbers; states stored after all. f in float64 has no first steps
    whose remainders are known to be 0, which would count for nothing.

    References:
        (T1, T8): the determinant of a half step is 1/m per component, so log2 m bits are lost.
    """
    few, many = (kept_bytes(trial, trial.settings("reversible", num_steps=steps)) for steps in STEPS)
    expected = _expected(trial.case)
    return [
        trial.row(
            "reversible",
            leaf="remainders",
            got=float(many - few),
            expected=expected,
            measured=(many - few) / expected,
            saved_bytes=many,
        )
    ]


def _m(case: Case) -> int:
    return round(1 / abs(1 - case.beta))


def _expected(case: Case) -> float:
    samples, components = state_shape(case)[0], math.prod(state_shape(case)[1:])
    return 2.0 * (STEPS[1] - STEPS[0]) * samples * math.ceil(components * math.log2(_m(case)) / 8)


CHECK = Check(
    name="tape-bytes",
    topic="cost",
    criterion=Criterion(
        claim="a remainder takes log2 m bits per state component and half step, m a power of two",
        comparison="<=",
        threshold=1.0,
        why="the information that a half step loses (T1), packed without a gap",
        unit="relative",
        reading=TAPE,
    ),
    kills=("remainders-not-packed",),
    applies=applies,
    places=places,
    rows=check_tape_bytes,
    reverses=True,
)
