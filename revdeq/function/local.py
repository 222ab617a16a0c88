"""A graph of one evaluation alone: on leaves of its own, apart from the caller's hooks and from cached casts."""

import contextlib
import gc
import weakref
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch.autograd.graph import Node

from revdeq._tree import Leaves


class Tether:
    """Tells whether some nodes are alive: whatever holds a part of a graph holds the nodes at which it begins.

    Args:
        nodes: of a graph.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        knot = _Knot()
        for node in nodes:
            held: Any = node.metadata
            held["revdeq"] = knot
        self._knot = weakref.ref(knot)

    def is_held(self) -> bool:
        """Return whether a tensor that someone holds holds them, and not only a cycle, of hooks in the graph itself.

        Counters of operations hang such hooks on what enters and leaves a module.
        """
        if self._knot() is None:
            return False
        gc.collect()  # what only a reference cycle holds is nobody's
        knot = self._knot()
        if knot is None:
            return False
        known = gc.get_objects()
        for item in known:
            # A tensor that nodes alone have saved has no referrer in Python but the list of all objects.
            if not issubclass(type(item), torch.Tensor) or item.grad_fn is None:
                continue
            if self._reached_from(item.grad_fn, knot) and any(r is not known for r in gc.get_referrers(item)):
                return True
        return False

    @staticmethod
    def _reached_from(start: Node, knot: object) -> bool:
        pending, seen = [start], set[Node]()
        while pending:
            node: Any = pending.pop()
            if node.metadata.get("revdeq") is knot:
                return True
            seen.add(node)
            pending.extend(child for child, _ in node.next_functions if child is not None and child not in seen)
        return False


class _Knot:
    """What the nodes hold."""


def nodes_of(tensors: Leaves) -> set[Node]:
    """Return the nodes that made some tensors."""
    return {t.grad_fn for t in tensors if t.grad_fn is not None}


def ends_of(tensors: Leaves, name: str) -> dict[tuple[Node, int], Hashable]:
    """Return where walks over a graph end that begins at some tensors, called by a name and their places."""
    return {(t.grad_fn, t.output_nr): (name, i) for i, t in enumerate(tensors) if t.grad_fn is not None}


def local_leaves(z: Leaves) -> tuple[Leaves, Leaves]:
    """Return leaves of the autograd graph with the values of `z`, and what f is given in their place.

    Not the leaves themselves: hooks that tools set on the inputs of modules are refused on leaves.
    """
    local = tuple(x.detach().requires_grad_() for x in z)
    with torch.enable_grad():
        return local, tuple(x.view_as(x) for x in local)


def own_saved_tensors() -> AbstractContextManager[Any]:
    """Return a context in which the user's hooks on saved tensors see nothing: the graph made there is not kept."""
    if _hooks_on_saved_tensors is not None and _hooks_on_saved_tensors(True) is None:
        return contextlib.nullcontext()
    if not _hooks_allowed():
        return contextlib.nullcontext()  # inside a transform of torch.func there are none
    return torch.autograd.graph.saved_tensors_hooks(_detached_uncompiled, lambda tensor: tensor)


_hooks_allowed = torch._C._autograd._saved_tensors_hooks_is_enabled  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
# Hooks cost a call for every tensor that is saved, so they are set only against others where torch can say so.
_hooks_on_saved_tensors = getattr(getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", None)  # pyright: ignore[reportPrivateUsage]


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    # An output that its own node kept would keep that node for ever.
    return tensor.detach()


# A compiled function calls the hook too, and would compile it anew for every kind of tensor that it saves.
_detached_uncompiled = cast(Callable[[torch.Tensor], torch.Tensor], torch.compiler.disable(_detached))


@contextlib.contextmanager
def without_autocast_cache(autocasting: bool) -> Generator[None]:
    """Cast weights anew inside the block, so that the casts belong to the graph of what is computed there."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(before and not autocasting)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
