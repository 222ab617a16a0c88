"""What every arithmetic offers: how a state starts, and how a half step is done and undone."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import torch


LeafState: TypeAlias = Any
"""One leaf of a state as an arithmetic keeps it: a tensor, or a pytree of tensors with the samples in dimension 0."""


class Arithmetic(ABC):
    """The numbers in which the half step `(1 - beta) state + beta value` is done and undone, one leaf at a time."""

    fits: ClassVar[bool] = False
    """Whether the start is fitted to the first value of f, see `fit`."""

    @abstractmethod
    def check(self, beta: float) -> None:
        """Raise ValueError, with a sentence, for a beta that this arithmetic cannot do."""

    @abstractmethod
    def dtype(self, leaf: torch.Tensor) -> torch.dtype:
        """Return the floating dtype of `value`, at least as wide as the leaf of z0.

        Args:
            leaf: one leaf of z0.
        """

    @abstractmethod
    def start(self, wide: torch.Tensor, dtype: torch.dtype, batched: bool, beta: float) -> LeafState:
        """Return the state that stands for a leaf of z0.

        Args:
            wide: the leaf in `dtype(leaf)`.
            dtype: dtype of the leaf, in which f is evaluated.
            batched: whether dimension 0 counts samples.
            beta: relaxation parameter.
        """

    @abstractmethod
    def value(self, state: LeafState) -> torch.Tensor:
        """Return the state as a tensor of floating numbers, at which f is evaluated."""

    @abstractmethod
    def half_step(
        self, state: LeafState, value: torch.Tensor, beta: float, n: int
    ) -> tuple[LeafState, torch.Tensor | None]:
        """Return `(1 - beta) state + beta value`, and what undoing it needs besides the result.

        Args:
            state: the leaf of y or z before the half step; it is not changed.
            value: f at the other state; the same shape, in any floating dtype.
            beta: relaxation parameter.
            n: index of the step, from 0.

        Returns:
            The new state, and the remainder that the half step would lose: a uint8 tensor, or None where there is none.
        """

    @abstractmethod
    def undo_half_step(
        self, state: LeafState, value: torch.Tensor, beta: float, remainder: torch.Tensor | None
    ) -> LeafState:
        """Return the state from which `half_step` with the same value came.

        Args:
            state: the state after the half step.
            value: f at the other state, evaluated again.
            beta: relaxation parameter.
            remainder: what `half_step` returned beside the state.
        """

    def fit(self, state: LeafState, value: torch.Tensor) -> LeafState:
        """Return the start state in the range and resolution that it and the first value of f ask for.

        Args:
            state: what `start` returned.
            value: f at the start.
        """
        del value
        return state

    def returns(self, state: LeafState, start: torch.Tensor) -> torch.Tensor | None:
        """Return whether a rebuilt start state is the very one of `start`: a 0-d bool tensor.

        None where this arithmetic does not promise it.

        Args:
            state: the state after the last half step was undone.
            start: the leaf of z0 in `dtype(leaf)`.
        """
        del state, start
        return None

    def out_of_range(self, state: LeafState) -> torch.Tensor | None:
        """Return, per sample, whether the state left the range that this arithmetic holds; None where it has none."""
        del state
        return None
