"""What offers a half step of the reversible iteration, or its reversal, together with the evaluation of f in it."""

from typing import NamedTuple, Protocol

import torch

from revdeq._tree import Leaves
from revdeq.function.linearisation import PartialLeaves


class HalfSteps(Protocol):
    """Evaluates f within the half step that uses its value."""

    def half_step(self, state: Leaves, at: Leaves, beta: float | torch.Tensor) -> Leaves:
        """Return `(1 - beta) state + beta f(at)`.

        Args:
            state: the state that the half step moves, in the state dtype.
            at: the other state.
            beta: relaxation parameter, or a tensor with one entry a sample.
        """
        ...


class PulledBack(NamedTuple):
    """What one reversed half step gives; see NOTE [One reversed half step] in `revdeq.adjoint.pullback`.

    Attributes:
        value: leaves of f.
        moved: the cotangent of the moved state before the half step.
        other: the cotangent of the other state before it.
        inputs: gradients of `Replay.inputs`.
        state: the moved state before it; empty where it was not asked for.
    """

    value: Leaves
    moved: Leaves
    other: Leaves
    inputs: PartialLeaves
    state: Leaves = ()


class ReversedHalfSteps(Protocol):
    """Evaluates f and its VJP within the half step that they go back through."""

    def pull_back(self, at: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor) -> PulledBack:
        """Go back through one half step without its states.

        Args:
            at: the other state, at which f is evaluated, as f sees it.
            moved: cotangent of the moved state; zero for samples that took no such step.
            other: cotangent of the other state.
            beta: relaxation parameter, or a tensor with one entry a sample.
        """
        ...

    def undo_half_step(
        self, state: Leaves, at: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor
    ) -> PulledBack:
        """Go back through one half step and rebuild the state that it moved.

        Args:
            state: the moved state after it.
            at: the other state, at which f is evaluated, as f sees it.
            moved: cotangent of the moved state; zero for samples that took no such step.
            other: cotangent of the other state.
            beta: relaxation parameter, or a tensor with one entry a sample.
        """
        ...
