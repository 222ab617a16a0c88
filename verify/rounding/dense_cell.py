"""The cells that the bounds on rounding cover, phi(z W^T + c), in numbers, and their exact trajectory in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.problems.problem import Problem
from verify.reference.adjoint_step import adjoint_step


Floats = NDArray[np.float64]

# What the float64 trajectory's own rounding may hide: it is wrong by less than 2^-30 of its norm on these problems,
# whose cotangents and states stay within a few powers of ten over the steps that are bounded.
WIDENED = 1 + 2.0**-20


def bounded(problem: Problem) -> bool:
    """Return whether the bounds cover a problem: phi(z W^T + c) with phi tanh or the identity."""
    return "W" in problem.args and problem.name.startswith(("affine-", "dense-tanh"))


@dataclass(frozen=True)
class DenseCell:
    """phi(z W^T + c) in numbers.

    Attributes:
        weight: W.
        constant: c, one row a sample.
        curved: whether phi is tanh; else the identity.
        size: a bound on the norm of what c was summed from, |x| |U|^T + |b|.
        roundings: how many roundings c took.
    """

    weight: Floats
    constant: Floats
    curved: bool
    size: float
    roundings: int

    @staticmethod
    def of(problem: Problem) -> DenseCell:
        """The cell of a problem; raises ValueError for one that the bounds do not cover."""
        if not bounded(problem):
            raise ValueError(
                f"problem {problem.name} is not phi(z W^T + c) with phi tanh or the identity, so there is no bound; "
                "give an affine problem or dense-tanh."
            )
        args, samples = problem.args, len(problem.z0)
        bias = np.broadcast_to(args["b"], problem.z0.shape)
        if problem.name.startswith("affine-"):
            return DenseCell(args["W"], bias, False, norm(bias), 0)
        x, u = args["x"], args["U"]
        size = norm(np.abs(x) @ np.abs(u).T + np.abs(bias)) if samples else 0.0
        return DenseCell(args["W"], x @ u.T + bias, True, size, x.shape[1] + 1)

    @property
    def lipschitz(self) -> float:
        """K = |W|_2, of f in the 2-norm of the whole batch, for |phi'| <= 1."""
        return float(np.linalg.norm(self.weight, 2)) * WIDENED

    @property
    def absolute(self) -> float:
        """The norm of |W|, entry by entry, which carries the magnitudes that a dot product sums."""
        return float(np.linalg.norm(np.abs(self.weight), 2)) * WIDENED

    @property
    def curvature(self) -> float:
        """M, the constant of df/dz: |K(z) - K(z')| <= M |z - z'|."""
        # max |tanh''| = 4 / (3 sqrt 3)
        return 4 / (3 * math.sqrt(3)) * self.lipschitz**2 if self.curved else 0.0

    def value(self, z: Floats) -> Floats:
        """f(z), shape of z."""
        inner = z @ self.weight.T + self.constant
        return np.tanh(inner) if self.curved else inner

    def slope(self, z: Floats) -> Floats:
        """Phi' at z W^T + c, shape of z."""
        return 1 - self.value(z) ** 2 if self.curved else np.ones_like(z)


@dataclass(frozen=True)
class ExactRun:
    """The iteration and its cotangents in float64: norms of everything that the bounds multiply."""

    y: list[Floats]
    z: list[Floats]
    at_y: list[Floats]
    at_z: list[Floats]
    p_y: list[Floats]
    p_z: list[Floats]
    q: list[Floats]

    @staticmethod
    def of(cell: DenseCell, problem: Problem, beta: float, num_steps: int) -> ExactRun:
        """Run N steps and their adjoint."""
        a = 1 - beta
        y, z = [problem.z0], [problem.z0]
        at_y: list[Floats] = []
        at_z: list[Floats] = []
        for _ in range(num_steps):
            at_z.append(cell.value(z[-1]))
            y.append(a * y[-1] + beta * at_z[-1])
            at_y.append(cell.value(y[-1]))
            z.append(a * z[-1] + beta * at_y[-1])
        p_y, p_z = [problem.cotangent_y], [problem.cotangent_z]
        q: list[Floats] = []

        def pull(state: Floats, cotangent: Floats) -> Floats:
            return beta * (cell.slope(state) * cotangent) @ cell.weight

        for n in reversed(range(num_steps)):
            before = adjoint_step(np, np.asarray(a), p_y[-1], p_z[-1], partial(pull, y[n + 1]), partial(pull, z[n]))
            p_y.append(before.p_y)
            p_z.append(before.p_z)
            q.append(before.q)
        return ExactRun(y, z, at_y, at_z, p_y[::-1], p_z[::-1], q[::-1])


def norm(values: Any) -> float:
    """Return the 2-norm of all entries together, widened by what computing it may have lost."""
    return float(np.linalg.norm(values)) * WIDENED
