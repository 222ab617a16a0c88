"""The trainable tensors that f takes from outside its arguments, found evaluation by evaluation.

NOTE [What f reads]
A gradient is lost silently when f reads a trainable tensor that the autograd node does not list as an input. So every
evaluation of the forward pass is made as the backward pass will make it, with a graph, which is walked and dropped: the
leaves that it reaches are listed, whichever evaluation reaches them, and so are the tensors that the first evaluation,
watched by `ReadsSeen`, takes into an operation. A leaf that f makes for itself is gone when the graph is; one from
outside is not. A tensor with a graph of its own that was not seen to enter cannot be listed, and raises.
"""

import gc
import weakref
from collections.abc import Iterable, Sequence

import torch
from torch.autograd.graph import Node

from revdeq._errors import GradientError
from revdeq._tree import Leaves
from revdeq.function.graph import Graph
from revdeq.function.local import Tether
from revdeq.function.reads import Substituted


class Sources:
    """What was found so far; see NOTE [What f reads].

    Args:
        inside: leaves that are no sources: those of the arguments of f, which stay the same in every evaluation.

    Attributes:
        read: the tensors as f names them, where a solve inside another one's f has others in their place.
        captured: what stands in their place.
        graphs: the signature of the graph of every evaluation, by its position.
    """

    def __init__(self, inside: Sequence[torch.Tensor]) -> None:
        self.read: Leaves = ()
        self.captured: Leaves = ()
        self.graphs: dict[int, int | None] = {}
        self._inside = inside
        self._listed = {id(t) for t in inside}
        self._ends = {t.grad_fn for t in inside if t.grad_fn is not None}
        self._depended_on: set[int] = set()

    @property
    def ends(self) -> set[Node]:
        """Where a walk over the graph of an evaluation ends, as it does at leaves."""
        return self._ends

    def take(self, tensors: Iterable[torch.Tensor]) -> None:
        """List tensors as sources."""
        new = [t for t in tensors if id(t) not in self._listed]
        if new:
            current = tuple(Substituted.current(t) for t in new)
            self.read, self.captured = (*self.read, *new), (*self.captured, *current)
            self._listed.update(id(t) for t in (*new, *current))
            self._ends.update(t.grad_fn for t in (*new, *current) if t.grad_fn is not None)

    def note(self, graph: Graph, position: int) -> list[weakref.ref[torch.Tensor]]:
        """Take note of the graph of an evaluation, and return the leaves that are not listed.

        Args:
            graph: what the walk found.
            position: index of the evaluation.

        Raises:
            GradientError: it holds a node from before the evaluation that belongs to no tensor that is listed.
        """
        if graph.older is not None:
            raise GradientError(
                f"function reads a tensor that {graph.older.name()} made outside and that could not be seen to enter "
                "an operation (inside a compiled or scripted function, or in a later evaluation alone), so its "
                "gradient would be lost; pass it in args."
            )
        self.graphs[position] = graph.signature
        self._depended_on.update(graph.leaves.keys() & self._listed)
        return [weakref.ref(t) for key, t in graph.leaves.items() if key not in self._listed]

    def take_outliving(self, leaves: Sequence[weakref.ref[torch.Tensor]]) -> None:
        """List those leaves of a dropped graph that are still alive: f did not make them for itself."""
        found = outliving(leaves)
        self.take(found)
        self._depended_on.update(id(t) for t in found)

    def depended_on(self) -> list[torch.Tensor]:
        """Return the tensors, as f names them, that values of f were seen to depend on."""
        pairs = zip(self.read, self.captured, strict=True)
        return [t for t, current in pairs if {id(t), id(current)} & self._depended_on]


def outliving(leaves: Sequence[weakref.ref[torch.Tensor]]) -> list[torch.Tensor]:
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
    if tether.holds:
        gc.collect()  # what only a reference cycle holds is nobody's
    if tether.holds:
        raise GradientError(
            "function keeps a tensor that it computes and does not return, in a list or an attribute; its gradient "
            "would be lost, because the evaluations of a solve keep no graph. Return it beside z and give "
            "has_aux='last' or 'sum', detach it where no gradient is wanted, or use UnrolledAdjoint."
        )
