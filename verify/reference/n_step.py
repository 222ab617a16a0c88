"""The N-step reversible iteration and its gradient in multiprecision, with stored states and a hand-written adjoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from verify.reference.adjoint_step import adjoint_step
from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Arithmetic, Array
from verify.reference.compare import greatest_difference
from verify.reference.linearise import Linearised, convert_args


if TYPE_CHECKING:
    from verify.problems.problem import Problem


@dataclass(frozen=True, eq=False)
class NStep:
    """The result of N reversible steps and the gradient of its loss.

    Args:
        z: z_N, object array of mpf, shape of z0.
        y: y_N.
        trajectory: ((y_0, z_0), ..., (y_N, z_N)).
        gradient: leaf name -> dL/dleaf, L = <cotangent_z, z_N> + <cotangent_y, y_N>.
        uncertainty: "z", "y" and every leaf -> greatest absolute difference from the run with twice the digits.
    """

    z: Array
    y: Array
    trajectory: tuple[tuple[Array, Array], ...]
    gradient: dict[str, Array]
    uncertainty: dict[str, float]


class Trajectory:
    """States of the reversible iteration in one arithmetic, extended on demand, with the VJPs along them.

        y' = a y + beta f(z),   z' = a z + beta f(y'),   a = 1 - beta,   y_0 = z_0

    Args:
        problem: the problem.
        beta: relaxation parameter, taken as the exact value of the float.
        arithmetic: in which everything is computed.
        z0: start instead of the problem's, of the arithmetic.
        args: args instead of the problem's, of the arithmetic.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917. (T0)
    """

    def __init__(
        self,
        problem: Problem,
        beta: float,
        arithmetic: Arithmetic,
        *,
        z0: Array | None = None,
        args: Mapping[str, Array] | None = None,
    ) -> None:
        self._problem = problem
        self._at = arithmetic
        self._beta = arithmetic.convert(beta)
        self._a = arithmetic.subtract(arithmetic.convert(1), self._beta)
        self._args = convert_args(problem, arithmetic) if args is None else args
        start = arithmetic.convert(problem.z0) if z0 is None else z0
        self._states: list[tuple[Array, Array]] = [(start, start)]
        self._at_z: list[Linearised] = []
        self._at_y: list[Linearised] = []

    def states(self, num_steps: int) -> tuple[tuple[Array, Array], ...]:
        """((y_0, z_0), ..., (y_N, z_N))."""
        while len(self._states) <= num_steps:
            self._advance()
        return tuple(self._states[: num_steps + 1])

    def _advance(self) -> None:
        at = self._at
        y, z = self._states[-1]
        at_z = Linearised(self._problem, at, z, self._args)
        y_next = at.add(at.multiply(self._a, y), at.multiply(self._beta, at_z.value))
        at_y = Linearised(self._problem, at, y_next, self._args)
        z_next = at.add(at.multiply(self._a, z), at.multiply(self._beta, at_y.value))
        self._at_z.append(at_z)
        self._at_y.append(at_y)
        self._states.append((y_next, z_next))

    def gradient(self, num_steps: int) -> dict[str, Array]:
        """dL/dleaf by the adjoint recursion of the stored states, from the last step to the first.

        theta += beta f_theta(y')^T p_z + beta f_theta(z)^T q, with the cotangents of `adjoint_step`
        """
        at = self._at
        self.states(num_steps)
        p_z, p_y = at.convert(self._problem.cotangent_z), at.convert(self._problem.cotangent_y)
        theta = {name: at.convert(np.zeros(value.shape)) for name, value in self._args.items()}

        parts: list[Mapping[str, Array]] = []

        def pull(through: Linearised, cotangent: Array) -> Array:
            back, part = through.vjp(at.multiply(self._beta, cotangent))
            parts.append(part)
            return back

        for step in reversed(range(num_steps)):
            pulls = partial(pull, self._at_y[step]), partial(pull, self._at_z[step])
            p_y, p_z, _ = adjoint_step(at, self._a, p_y, p_z, *pulls)
            of_y, of_z = parts.pop(0), parts.pop(0)
            theta = {name: at.add(total, at.add(of_y[name], of_z[name])) for name, total in theta.items()}
        return {"z0": at.add(p_y, p_z)} | {f"args.{name}": value for name, value in theta.items()}


@lru_cache(maxsize=8)
def _trajectory(problem: Problem, beta: float, digits: int) -> Trajectory:
    return Trajectory(problem, beta, Multiprecision(digits))


@lru_cache(maxsize=64)
def n_step(problem: Problem, beta: float, num_steps: int, digits: int = 50) -> NStep:
    """The N-step reversible iteration and its exact gradient, with the uncertainty of both.

    Args:
        problem: the problem.
        beta: relaxation parameter in (0, 2), taken as the exact value of the float; beta = 1 is allowed here, since
            nothing is inverted.
        num_steps: N >= 0.
        digits: working precision in decimal digits; the uncertainty comes from a second run with twice as many.

    Returns:
        NStep, computed with `digits` digits and cached for the process.

    Raises:
        ValueError: beta outside (0, 2) or a negative N.
    """
    validate_iteration(beta, num_steps)
    run, finer = (_trajectory(problem, beta, precision) for precision in (digits, 2 * digits))
    states, finer_states = run.states(num_steps), finer.states(num_steps)
    gradient, finer_gradient = run.gradient(num_steps), finer.gradient(num_steps)
    (y, z), (finer_y, finer_z) = states[-1], finer_states[-1]
    uncertainty = {"z": greatest_difference(z, finer_z), "y": greatest_difference(y, finer_y)}
    uncertainty |= {leaf: greatest_difference(gradient[leaf], finer_gradient[leaf]) for leaf in gradient}
    return NStep(z=z, y=y, trajectory=states, gradient=gradient, uncertainty=uncertainty)


def validate_iteration(beta: float, num_steps: int) -> None:
    """Refuse a beta outside (0, 2) and a step count that is no whole number >= 0."""
    if not 0 < beta < 2:
        raise ValueError(f"beta is {beta}; the iteration can only converge for beta in (0, 2)")
    if num_steps < 0 or num_steps != int(num_steps):
        raise ValueError(f"num_steps is {num_steps}; it must be a whole number, 0 or more")
