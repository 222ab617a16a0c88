"""Peaceman-Rachford splitting for monotone operator equilibria."""

from typing import ClassVar, NamedTuple

from revdeq._tree import Leaves
from revdeq.solver.base import Evaluate
from revdeq.solver.splitting import SplittingSolver


class Reflected(NamedTuple):
    """The auxiliary state u, on which the reflections act, and z = prox(u)."""

    u: Leaves
    z: Leaves


class PeacemanRachford(SplittingSolver):
    """Peaceman-Rachford splitting of f(z) = prox(W z + c), with alpha the step size:

        u_half  = 2 z_n - u_n                  z_half  = (I + alpha (I - W))^{-1} (u_half + alpha c)
        u_{n+1} = 2 z_half - u_half            z_{n+1} = prox_alpha(u_{n+1})

    from u_0 = z_0. It converges for every alpha > 0 where I - W is strongly monotone; alpha changes the rate alone.

    Args:
        step_size: alpha, a number > 0, dimensionless.

    Raises:
        TypeError: step_size is not a real number.
        ValueError: step_size is not positive and finite.

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, algorithm 2.
        Peaceman, Rachford, The numerical solution of parabolic and elliptic differential equations, 1955,
        DOI 10.1137/0103003.
    """

    evaluations_per_step: ClassVar[int] = 1

    def __init__(self, step_size: float = 1.0) -> None:
        super().__init__(step_size)

    def init(self, z0: Leaves) -> Reflected:
        """Return u_0 = z_0."""
        return Reflected(z0, z0)

    def step(self, f: Evaluate, state: Reflected, value: Leaves, n: int) -> Reflected:
        """Return the state after both reflections; f(z_n) serves the residual alone."""
        u_half = tuple(2.0 * z - u for z, u in zip(state.z, state.u, strict=True))
        z_half = self.parts.resolvent(u_half)
        u = tuple(2.0 * z - v for z, v in zip(z_half, u_half, strict=True))
        return Reflected(u, self.parts.prox(u))

    def estimate(self, state: Reflected) -> Leaves:
        """Return z."""
        return state.z
