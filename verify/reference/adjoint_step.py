"""The adjoint of one reversible step, in any arithmetic: the one statement of the recursion that references stand on.

What must be independent of it repeats it on purpose: the program that checks certificates again
(`verify.certificate.recheck`), the planted solvers (`verify.planted`), and the exact maps of the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from verify.reference.arithmetic.protocol import Array


class Ring(Protocol):
    """What the recursion needs of an arithmetic; numpy itself is one, for float64."""

    @property
    def add(self) -> Callable[[Array, Array], Any]:
        """Elementwise a + b."""
        ...

    @property
    def multiply(self) -> Callable[[Array, Array], Any]:
        """Elementwise a b."""
        ...


class Cotangents(NamedTuple):
    """Cotangents before a step, and the one that the step passed on the way.

    Args:
        p_y: of y_n.
        p_z: of z_n.
        q: of y_{n+1}, that of the later steps and that through z_{n+1} together.
    """

    p_y: Array
    p_z: Array
    q: Array


def adjoint_step(
    at: Ring, a: Array, p_y: Array, p_z: Array, pull_y: Callable[[Array], Array], pull_z: Callable[[Array], Array]
) -> Cotangents:
    """Carry the cotangents of (y_{n+1}, z_{n+1}) back through step n.

        q = p_y + beta K(y_{n+1})^T p_z;   p_y <- a q;   p_z <- a p_z + beta K(z_n)^T q

    Args:
        at: the arithmetic.
        a: 1 - beta.
        p_y: cotangent of y_{n+1}.
        p_z: cotangent of z_{n+1}.
        pull_y: p -> beta K(y_{n+1})^T p; it is called first, so a reversal may rebuild z_n in it.
        pull_z: p -> beta K(z_n)^T p. Both may add up what f's other arguments get.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917. (T0)
    """
    q = at.add(p_y, pull_y(p_z))
    through_z = pull_z(q)
    return Cotangents(p_y=at.multiply(a, q), p_z=at.add(at.multiply(a, p_z), through_z), q=q)
