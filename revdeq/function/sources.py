"""The trainable tensors that f takes from outside its arguments, found evaluation by evaluation.

NOTE [What f reads]
A gradient is lost silently when f reads a trainable tensor that the autograd node does not list as an input. So every
evaluation of the forward pass is made as the backward pass will make it, with a graph, which is walked and dropped: the
leaves that it reaches are listed, whichever evaluation reaches them, and so are the tensors that the first evaluation,
watched by `ReadsSeen`, takes into an operation. A leaf that f makes for itself is gone when the graph is; one from
outside is not. A tensor with a graph of its own that was not seen to enter cannot be listed, and raises.
"""

import gc
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch.autograd.graph import Node
from torch.utils.weak import TensorWeakRef

from revdeq._errors import GradientError
from revdeq._tree import Leaves
from revdeq.function.graph import Ends, Graph, signature
from revdeq.function.local import Tether
from revdeq.function.reads import Substituted


class Seen(NamedTuple):
    """What is remembered of the graph of an evaluation.

    Attributes:
        signature: of its form, see `revdeq.function.graph.signature`.
        prints: see `Graph`.
    """

    signature: int | None
    prints: tuple[torch.Tensor, ...]


class Noted(NamedTuple):
    """What a walk over the graph of an evaluation found, while it is not known yet what outlives the graph."""

    position: int
    form: tuple[Hashable, ...] | None
    prints: tuple[torch.Tensor, ...]
    reached: frozenset[int]
    unlisted: dict[int, TensorWeakRef]
    older: Tether | None


class Sources:
    """What was found so far; see NOTE [What f reads].

    Args:
        inside: leaves that are no sources: those of the arguments of f, which stay the same in every evaluation.

    Attributes:
        read: the tensors as f names them, where a solve inside another one's f has others in their place.
        captured: what stands in their place.
        graphs: the signature of the graph of every evaluation, by its position, and fingerprints of what it holds.
        acts: whether f's backward may do more than compute: it has hooks, or nodes written in Python.
    """

    def __init__(self, inside: Sequence[torch.Tensor]) -> None:
        self.read: Leaves = ()
        self.captured: Leaves = ()
        self.graphs: dict[int, Seen] = {}
        self.acts = False
        self._inside = {id(t): t for t in inside}
        self._names: dict[int, Hashable] = {}
        self._ends: dict[tuple[Node, int], Hashable] = {}
        self._depended_on: set[Hashable] = set()

    @property
    def ends(self) -> Ends:
        """Where a walk over the graph of an evaluation ends, as it does at leaves."""
        return self._ends

    def take(self, tensors: Iterable[torch.Tensor]) -> None:
        """List tensors as sources."""
        for t in tensors:
            if id(t) in self._names or id(t) in self._inside:
                continue
            current = Substituted.current(t)
            self.read, self.captured = (*self.read, t), (*self.captured, current)
            for tensor in (t, current):
                self._names[id(tensor)] = id(t)
                if tensor.grad_fn is not None:
                    self._ends[tensor.grad_fn, tensor.output_nr] = id(t)

    def note(self, graph: Graph, position: int, seen: Iterable[torch.Tensor]) -> Noted:
        """Take note of the graph of an evaluation, of which nothing is held, until `settle`.

        Args:
            graph: what the walk found.
            position: index of the evaluation.
            seen: leaves that were seen to be read, whether or not they are reached.
        """
        self.acts = self.acts or graph.acts
        self._depended_on |= graph.met
        found = (*seen, *graph.leaves.values())  # names first: a leaf reached may stand in the place of one
        unlisted = {id(t): TensorWeakRef(t) for t in found if id(t) not in self._names}
        older = Tether(graph.older) if graph.older else None
        return Noted(position, graph.form, graph.prints, frozenset(graph.leaves), unlisted, older)

    def settle(self, noted: Noted) -> None:
        """List the leaves of a dropped graph that are still alive: f did not make them for itself.

        Raises:
            GradientError: the graph held a part from outside that belongs to no tensor that is listed.
        """
        if noted.older is not None and noted.older.is_held():
            raise GradientError(
                "function reads a tensor with a graph of its own, made outside, that could not be seen to enter an "
                "operation (inside a compiled or scripted function, in a later evaluation alone, or returned as it "
                "is), so its gradient would be lost; pass it in args."
            )
        self.take(t for t in (reference() for reference in noted.unlisted.values()) if t is not None)
        self._depended_on |= {self._names[key] for key in noted.reached & self._names.keys()}
        self.graphs[noted.position] = Seen(signature(noted.form, self._names), noted.prints)

    def depended_on(self) -> list[torch.Tensor]:
        """Return the tensors, as f names them, that values of f were seen to depend on."""
        return [t for t in self.read if id(t) in self._depended_on]


def outliving(leaves: Sequence[TensorWeakRef]) -> list[torch.Tensor]:
    """Return the tensors that something else holds than the graph in which they were found, which was dropped."""
    if any(reference() is not None for reference in leaves):
        gc.collect()  # what only a reference cycle holds is nobody's
    return [t for t in (reference() for reference in leaves) if t is not None]


def refuse_escaped(tether: Tether) -> None:
    """Raise where a tensor that an evaluation of f made from its arguments, and did not return, is still alive.

    Args:
        tether: of the graph of the evaluation, which was dropped.

    Raises:
        GradientError: there is one.
    """
    if tether.is_held():
        raise GradientError(
            "function keeps a tensor that it computes and does not return, in a list or an attribute; its gradient "
            "would be lost, because the evaluations of a solve keep no graph. Return it beside z and give "
            "has_aux='last' or 'sum', detach it where no gradient is wanted, or use UnrolledAdjoint."
        )
