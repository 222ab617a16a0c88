"""Broyden's first method."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from verify.methods._method import BetasOf, Map, Method, State, dot


if TYPE_CHECKING:
    from verify.problems.operations import Operations


HISTORY = 20
"""Rank-one terms that are kept; no measured solve takes as many steps as would begin again."""


def broyden(at: Map, z: Any, betas: BetasOf) -> Iterator[State]:
    """The iterates, with s = z_n - z_{n-1}, t = r_n - r_{n-1} of the residuals r = f(z) - z,

        H_n = H_{n-1} + (s - H_{n-1} t) s^T H_{n-1} / (s^T H_{n-1} t),     H_0 = -beta I
        z_{n+1} = z_n - H_n r_n          for each sample

    References:
        Broyden, A class of methods for solving nonlinear simultaneous equations (1965),
        DOI 10.1090/S0025-5718-1965-0198670-6, method 1.
    """
    ops = at.ops
    before: tuple[Any, Any] | None = None
    terms: list[tuple[Any, Any]] = []
    yield State(z, z)
    for n in count():
        beta = betas(n)[0]
        residual = ops.subtract(at.f(z), z)
        if before is not None:
            s, t = ops.subtract(z, before[0]), ops.subtract(residual, before[1])
            row = _product(ops, beta, [(v, u) for u, v in terms], s)
            column = ops.divide(ops.subtract(s, _product(ops, beta, terms, t)), dot(ops, row, t))
            terms.append((column, row))
        before, z = (z, residual), ops.subtract(z, _product(ops, beta, terms, residual))
        yield State(z, z)


def _product(ops: Operations, beta: Any, terms: list[tuple[Any, Any]], vectors: Any) -> Any:
    """(-beta I + sum_j u_j v_j^T) times each vector."""
    total = ops.multiply(ops.negative(vectors), beta)
    for u, v in terms:
        total = ops.add(total, ops.multiply(dot(ops, v, vectors), u))
    return total


METHODS = (
    Method(
        name="broyden",
        solver="broyden",
        states=broyden,
        evaluations=1,
        settings=(("dense-tanh", 0.8, 4), ("affine-general", 1.0, 4)),
    ),
    Method(
        name="broyden-tolerance",
        solver="broyden",
        states=broyden,
        evaluations=1,
        settings=(("dense-tanh", 1.0, 100),),
        to_tolerance=True,
        stable=False,
    ),
)
