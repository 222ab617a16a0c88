"""How the half steps of the reversible iteration are taken and undone: floating, compiled with f, or on integers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch._C._functorch import peek_interpreter_stack

from revdeq._environment import autocasting
from revdeq._half_step import HalfSteps as FusedHalfSteps
from revdeq._tree import Leaves
from revdeq.arithmetic.base import Arithmetic, LeafState
from revdeq.arithmetic.floating import half_step, undo_half_step
from revdeq.arithmetic.tape import Entry
from revdeq.solver.base import Evaluate
from revdeq.solver.betas import Beta


States = tuple[LeafState, ...]
"""One of the two coupled states, leaf by leaf as the arithmetic keeps it."""


class HalfSteps(ABC):
    """Takes and undoes half steps of whole states.

    Args:
        arithmetic: the numbers in which that is done.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic

    def values(self, states: States) -> Leaves:
        """Return one of the two states as tensors of the state dtype."""
        return tuple(self.arithmetic.value(state) for state in states)

    @abstractmethod
    def take(
        self, f: Evaluate, state: States, at: States, value: Leaves | None, beta: Beta, n: int
    ) -> tuple[States, Entry]:
        """Return `(1 - beta) state + beta f(at)`, and what undoing it needs besides.

        Args:
            f: evaluates the function.
            state: the state that the half step moves; after step 0 it may be changed where `value` is None.
            at: the other state.
            value: f(at), where it is known; None to evaluate it.
            beta: relaxation parameter.
            n: index of the step, from 0.
        """

    @abstractmethod
    def undo(self, state: States, value: Leaves, lost: Entry | None, beta: Beta, *, ours: bool = False) -> States:
        """Return one of the two states as it was before a half step.

        Args:
            state: the state after it.
            value: f at the other state.
            lost: what the half step lost, as `take` returned it.
            beta: the relaxation parameter that it had.
            ours: whether nobody else needs `state`, so that it may be overwritten.
        """


class FloatingHalfSteps(HalfSteps):
    """Half steps in a floating dtype, in place where nobody sees the states."""

    def take(
        self, f: Evaluate, state: States, at: States, value: Leaves | None, beta: Beta, n: int
    ) -> tuple[States, Entry]:
        """See `HalfSteps.take`."""
        # The first step makes states that are ours: before it they may be z0 itself.
        ours = value is None and n > 0 and not torch.is_grad_enabled() and not peek_interpreter_stack()
        value = f(at) if value is None else value
        moved = [half_step(s, v, beta, in_place=ours and _unseen(s, v)) for s, v in zip(state, value, strict=True)]
        return tuple(moved), (None,) * len(moved)

    def undo(self, state: States, value: Leaves, lost: Entry | None, beta: Beta, *, ours: bool = False) -> States:
        """See `HalfSteps.undo`."""
        del lost
        pairs = zip(state, value, strict=True)
        return tuple(undo_half_step(s, v, beta, in_place=ours and _unseen(s, v)) for s, v in pairs)


class CompiledHalfSteps(FloatingHalfSteps):
    """Half steps that are compiled together with the evaluation of f in them."""

    def take(
        self, f: Evaluate, state: States, at: States, value: Leaves | None, beta: Beta, n: int
    ) -> tuple[States, Entry]:
        """See `HalfSteps.take`."""
        if value is not None:
            return super().take(f, state, at, value, beta, n)
        return cast(FusedHalfSteps, f).half_step(state, at, beta), (None,) * len(state)


class LeafwiseHalfSteps(HalfSteps):
    """Half steps as any arithmetic does them, one leaf at a time, with one number for beta."""

    def take(
        self, f: Evaluate, state: States, at: States, value: Leaves | None, beta: Beta, n: int
    ) -> tuple[States, Entry]:
        """See `HalfSteps.take`."""
        value = f(self.values(at)) if value is None else value
        pairs = zip(state, value, strict=True)
        taken = [self.arithmetic.half_step(s, v, _number(beta), n) for s, v in pairs]
        return tuple(moved for moved, _ in taken), tuple(lost for _, lost in taken)

    def undo(self, state: States, value: Leaves, lost: Entry | None, beta: Beta, *, ours: bool = False) -> States:
        """See `HalfSteps.undo`."""
        del ours
        remainders: Sequence[torch.Tensor | None] = (None,) * len(state) if lost is None else lost
        parts = zip(state, value, remainders, strict=True)
        return tuple(self.arithmetic.undo_half_step(s, v, _number(beta), r) for s, v, r in parts)


def _number(beta: Beta) -> float:
    assert not isinstance(beta, torch.Tensor), "integers divide by one m for all samples"
    return beta


def _unseen(state: torch.Tensor, value: torch.Tensor) -> bool:
    """Return whether f never sees this very tensor, but a copy in its own dtype, which it may keep.

    Args:
        state: one leaf, in the state dtype.
        value: the same leaf of f.
    """
    # Under autocast the dtype of the value is not that of z0.
    return state.dtype != value.dtype and not autocasting(state.device.type)
