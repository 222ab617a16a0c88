"""f in the backward pass: evaluated and linearised where the forward pass evaluated it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from revdeq._errors import GradientError
from revdeq._tree import Leaves
from revdeq.function.graph import Graph
from revdeq.function.linearisation import Linearisation
from revdeq.function.local import local_leaves, nodes_of
from revdeq.function.reads import Substituted
from revdeq.function.sources import outliving


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
        replaced: list[torch.Tensor] = []
        pairs = zip(function.sources.read, function.captured, captured_needed, strict=True)
        for tensor, attached, needed in pairs:
            # The hooks of a captured tensor (and retain_grad) would run once a replay, on parts of the gradient. A
            # local copy has none; autograd runs them once, on the whole, outside. One that was frozen since the forward
            # pass has no derivative of its own any more.
            own = attached is tensor and tensor.is_leaf and tensor.requires_grad and not tensor._backward_hooks
            if not own:
                self._substitutes[id(tensor)] = tensor.detach().requires_grad_()
                replaced.append(tensor)
            if needed:
                captured.append(self._substitutes.get(id(tensor), tensor))
        for tensor in function.constants:
            if tensor.requires_grad:  # it was frozen in the forward pass
                self._substitutes[id(tensor)] = tensor.detach()
        self.inputs: Leaves = (*self.arg_inputs, *captured)
        own = [t for t in function.sources.read if id(t) not in self._substitutes]
        self._listed = {id(t) for t in (*self.arg_inputs, *own, *self._substitutes.values())}
        self._reached: set[int] = set()
        self._replaced = {id(t) for t in replaced}
        self._made_replaced = nodes_of(tuple(replaced))
        self._unlisted: list[weakref.ref[torch.Tensor]] = []
        self._other_graphs: list[int] = []

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

    def repeat(self, z: Leaves) -> Leaves:
        """Return f at the leaves `z` without a graph, evaluated as the forward pass did, which dropped one."""
        _, given = local_leaves(self._f.border.narrow(z))
        with torch.enable_grad():
            return tuple(v.detach() for v in self.evaluate(given))

    def evaluate(self, z: Leaves) -> Leaves:
        """Evaluate f at the leaves `z` in the grad mode that holds, with local args and captured tensors."""
        self._f.surroundings.restore()
        mode = Substituted(self._substitutes) if self._substitutes else None
        return self._f.evaluate(self._f.border.narrow(z), self.args, mode)

    def linearise(self, z: Leaves, k: int | None = None) -> Linearisation:
        """Evaluate f at `z` once, keeping the graph of this one evaluation.

        Args:
            z: leaves of a state, in z0's dtypes or wider.
            k: index of the evaluation in the forward pass that this repeats; None for one that was not made there.
        """
        self.start(k or 0)
        local, given = local_leaves(self._f.border.narrow(z))
        with torch.enable_grad():
            value = self.evaluate(given)
        values = (*value, *self._f.extras.now)
        graph = Graph.of(values, self._made_replaced | nodes_of(given))
        self._reached.update(graph.leaves)
        if graph.met & self._made_replaced or graph.leaves.keys() & self._replaced:
            raise GradientError(
                "function hands a captured tensor that is not a leaf, or that has hooks, to an operation where it "
                "cannot be replaced (such as a custom torch.autograd.Function), so its gradient would be lost; "
                "pass it in args."
            )
        self._unlisted += [weakref.ref(leaf) for key, leaf in graph.leaves.items() if key not in self._listed]
        before = None if k is None else self._f.sources.graphs.get(k)
        if k is not None and before is not None and graph.signature not in (None, before):
            self._other_graphs.append(k)
        return Linearisation(local, values, self.inputs, len(value))

    def mark(self) -> tuple[int, int]:
        """Return how much was noted so far, for `return_to`."""
        return len(self._unlisted), len(self._other_graphs)

    def return_to(self, mark: tuple[int, int]) -> None:
        """Forget what was noted since the mark, of evaluations at states that the forward pass did not see."""
        del self._unlisted[mark[0] :], self._other_graphs[mark[1] :]

    def refuse_other_derivative(self) -> None:
        """Raise where f was differentiated otherwise than the forward pass would have been; no graph is left now.

        Raises:
            GradientError: evaluations read other trainable tensors than there, or one left another graph.
        """
        for tensor in self._f.sources.depended_on():
            if id(self._substitutes.get(id(tensor), tensor)) not in self._reached:
                raise GradientError(
                    f"function depended on a trainable tensor of shape {tuple(tensor.shape)} in the forward pass and "
                    "does so no more in the backward pass, so its gradient is lost (a module switched between train() "
                    "and eval(), merged weights, a parameter replaced); change that after the backward pass."
                )
        self.refuse_unlisted()
        if self._other_graphs:
            raise GradientError(
                f"the derivative of function does not repeat: evaluation {self._other_graphs[0]} has another graph in "
                "the backward pass than in the forward pass though the values agree (a part detached by a counter, a "
                "gradient scaled by a number that changed, a parameter frozen inside function); make every evaluation "
                "the same, hand what changes from solve to solve in args, or use UnrolledAdjoint."
            )

    def refuse_unlisted(self) -> None:
        """Raise where an evaluation read a trainable tensor that no evaluation read in the forward pass.

        Raises:
            GradientError: one did.
        """
        for leaf in outliving(self._unlisted):
            raise GradientError(
                f"function read a trainable tensor of shape {tuple(leaf.shape)} in the backward pass that it did not "
                "read in the forward pass, so its gradient would be lost; pass it in args (and call "
                "torch.func.functional_call inside function, not round solve: it puts the module back when it ends)."
            )
