"""What a method is: the iterates that define it, how a subject is asked for it, and where it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias


if TYPE_CHECKING:
    from verify.problems.operations import Operations
    from verify.problems.splitting import Parts


Relaxation: TypeAlias = Literal["number", "schedule", "auto", "adaptive"]
"""How the relaxation parameters are given: by the case's beta, by two numbers a step, or left to the subject."""

BetasOf: TypeAlias = Callable[[int], tuple[Any, Any]]
"""Step -> its relaxation parameters, that of y and that of z: numbers, or arrays with one entry a sample."""

Betas: TypeAlias = tuple[tuple[float, float], ...]
"""Two relaxation parameters a step."""

BetasTable: TypeAlias = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
"""The same with one entry for all samples, or one for each."""


class State(NamedTuple):
    """The states after some steps.

    Args:
        z: the state that a solve returns.
        y: the coupled state; z again where a method has none.
    """

    z: Any
    y: Any


@dataclass(frozen=True)
class Map:
    """What is iterated, in one backend.

    Args:
        ops: the backend.
        f: the map.
        parts: step size -> the parts of its splitting; a method that needs them is measured where there are some.
    """

    ops: Operations
    f: Callable[[Any], Any]
    parts: Callable[[float], Parts]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A solver as a subject is asked for it.

    Args:
        name: what cases call it; the solver's name, and behind it what is special.
        solver: the solver's name in `verify.subject.Settings`.
        states: yields the states after 0, 1, 2, ... steps from a start, without end.
        evaluations: of f in a step; None where they are no part of what defines the method.
        settings: problem, beta (the step size of a splitting) and number of steps (the greatest, where a tolerance
            ends the solve) at which it is measured.
        relaxation: how its betas are given.
        to_tolerance: whether each sample ends by itself, where its residual meets a tolerance.
        stable: whether its states move continuously enough with rounding that its steps to a tolerance are counted:
            an extrapolation near its end is made of differences that rounding has spoilt.
    """

    name: str
    solver: str
    states: Callable[[Map, Any, BetasOf], Iterator[State]]
    evaluations: int | None
    settings: tuple[tuple[str, float, int], ...]
    relaxation: Relaxation = "number"
    to_tolerance: bool = False
    stable: bool = True

    @property
    def coupled(self) -> bool:
        """Whether it has a second state."""
        return self.solver == "reversible"

    def beta(self, beta: float, num_steps: int) -> float | Betas | Literal["auto", "adaptive"]:
        """What a subject is given for beta.

        A schedule has beta and 2 - beta in turn, first of y and then of z, then the reverse, so that no two half steps
        that could be confused have the same.

        Args:
            beta: of the case.
            num_steps: of the case.
        """
        if self.relaxation == "schedule":
            other = 2.0 - beta
            return tuple((beta, other) if n % 2 == 0 else (other, beta) for n in range(num_steps))
        return beta if self.relaxation == "number" else self.relaxation


def mixed(ops: Operations, state: Any, value: Any, beta: Any) -> Any:
    """One half step (1 - beta) state + beta value."""
    return ops.add(ops.multiply(ops.subtract(1.0, beta), state), ops.multiply(beta, value))


def dot(ops: Operations, left: Any, right: Any) -> Any:
    """Inner products of the samples, shape (B, 1), of states of shape (B, d)."""
    return ops.sum(ops.multiply(left, right), -1, keepdims=True)
