"""Peaceman-Rachford splitting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from verify.methods._method import BetasOf, Map, Method, State


def peaceman_rachford(at: Map, z: Any, betas: BetasOf) -> Iterator[State]:
    """The iterates, from u_0 = z_0,

        u_half = 2 z - u       z_half = (I + alpha (I - W))^-1 (u_half + alpha b)
        u' = 2 z_half - u_half      z' = prox(u')

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, algorithm 2.
    """
    ops, parts, u = at.ops, at.parts(betas(0)[0]), z
    yield State(z, z)
    for _ in count():
        half = ops.subtract(ops.multiply(2.0, z), u)
        u = ops.subtract(ops.multiply(2.0, parts.resolvent(half)), half)
        z = parts.prox(u)
        yield State(z, z)


METHODS = (
    Method(
        name="peaceman-rachford",
        solver="peaceman-rachford",
        states=peaceman_rachford,
        evaluations=None,
        settings=(("monotone-relu", 0.75, 6),),
    ),
    Method(
        name="peaceman-rachford-tolerance",
        solver="peaceman-rachford",
        states=peaceman_rachford,
        evaluations=None,
        settings=(("monotone-relu", 0.75, 200),),
        to_tolerance=True,
    ),
)
