"""What the user's function reads: found by watching one evaluation, and by walking the graph that it leaves.

NOTE [What f reads]
A gradient is lost silently when f reads a trainable tensor that the autograd node does not list as an input. So the
first evaluation of a solve runs with a graph and under a `TorchFunctionMode`, which sees every tensor that enters an
operation. Those that were not made inside the evaluation are what f reads: parameters, captured tensors (leaves or
not), constants and buffers. Then the graph is walked. A trainable leaf that the mode did not see (read by a compiled or
scripted function, another thread, a foreign extension) is found there and listed; a non-leaf one cannot be, and raises.
What f could reach by its closure but did not read at first is watched: where a later evaluation reads it, that raises.
"""

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.autograd.graph import Node
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from revdeq._errors import GradientError
from revdeq._tree import flatten, unflatten


# These update the running statistics that they are given without raising the tensors' version counters.
_UPDATES_STATISTICS: frozenset[Any] = frozenset(
    {
        torch.nn.functional.batch_norm,
        torch.nn.functional.instance_norm,
        torch.batch_norm,
        torch.instance_norm,
        torch.native_batch_norm,
    }
)


# The names of operations that draw from a generator; of others it is found out where a generator moved.
_DRAWS = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
        *("normal", "bernoulli", "multinomial", "poisson", "binomial", "gumbel_softmax", "rrelu"),
        *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
        *("dropout1d", "dropout2d", "dropout3d", "dropout_"),
        *("uniform_", "normal_", "random_", "exponential_", "cauchy_", "log_normal_", "geometric_", "bernoulli_"),
    }
)


class ReadsSeen(TorchFunctionMode):
    """Collects the tensors that enter an operation and were not made by one before; see NOTE [What f reads].

    Args:
        known: tensors that count as made inside.

    Attributes:
        generators: the random number generators named in a call, each with its state before the first such call.
        drew: whether an operation was seen that draws random numbers by its name.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._inside = {id(t) for t in known}
        # Weak: what a hidden call made inside must not outlive the evaluation.
        self._seen: dict[int, weakref.ref[torch.Tensor]] = {}
        self._versions: dict[int, int] = {}
        self._before: dict[int, torch.Tensor] = {}
        self._statistics: set[int] = set()
        self.generators: dict[int, tuple[torch.Generator, torch.Tensor]] = {}
        self.drew = False
        self._made: list[weakref.ref[torch.Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (*args, *kwargs.values()) if kwargs else args
        inside, seen = self._inside, self._seen
        for value in given:
            if isinstance(value, torch.Tensor):
                if id(value) not in inside and id(value) not in seen:
                    self._enter(value)
            elif type(value) in (tuple, list, dict):
                for tensor in _tensors(value):
                    self._enter(tensor)
            elif type(value) is torch.Generator and id(value) not in self.generators:
                self.generators[id(value)] = (value, value.get_state())
        if func in _UPDATES_STATISTICS:
            for tensor in _tensors(given):
                if id(tensor) in seen and not tensor.requires_grad:
                    self._statistics.add(id(tensor))
                    self._before.setdefault(id(tensor), tensor.detach().clone())
        elif _writes(func, kwargs):
            for tensor in _tensors([args[:1], (kwargs or {}).get("out")]):
                if id(tensor) in seen and not tensor.requires_grad:
                    self._before.setdefault(id(tensor), tensor.detach().clone())
        self.drew = self.drew or getattr(func, "__name__", "") in _DRAWS
        result = func(*args, **kwargs) if kwargs else func(*args)
        for tensor in (result,) if isinstance(result, torch.Tensor) else _tensors(result):
            if id(tensor) not in seen:
                if tensor.requires_grad and id(tensor) not in inside:
                    self._made.append(weakref.ref(tensor))
                inside.add(id(tensor))
        return result

    def _enter(self, tensor: torch.Tensor) -> None:
        # The id of a tensor made inside can be taken over only by another one made inside: what was made outside stays
        # alive throughout.
        if id(tensor) not in self._inside and id(tensor) not in self._seen:
            self._seen[id(tensor)] = weakref.ref(tensor)
            self._versions[id(tensor)] = version(tensor)

    def trainable(self) -> list[torch.Tensor]:
        """Return the tensors that require grad, in the order in which they were read."""
        return [t for t in self._alive() if t.requires_grad]

    def updated(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the tensors without gradient that the evaluation changed in place, each with its value before.

        Running statistics are not among them, nor are those changed by an operation that does not say so in its name.
        """
        changed = [t for t in self._alive() if id(t) in self._before and id(t) not in self._statistics]
        return [(t, self._before[id(t)]) for t in changed]

    def statistics(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the running statistics that the evaluation updated, each with its value before."""
        return [(t, self._before[id(t)]) for t in self._alive() if id(t) in self._statistics]

    def constants(self) -> list[torch.Tensor]:
        """Return the tensors without gradient that the evaluation left as they were."""
        return [t for t in self._alive() if not t.requires_grad and not self._changed(t)]

    def made_with_graph(self) -> list[torch.Tensor]:
        """Return the tensors with a graph that the evaluation made and that are still alive."""
        return [t for t in (reference() for reference in self._made) if t is not None and t.grad_fn is not None]

    def _alive(self) -> Iterator[torch.Tensor]:
        for reference in self._seen.values():
            tensor = reference()
            if tensor is not None:
                yield tensor

    def _changed(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._statistics or version(tensor) != self._versions[id(tensor)]


class Substituted(TorchFunctionMode):
    """Puts other tensors in the place of captured ones, by identity, in every operation inside the block.

    Args:
        substitutes: what to put in the place of the tensor with this id.
    """

    _active = threading.local()

    def __init__(self, substitutes: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self._substitutes = substitutes

    @staticmethod
    def current(tensor: torch.Tensor) -> torch.Tensor:
        """Return what operations now get in the place of `tensor`: a solve inside another one's f attaches to that."""
        for mode in reversed(Substituted._stack()):
            tensor = mode._substitutes.get(id(tensor), tensor)
        return tensor

    @staticmethod
    def _stack() -> "list[Substituted]":
        if not hasattr(Substituted._active, "stack"):
            Substituted._active.stack = []
        return Substituted._active.stack

    def __enter__(self) -> "Substituted":
        self._stack().append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._stack().pop()
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves, structure = flatten((args, kwargs or {}))
        entering, named = unflatten([self._substitutes.get(id(leaf), leaf) for leaf in leaves], structure)
        return func(*entering, **named)


def version(tensor: torch.Tensor) -> int:
    """Return the counter of in-place changes of the tensor; 0 for those that have none or no memory yet."""
    return 0 if is_lazy(tensor) or tensor.is_inference() else tensor._version


def _writes(func: Any, kwargs: dict[str, Any] | None) -> bool:
    """Return whether an operation changes its first argument, or `out`, in place."""
    name: str = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    in_place = in_place or name == "__setitem__" or name.startswith("__i")
    return in_place or bool(kwargs and kwargs.get("out") is not None)


def reached_leaves(
    values: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], captured: Sequence[torch.Tensor], since: int
) -> list[torch.Tensor]:
    """Return the trainable leaves that the graph of one evaluation reaches, those of `inputs` and `captured` excepted.

    Args:
        values: what the evaluation returned.
        inputs: what it was given.
        captured: what it was seen to read.
        since: `sequence_number()` just before it; 0 where nodes of other threads are in the graph, not to judge by it.

    Raises:
        GradientError: it reaches a trainable tensor that is not a leaf and that is not among those.
    """
    known = (*inputs, *captured)
    ids = {id(t) for t in known}
    ends = {t.grad_fn for t in known if t.grad_fn is not None}
    found: dict[int, torch.Tensor] = {}
    for node in _nodes(values, ends):
        leaf = _leaf(node)
        if leaf is None:
            # A node made before the evaluation began belongs to a tensor that f took from outside.
            if node._sequence_nr() < since:  # pyright: ignore[reportPrivateUsage]
                raise GradientError(
                    f"function reads a tensor that {node.name()} made outside and that could not be seen to enter an "
                    "operation (inside a compiled or scripted function, for example), so its gradient would be lost; "
                    "pass it in args."
                )
        elif id(leaf) not in ids:
            found[id(leaf)] = leaf
    return list(found.values())


