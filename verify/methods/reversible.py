"""The reversible iteration, its betas given otherwise than as one number, or ended by a tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from verify.methods._method import BetasOf, Map, Method, State, mixed


def reversible(at: Map, z: Any, betas: BetasOf) -> Iterator[State]:
    """The coupled iterates y' = (1 - beta) y + beta f(z), z' = (1 - beta') z + beta' f(y').

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
    """
    y = z
    yield State(z, y)
    for n in count():
        of_y, of_z = betas(n)
        y = mixed(at.ops, y, at.f(z), of_y)
        z = mixed(at.ops, z, at.f(y), of_z)
        yield State(z, y)


METHODS = (
    Method(
        name="reversible-schedule",
        solver="reversible",
        states=reversible,
        evaluations=2,
        settings=(("dense-tanh", 0.8, 5), ("affine-general", 0.8, 5)),
        relaxation="schedule",
    ),
    # The trial has beta .8, and where a spectrum is real and wide enough another takes half of the steps.
    Method(
        name="reversible-auto",
        solver="reversible",
        states=reversible,
        evaluations=None,
        settings=(("dense-tanh", 0.8, 8), ("affine-slow", 0.8, 40)),
        relaxation="auto",
    ),
    Method(
        name="reversible-adaptive",
        solver="reversible",
        states=reversible,
        evaluations=2,
        settings=(("affine-real", 0.8, 8),),
        relaxation="adaptive",
    ),
    Method(
        name="reversible-tolerance",
        solver="reversible",
        states=reversible,
        evaluations=2,
        settings=(("dense-tanh", 0.8, 100),),
        to_tolerance=True,
    ),
)
