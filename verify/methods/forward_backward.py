"""Forward-backward splitting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from verify.methods._method import BetasOf, Map, Method, State, mixed


def forward_backward(at: Map, z: Any, betas: BetasOf) -> Iterator[State]:
    """The iterates z' = prox((1 - alpha) z + alpha (W z + b)).

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, algorithm 1.
    """
    alpha = betas(0)[0]
    parts = at.parts(alpha)
    yield State(z, z)
    for _ in count():
        z = parts.prox(mixed(at.ops, z, parts.affine(z), alpha))
        yield State(z, z)


# I - W is strongly monotone with m = .555 and has L = 1.564, so it converges for alpha < 2 m / L^2 = .454.
METHODS = (
    Method(
        name="forward-backward",
        solver="forward-backward",
        states=forward_backward,
        evaluations=None,
        settings=(("monotone-relu", 0.375, 6),),
    ),
    Method(
        name="forward-backward-tolerance",
        solver="forward-backward",
        states=forward_backward,
        evaluations=None,
        settings=(("monotone-relu", 0.375, 200),),
        to_tolerance=True,
    ),
)
