"""f in the backward pass: evaluated and linearised where the forward pass evaluated it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch.autograd.graph import Node
from torch.utils.weak import TensorWeakRef

from revdeq._errors import GradientError
from revdeq._tree import Leaves
from revdeq.function.graph import Graph, signature
from revdeq.function.linearisation import Linearisation
from revdeq.function.local import ends_of, local_leaves
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
        # What the leaves here are called in the forward pass.
        places = [i for i, needed in enumerate(function.args_require) if needed]
        self._names: dict[int, Hashable] = {id(t): ("args", i) for t, i in zip(self.arg_inputs, places, strict=True)}
        self._replaced: dict[tuple[Node, int], Hashable] = {}
        pairs = zip(function.sources.read, function.captured, captured_needed, strict=True)
        for tensor, attached, needed in pairs:
            # The hooks of a captured tensor (and retain_grad) would run once a replay, on parts of the gradient. A
            # local copy has none; autograd runs them once, on the whole, outside. One that was frozen since the forward
            # pass has no derivative of its own any more.
            own = attached is tensor and tensor.is_leaf and tensor.requires_grad and not tensor._backward_hooks
            if not own:
                self._substitutes[id(tensor)] = tensor.detach().requires_grad_()
                if tensor.grad_fn is not None:
                    self._replaced[tensor.grad_fn, tensor.output_nr] = id(tensor)
            self._names[id(self._substitutes.get(id(tensor), tensor))] = id(tensor)
            if needed:
                captured.append(self._substitutes.get(id(tensor), tensor))
        for tensor in function.constants:
            if tensor.requires_grad:  # it was frozen in the forward pass
                self._substitutes[id(tensor)] = tensor.detach()
        self.inputs: Leaves = (*self.arg_inputs, *captured)
        self._reached: set[int] = set()
        self._unlisted: list[TensorWeakRef] = []
        self._differing: list[int] = []
        self._prints: list[tuple[int, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]] = []

    @property
    def acts(self) -> bool:
        """Whether f's backward may do more than compute, so that it must run once an evaluation and never in vain."""
        return self._f.sources.acts

    def active(self) -> AbstractContextManager[None]:
        """Return a context with the switches of the forward pass; what f updates ends as it was."""
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
        mode = Substituted(self._substitutes) if self._substitutes else None
        with self._f.surroundings.restored():
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
        graph = Graph.of(values, self._replaced | ends_of(given, "z"))
        self._reached.update(graph.leaves)
        if not graph.met.isdisjoint(self._replaced.values()) or self._substitutes.keys() & graph.leaves.keys():
            raise GradientError(
                "function hands a captured tensor that is not a leaf, or that has hooks, to an operation where it "
                "cannot be replaced (such as a custom torch.autograd.Function), so its gradient would be lost; "
                "pass it in args."
            )
        self._unlisted += [TensorWeakRef(leaf) for key, leaf in graph.leaves.items() if key not in self._names]
        before = None if k is None else self._f.sources.graphs.get(k)
        if k is not None and before is not None:
            found = signature(graph.form, self._names)
            if None not in (found, before.signature) and found != before.signature:
                self._differing.append(k)
            elif graph.prints:
                self._prints.append((k, graph.prints, before.prints))
        return Linearisation(local, values, self.inputs, len(value))

    def mark(self) -> tuple[int, int, int]:
        """Return how much was noted so far, for `return_to`."""
        return len(self._unlisted), len(self._differing), len(self._prints)

    def return_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what was noted since the mark, of evaluations at states that the forward pass did not see."""
        for noted, length in zip((self._unlisted, self._differing, self._prints), mark, strict=True):
            del noted[length:]

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
        differing = self._differing or [k for k, found, before in self._prints if len(found) != len(before)]
        if not differing and self._prints:
            found = torch.stack([p for _, now, _ in self._prints for p in now])
            before = torch.stack([p for _, _, then in self._prints for p in then])
            if not torch.equal(found, before):
                differing = [k for k, now, then in self._prints if not torch.equal(torch.stack(now), torch.stack(then))]
        if differing:
            raise GradientError(
                f"the derivative of function does not repeat: evaluation {differing[0]} has another graph in the "
                "backward pass than in the forward pass though the values agree (a part detached by a counter, another "
                "parameter chosen at random, a gradient scaled by a number or a mask that changed); make every "
                "evaluation the same, hand what changes from solve to solve in args, or use UnrolledAdjoint."
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
