"""What the forward pass of a reversible solve writes down, and what the backward pass does with it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import torch

from revdeq._half_step import HalfSteps
from revdeq._iterate import Masks, repeat, where_active
from revdeq._solution import Health
from revdeq._tree import Leaves
from revdeq.adjoint.pullback import Pullback
from revdeq.function import Function, Replay
from revdeq.solver.reversible import Coupled, ReversibleIteration


Kept: TypeAlias = Any
"""What a record keeps for the backward pass: a pytree whose leaves are tensors, which autograd saves."""


class Way(NamedTuple):
    """What a record needs to go back.

    Attributes:
        pullback: the cotangents, at the end.
        replay: the function in the backward pass, active.
        solver: the iteration, with the betas that it took.
        z0: leaves of the start state.
        y0: those of the second state at the start; empty where it was z0.
        masks: for each step the samples that took it; None for all.
        health: where is said what was found.
    """

    pullback: Pullback
    replay: Replay
    solver: ReversibleIteration
    z0: Leaves
    y0: Leaves
    masks: Sequence[torch.Tensor | None]
    health: Health

    def back_through(self, steps: range, seen: Sequence[Leaves]) -> Iterator[tuple[int, Leaves]]:
        """Go back through the half steps of some steps at the stored inputs of f, and yield (k, f at input k).

        Args:
            steps: indices of the steps.
            seen: what f saw at their half steps, in the order of the forward pass.
        """
        first = 2 * steps.start
        for k in reversed(range(first, 2 * steps.stop)):
            yield k, self.pullback.through(k, seen[k - first], self.masks[k // 2])

    def seen_at_y(self, y: Leaves, z: Leaves, n: int) -> Leaves:
        """Return what f saw in the second half step of step n, in its own dtypes: y, or z of samples that took none.

        Args:
            y: leaves of y after the step.
            z: leaves of z before or after it, which for those samples is the same.
            n: index of the step.
        """
        active = self.masks[n]
        return self.replay.narrow(y if active is None else where_active(active, y, z))

    def repeated(
        self, state: Coupled, steps: range, masks: Sequence[torch.Tensor | None]
    ) -> tuple[list[Leaves], Coupled]:
        """Take steps once more as the forward pass did, and return what f saw at their half steps and where they end.

        Args:
            state: the coupled states before them, which nobody else needs.
            steps: their indices.
            masks: for each of them the samples that take it.
        """
        seen = _Seen(self.replay)
        self.replay.start(2 * steps.start)
        with torch.no_grad():
            end = repeat(seen, self.solver, state, steps.start, masks)
        self.health.repeated_evaluations += len(seen.inputs)
        return seen.inputs, end


class _Seen:
    """Evaluates f and remembers what it saw."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.inputs: list[Leaves] = []

    def __call__(self, z: Leaves) -> Leaves:
        self.inputs.append(self._replay.narrow(z))
        return self._replay.repeat(self.inputs[-1])

    def half_step(self, state: Leaves, at: Leaves, beta: float | torch.Tensor) -> Leaves:
        """Return `(1 - beta) state + beta f(at)`."""
        self.inputs.append(self._replay.narrow(at))
        return cast(HalfSteps, self._replay).half_step(state, self.inputs[-1], beta)


class Record(Masks, ABC):
    """Evaluates f in the forward pass, writes down what the backward pass needs, and goes back by it.

    Args:
        f: the function.
    """

    def __init__(self, f: Function) -> None:
        self._f = f
        super().__init__()
        self._count = 0

    def __call__(self, z: Leaves) -> Leaves:
        """Evaluate f and take note."""
        at = self._f.border.narrow(z)
        value = self._f(at)
        self._note(at, value)
        return value

    def half_step(self, state: Leaves, at: Leaves, beta: float | torch.Tensor) -> Leaves:
        """Return `(1 - beta) state + beta f(at)` by a compiled half step, and take note."""
        seen = self._f.border.narrow(at)
        moved, value = cast(Any, self._f).half_step(state, seen, beta)
        self._note(seen, value)
        return moved

    def _note(self, at: Leaves, value: Leaves) -> None:
        self.evaluated(self._count, at, value)
        self._count += 1

    @abstractmethod
    def evaluated(self, k: int, at: Leaves, value: Leaves) -> None:
        """Take note of evaluation k, which in step k // 2 moves y for even k and z for odd k.

        Args:
            k: its index, from 0. After the last step there may be one more, at the state returned.
            at: what f saw, in its own dtype.
            value: f(at).
        """

    @abstractmethod
    def kept(self, end: Coupled, num_steps: int) -> Kept:
        """Return what the backward pass needs, and let go of it.

        Args:
            end: the final states.
            num_steps: the greatest number of steps that a sample took.
        """

    @abstractmethod
    def go_back(self, kept: Kept, way: Way) -> None:
        """Take `way.pullback` from the end to the start.

        Args:
            kept: as `kept` returned it; it is not changed.
            way: where to.

        Raises:
            GradientError: f is not what it was in the forward pass.
        """
