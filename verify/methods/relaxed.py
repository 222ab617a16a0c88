"""The relaxed iteration z' = (1 - beta) z + beta f(z)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from verify.methods._method import BetasOf, Map, Method, State, mixed


def relaxed(at: Map, z: Any, betas: BetasOf) -> Iterator[State]:
    """The relaxed iterates.

    References:
        Mann, Mean value methods in iteration (1953), DOI 10.1090/S0002-9939-1953-0054846-3.
    """
    yield State(z, z)
    for n in count():
        z = mixed(at.ops, z, at.f(z), betas(n)[0])
        yield State(z, z)


METHODS = (
    Method(
        name="relaxed",
        solver="relaxed",
        states=relaxed,
        evaluations=1,
        settings=(("dense-tanh", 0.8, 8), ("affine-general", 0.8, 8)),
    ),
    Method(
        name="relaxed-tolerance",
        solver="relaxed",
        states=relaxed,
        evaluations=1,
        settings=(("dense-tanh", 0.8, 200),),
        to_tolerance=True,
    ),
)