def trainable_leaves(values: Sequence[torch.Tensor]) -> set[int]:
    """Return the ids of the trainable leaves that the graph of some values reaches."""
    found = (_leaf(node) for node in _nodes(values, set()))
    return {id(leaf) for leaf in found if leaf is not None}


def refuse_unlisted(
    values: Sequence[torch.Tensor], listed: Sequence[torch.Tensor], replaced: Sequence[torch.Tensor]
) -> set[int]:
    """Return the ids of the leaves that the graph of a replayed evaluation reaches, all of whose gradients are taken.

    Args:
        values: what the evaluation returned.
        listed: the leaves whose gradients are taken.
        replaced: tensors in whose place it should have got others, see `Substituted`.

    Raises:
        GradientError: it reaches one of `replaced`, or a leaf that is not `listed`.
    """
    ids = {id(t) for t in listed}
    made_by = {t.grad_fn for t in replaced if t.grad_fn is not None}
    leaves, reached = {id(t) for t in replaced}, set[int]()
    for node in _nodes(values, set()):
        leaf = _leaf(node)
        if node in made_by or id(leaf) in leaves:
            raise GradientError(
                "function hands a captured tensor that is not a leaf, or that has hooks, to an operation where it "
                "cannot be replaced (such as a custom torch.autograd.Function), so its gradient would be lost; "
                "pass it in args."
            )
        if leaf is not None:
            reached.add(id(leaf))
        if leaf is not None and id(leaf) not in ids:
            raise GradientError(
                f"function read a trainable tensor of shape {tuple(leaf.shape)} in the backward pass that it did not "
                "read in its first evaluation, so its gradient would be lost; pass it in args (and call "
                "torch.func.functional_call inside function, not round solve: it puts the module back when it ends)."
            )
    return reached


def made_since(tensor: torch.Tensor, since: int) -> bool:
    """Return whether an operation recorded in this thread since `sequence_number()` was `since` made the tensor."""
    return tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() > since  # pyright: ignore[reportPrivateUsage]


def sequence_number() -> int:
    """Return a number that every node of the autograd graph made from now on in this thread exceeds."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(()).grad_fn
    assert node is not None
    return node._sequence_nr()  # pyright: ignore[reportPrivateUsage]


def _nodes(values: Sequence[torch.Tensor], ends: "set[Node]") -> "Iterator[Node]":
    """Yield the nodes of the graph of `values`, down to `ends`, which are left out."""
    pending: list[Node] = [v.grad_fn for v in values if v.grad_fn is not None]
    visited: set[Node] = set(ends)
    while pending:
        node = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in visited:
                pending.append(child)


def _leaf(node: Node) -> torch.Tensor | None:
    """Return the leaf into which a node accumulates, None for all other nodes."""
    return node.variable if type(node) is _ACCUMULATES else None  # pyright: ignore[reportAttributeAccessIssue]


def _accumulating_kind() -> type:
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(()).grad_fn
    assert node is not None
    return type(node.next_functions[0][0])


_ACCUMULATES = _accumulating_kind()


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tensors(item)
