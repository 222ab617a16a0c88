"""What offers a half step of the reversible iteration, or its reversal, together with the evaluation of f in it."""

from typing import NamedTuple, Protocol

import torch

from revdeq.linearisation import PartialLeaves
from revdeq.tree import Leaves


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


class HalfStepUndone(NamedTuple):
    """One half step undone; see NOTE [One reversed half step] in `revdeq.adjoint.reversal`.

    Attributes:
        value: leaves of f.
        state: the moved state before the half step.
        moved: the cotangent of the moved state before it.
        other: the cotangent of the other state before it.
        inputs: gradients of `Replay.inputs`.
    """

    value: Leaves
    state: Leaves
    moved: Leaves
    other: Leaves
    inputs: PartialLeaves


class ReversedHalfSteps(Protocol):
    """Evaluates f and its VJP within the half step that they undo."""

    def undo_half_step(
        self, state: Leaves, at: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor
    ) -> HalfStepUndone:
        """Undo one half step.

        Args:
            state: the state that it moved.
            at: the other state, at which f is evaluated.
            moved: cotangent of the moved state; zero for samples that took no such step.
            other: cotangent of the other state.
            beta: relaxation parameter, or a tensor with one entry a sample.
        """
        ...
