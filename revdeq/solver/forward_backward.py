"""Forward-backward splitting for monotone operator equilibria."""

from typing import ClassVar

from revdeq._tree import Leaves
from revdeq.solver.base import Evaluate
from revdeq.solver.splitting import SplittingSolver


class ForwardBackward(SplittingSolver):
    """Forward-backward splitting of f(z) = prox(W z + c), with alpha the step size:

        z_{n+1} = prox_alpha((1 - alpha) z_n + alpha (W z_n + c))

    Where I - W is strongly monotone with constant m and has Lipschitz constant L it converges for
    0 < alpha < 2 m / L^2; alpha = 1 is the plain iteration. It needs no linear solve.

    Args:
        step_size: alpha, a number > 0, dimensionless.

    Raises:
        TypeError: step_size is not a real number.
        ValueError: step_size is not positive and finite.

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, algorithm 1.
        Passty, Ergodic convergence to a zero of the sum of monotone operators, 1979, DOI 10.1016/0022-247X(79)90234-8.
    """

    evaluations_per_step: ClassVar[int] = 1

    def __init__(self, step_size: float = 0.5) -> None:
        super().__init__(step_size)

    def init(self, z0: Leaves) -> Leaves:
        """Return z_0."""
        return z0

    def step(self, f: Evaluate, state: Leaves, value: Leaves, n: int) -> Leaves:
        """Return z_{n+1}; f(z_n) serves the residual alone."""
        alpha, parts = self.step_size, self.parts
        forward = parts.affine(state)
        return parts.prox(tuple((1.0 - alpha) * z + alpha * w for z, w in zip(state, forward, strict=True)))

    def estimate(self, state: Leaves) -> Leaves:
        """Return z."""
        return state
