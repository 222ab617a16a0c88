"""f in the backward pass: evaluated and linearised where the forward pass evaluated it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from revdeq._tree import Leaves
from revdeq.function.linearisation import Linearisation
from revdeq.function.reads import Substituted, refuse_unlisted


if TYPE_CHECKING:
    from revdeq.function.call import Function


class Replay:
    """f in the backward pass: the same surroundings as in the forward pass, the same random numbers, buffers kept.

    Args:
        function: the function, its first evaluation recorded.
        arg_tensors: the tensors of args as the autograd node saved them.
        captured_needed: for each of `Function.captured`, whether its gradient is needed.

    Attributes:
        inputs: the tensors whose gradients `Linearisation.pull_back` returns: local copies of the tensors of args that
            require grad, then the captured tensors that need a gradient (or their local copies).
        args: args with the local copies in it.
    """

    def __init__(self, function: Function, arg_tensors: Leaves, captured_needed: Sequence[bool]) -> None:
        self._f = function
        local = [saved.detach() for saved in arg_tensors]
        self.arg_inputs = [
            alias.requires_grad_() for alias, needed in zip(local, function.args_require, strict=True) if needed
        ]
        self.args = function.with_arg_tensors(local)
        self._substitutes: dict[int, torch.Tensor] = {}
        captured: list[torch.Tensor] = []
        self._replaced: list[torch.Tensor] = []
        pairs = zip(function.read, function.captured, captured_needed, strict=True)
        for tensor, attached, needed in pairs:
            # The hooks of a captured tensor (and retain_grad) would run once a replay, on parts of the gradient. A
            # local copy has none; autograd runs them once, on the whole, outside. One that was frozen since the forward
            # pass has no derivative of its own any more.
            own = attached is tensor and tensor.is_leaf and tensor.requires_grad and not tensor._backward_hooks
            if not own:
                self._substitutes[id(tensor)] = tensor.detach().requires_grad_()
                self._replaced.append(tensor)
            if needed:
                captured.append(self._substitutes.get(id(tensor), tensor))
        for tensor in function.constants:
            if tensor.requires_grad:  # it was frozen in the forward pass
                self._substitutes[id(tensor)] = tensor.detach()
        self.inputs: Leaves = (*self.arg_inputs, *captured)
        own = [t for t in function.read if id(t) not in self._substitutes]
        self._reached: set[int] = set()
        self._listed = (*self.arg_inputs, *own, *self._substitutes.values())

    def active(self) -> AbstractContextManager[None]:
        """Return a context with the surroundings of the forward pass; generators and buffers end as they were."""
        return self._f.surroundings.replayed()

    @property
    def roundoff(self) -> float:
        """The greatest relative spacing among the dtypes that f computes in: those of z0, and that of autocast."""
        return self._f.roundoff

    def narrow(self, z: Leaves) -> Leaves:
        """Return the leaves of a state as f sees them, in z0's dtypes."""
        return self._f.border.narrow(z)

    def start(self, k: int) -> None:
        """Say which evaluation of the forward pass the next one repeats."""
        self._f.extras.position = k

    def evaluate(self, z: Leaves) -> Leaves:
        """Evaluate f at the leaves `z` in the grad mode that holds, with local args and captured tensors."""
        self._f.surroundings.restore()
        mode = Substituted(self._substitutes) if self._substitutes else None
        return self._f.evaluate(self._f.border.narrow(z), self.args, mode)

    def reached(self, tensor: torch.Tensor) -> bool:
        """Return whether the graph of an evaluation has reached a captured tensor, or what stands in its place."""
        return id(self._substitutes.get(id(tensor), tensor)) in self._reached

    def linearise(self, z: Leaves, k: int = 0) -> Linearisation:
        """Evaluate f at `z` once, keeping the graph of this one evaluation.

        Args:
            z: leaves of a state, in z0's dtypes or wider.
            k: index of the evaluation in the forward pass.
        """
        self.start(k)
        local = tuple(x.detach().requires_grad_() for x in self._f.border.narrow(z))
        with torch.enable_grad():
            # Not the leaves themselves: hooks that tools set on the inputs of modules are refused on leaves in here.
            value = self.evaluate(tuple(x.view_as(x) for x in local))
        # Every evaluation: one in the middle may read what neither the first nor the last one does.
        values = (*value, *self._f.extras.now)
        self._reached |= refuse_unlisted(values, (*local, *self._listed), self._replaced)
        return Linearisation(local, (*value, *self._f.extras.now), self.inputs, self._f.watched, len(value))
