"""What a method is defined to return, and its gradient, in any arithmetic of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from verify.methods import BetasTable, Map, Method, State
from verify.problems.splitting import Parts
from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Arithmetic, Array
from verify.reference.compare import difference, greatest_difference
from verify.reference.linearise import convert_args, replicate
from verify.reference.tape import Tape, Variable


if TYPE_CHECKING:
    from verify.problems.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which solve, by what a subject was told and what it chose.

    Args:
        method: the method.
        betas: the relaxation parameters of every step; a method to which one number belongs repeats it.
        num_steps: the steps that each sample took, all entries equal where there is no tolerance.
        phantom: number and beta of the relaxed steps that a phantom gradient differentiates, from the state returned as
            a constant; None for the gradient of the steps themselves.
    """

    method: Method
    betas: BetasTable
    num_steps: tuple[int, ...]
    phantom: tuple[int, float] | None = None


@dataclass(frozen=True, eq=False)
class MethodRun:
    """What a solve is defined to return.

    Args:
        states: "z1" and "y1", and the gradient's leaves, each with its array: object arrays of mpf.
        uncertainty: likewise, greatest absolute difference from the run with twice the digits.
    """

    values: dict[str, Array]
    uncertainty: dict[str, float]


class Residuals(NamedTuple):
    """Residuals at one state, 2-norms over each sample.

    Args:
        residual: ||f(z) - z||, shape (B,).
        value: ||f(z)||, shape (B,).
    """

    residual: NDArray[np.float64]
    value: NDArray[np.float64]


class Bound:
    """A problem on a tape, ready to be iterated.

    Args:
        problem: the problem.
        at: the arithmetic.
        replicas: None, or the length of an additional first axis, for the perturbed arithmetic.
    """

    def __init__(self, problem: Problem, at: Arithmetic, replicas: int | None = None) -> None:
        self.tape = Tape(at, replicas=replicas)
        self.problem, self._replicas = problem, replicas
        self.z0 = self.tape.leaf(self.constant(problem.z0))
        self.args = {name: self.tape.leaf(value) for name, value in convert_args(problem, at, replicas).items()}
        self.map = Map(self.tape, self.value, self._parts)

    def constant(self, values: Any) -> Array:
        """An array of the arithmetic, once per replica."""
        return replicate(self.tape.arithmetic.convert(values), self._replicas)

    def value(self, z: Variable) -> Variable:
        """The value f(z)."""
        return self.problem.statement(self.tape, z, self.args)

    def states(self, asked: Asked) -> Iterator[State]:
        """The states after 0, 1, 2, ... steps, without end."""
        shape = (-1, *(1,) * (self.problem.z0.ndim - 1))

        def betas(step: int) -> tuple[Any, Any]:
            first, second = (
                entry[0] if len(entry) == 1 else np.array(entry).reshape(shape) for entry in asked.betas[step]
            )
            return first, second

        return asked.method.states(self.map, self.z0, betas)

    def _parts(self, step_size: float) -> Parts:
        splitting = self.problem.splitting
        if splitting is None:
            raise ValueError(f"problem {self.problem.name} has no splitting; measure this method on one that has")
        identity = np.eye(self.problem.args[splitting.weight].shape[-1])
        return Parts(self.tape, splitting, self.args, step_size, identity)


def run_in(problem: Problem, asked: Asked, at: Arithmetic, replicas: int | None = None) -> dict[str, Array]:
    """The states and the gradient of L = <cotangent_z, z1> + <cotangent_y, y1> in one arithmetic.

    Args:
        problem: the problem.
        asked: the solve.
        at: the arithmetic.
        replicas: None, or how many disturbed copies run side by side.

    Returns:
        "z1", "y1" and every leaf. A phantom gradient takes y1 for z1, and has zeros for z0.
    """
    bound = Bound(problem, at, replicas)
    tape = bound.tape
    states = list(islice(bound.states(asked), max(asked.num_steps) + 1))
    z, y = (_reached(tape, [state[i] for state in states], asked.num_steps, problem.z0.ndim) for i in range(2))
    values = {"z1": z.value, "y1": y.value}
    if asked.phantom is not None:
        steps, beta = asked.phantom
        z = y = tape.leaf(z.value)
        for _ in range(steps):
            z = y = tape.add(tape.multiply(1.0 - beta, z), tape.multiply(beta, bound.value(z)))
    loss = tape.add(tape.multiply(problem.cotangent_z, z), tape.multiply(problem.cotangent_y, y))
    leaves = {"z0": bound.z0} | {f"args.{name}": value for name, value in bound.args.items()}
    pulled = tape.pull_back(loss, bound.constant(np.ones(problem.z0.shape)), list(leaves.values()))
    return values | dict(zip(leaves, pulled, strict=True))


def _reached(tape: Tape, states: list[Variable], num_steps: tuple[int, ...], rank: int) -> Variable:
    """Each sample's state after its own number of steps; the samples of a problem do not see one another."""
    counts = sorted(set(num_steps))
    if len(counts) == 1:
        return states[counts[0]]
    masks = [np.array([float(n == count) for n in num_steps]).reshape(-1, *(1,) * (rank - 1)) for count in counts]
    total = tape.multiply(masks[0], states[counts[0]])
    for mask, count in zip(masks[1:], counts[1:], strict=True):
        total = tape.add(total, tape.multiply(mask, states[count]))
    return total


@lru_cache(maxsize=64)
def method_run(problem: Problem, asked: Asked, digits: int = 50) -> MethodRun:
    """What a solve is defined to return, with the uncertainty of it.

    Args:
        problem: the problem.
        asked: the solve.
        digits: working precision in decimal digits; the uncertainty comes from a second run with twice as many.
    """
    values, finer = (run_in(problem, asked, Multiprecision(precision)) for precision in (digits, 2 * digits))
    return MethodRun(values, {name: greatest_difference(value, finer[name]) for name, value in values.items()})


def residuals(problem: Problem, asked: Asked, digits: int = 30) -> Iterator[Residuals]:
    """The residuals of each sample after 0, 1, 2, ... steps, without end.

    Args:
        problem: the problem.
        asked: the solve; how many steps it took does not matter.
        digits: working precision in decimal digits.
    """
    bound = Bound(problem, Multiprecision(digits))
    for state in bound.states(asked):
        value = bound.value(state.z).value
        yield Residuals(_norms(difference(value, state.z.value)), _norms(value.astype(np.float64)))


def _norms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(values.reshape(len(values), -1), axis=1))
