"""Relaxed (damped) fixed-point iteration."""

from typing import ClassVar

from revdeq._tree import Leaves
from revdeq.arithmetic.floating import half_step
from revdeq.solver.base import Evaluate, SteppingSolver, validated_beta


class Relaxed(SteppingSolver):
    """The relaxed iteration z_{n+1} = (1 - beta) z_n + beta f(z_n), also named after Krasnosel'skii and Mann.

    For a map with Lipschitz constant k its error shrinks at least by |1 - beta| + beta k a step; beta = 1 is the plain
    (Picard) iteration.

    Args:
        beta: relaxation parameter, 0 < beta < 2.

    Raises:
        TypeError: beta is not a real number.
        ValueError: beta is NaN or outside (0, 2).

    References:
        Krasnosel'skii, Two remarks on the method of successive approximations, Uspekhi Mat. Nauk 10 (1955) 123-127.
        Mann, Mean value methods in iteration, 1953, DOI 10.1090/S0002-9939-1953-0054846-3.
    """

    evaluations_per_step: ClassVar[int] = 1

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = validated_beta(beta, below=2.0)

    def __repr__(self) -> str:
        return f"Relaxed(beta={self.beta!r})"

    def init(self, z0: Leaves) -> Leaves:
        """Return z_0."""
        return z0

    def step(self, f: Evaluate, state: Leaves, value: Leaves, n: int) -> Leaves:
        """Return z_{n+1}, given f(z_n)."""
        return tuple(half_step(z, fz, self.beta) for z, fz in zip(state, value, strict=True))

    def estimate(self, state: Leaves) -> Leaves:
        """Return z."""
        return state
