"""The graph that one evaluation of f leaves: which trainable leaves it reaches, and whether another one is the same.

NOTE [The same graph]
An evaluation in the backward pass has to return what it returned in the forward pass, and to be differentiated as it
would have been there. The first is told by the values. The second is not: a part that is detached by a counter, or a
gradient scaled by a number that changes, leaves the values as they are. So the graph of every evaluation of the forward
pass is made as backward makes it, walked, dropped, and remembered by its signature: the kinds of its nodes in the order
of a walk, how they hang together, which leaves they reach, and the numbers that they hold. Tensors without a gradient
that scale or choose gradients, masks for example, leave fingerprints. A hook that f sets is not looked into.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch._C import _len_torch_dispatch_stack  # pyright: ignore[reportPrivateUsage]
from torch.autograd.graph import Node
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from revdeq._fingerprint import fingerprint


Ends: TypeAlias = Mapping[tuple[Node, int], Hashable]
"""Outputs of nodes that belong to tensors from outside, and what these are called."""

_NO_ENDS: Ends = MappingProxyType({})


class Leaf(NamedTuple):
    """A trainable leaf in the form of a graph, by its id."""

    key: int


class Graph(NamedTuple):
    """What a walk from some values finds.

    Attributes:
        leaves: the trainable leaves that it reaches, by their ids.
        older: the nodes that seem to have been made before the evaluation began.
        met: the ends to which it came.
        acts: whether a node was written in Python, whose backward may do more than compute.
        form: the nodes in the order of the walk, how they hang together, the numbers in them, and `Leaf` where a leaf
            is; None where a part is compiled or scripted, which shows neither and makes other parts at its first calls.
        prints: fingerprints of tensors by which gradients are scaled or chosen and that have no gradient themselves.
    """

    leaves: dict[int, torch.Tensor]
    older: list[Node]
    met: set[Hashable]
    acts: bool
    form: tuple[Hashable, ...] | None
    prints: tuple[torch.Tensor, ...]

    @staticmethod
    def of(values: Sequence[torch.Tensor], ends: Ends = _NO_ENDS, since: int = 0) -> "Graph":
        """Walk the graph of some values.

        Args:
            values: what an evaluation returned.
            ends: where the walk ends, as it does at leaves, and what is found there.
            since: `sequence_number()` just before the evaluation; 0 to take no node for older.
        """
        found: list[Hashable] = []
        leaves: dict[int, torch.Tensor] = {}
        numbers: dict[Node, int] = {}
        older: list[Node] = []
        met, prints, acts, opaque = set[Hashable](), list[torch.Tensor](), False, False
        pending: list[tuple[Any, int]] = [
            (v, -1) if v.grad_fn is None and v.requires_grad else (v.grad_fn, v.output_nr) for v in values
        ]
        while pending:
            node, output = pending.pop()
            if node is None:
                found.append(None)
            elif (end := ends.get((node, output))) is not None:
                met.add(end)
                found.append(end)
            elif output < 0 or type(node) is _ACCUMULATES:
                leaf: torch.Tensor = node if output < 0 else node.variable
                leaves[id(leaf)] = leaf
                found.append(Leaf(id(leaf)))
            elif node in numbers:
                found.append((numbers[node], output))
            else:
                numbers[node] = len(numbers)
                if since and node._sequence_nr() < since:
                    older.append(node)
                kind = _KINDS.get(type(node)) or _kind(type(node))
                found.append((kind.name, output))
                acts, opaque = acts or kind.custom, opaque or kind.name in _OPAQUE
                if kind.held or kind.custom:
                    found.extend(_numbers(node, kind, prints))
                pending.extend(node.next_functions)
        return Graph(leaves, older, met, acts and not opaque, None if opaque else tuple(found), tuple(prints))


def signature(form: tuple[Hashable, ...] | None, names: Mapping[int, Hashable]) -> int | None:
    """Return a number that graphs of one form have in common, within this process; None where there is no form.

    Args:
        form: see `Graph`.
        names: of leaves that stay the same, by their ids; others are made anew in every evaluation, and all alike.
    """
    if form is None:
        return None
    return hash(tuple(names.get(part.key, "own") if type(part) is Leaf else part for part in form))


def made_since(tensor: torch.Tensor, since: int) -> bool:
    """Return whether an operation recorded in this thread since `sequence_number()` was `since` made the tensor."""
    return tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() > since  # pyright: ignore[reportPrivateUsage]


def sequence_number() -> int:
    """Return a number that every node of the autograd graph made from now on in this thread exceeds."""
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(()).grad_fn
    assert node is not None
    return node._sequence_nr()  # pyright: ignore[reportPrivateUsage]


class _Kind(NamedTuple):
    """What is known of a type of node: its name, its attributes with numbers or scaling tensors, if it is Python's."""

    name: str
    held: tuple[str, ...]
    custom: bool


def _kind(node: type) -> _Kind:
    saved = [name for name in dir(node) if name.startswith("_saved_") and not name.endswith(("sizes", "strides"))]
    scales = node.__name__.startswith(_SCALING)
    held = tuple(name for name in saved if scales or not hasattr(node, f"_raw{name}"))  # a raw one is of a tensor
    custom = issubclass(node, torch.autograd.function.FunctionCtx) and not _is_ours(node)
    _KINDS[node] = found = _Kind(node.__name__, held, custom)
    return found


def _is_ours(node: type) -> bool:
    """Return whether a node is that of a solve inside f, which sees to itself."""
    return getattr(node, "_forward_cls", node).__module__.startswith("revdeq.")


def _numbers(node: Node, kind: _Kind, prints: list[torch.Tensor]) -> Iterator[Hashable]:
    """Yield the numbers that a node holds and may scale gradients by, and add fingerprints of such tensors."""
    for name in kind.held:
        yield from _plain(getattr(node, name), prints)
    if kind.custom and kind.name not in _OPAQUE:
        for name, value in vars(node).items():
            yield name
            yield from _plain(value, prints)
        for value in getattr(node, "saved_tensors", ()):
            yield from _plain(value, prints)


def _plain(value: Any, prints: list[torch.Tensor]) -> Iterator[Hashable]:
    """Yield what tells a plain value from others: numbers, words, tuples of them; tensors leave a fingerprint."""
    if isinstance(value, float):
        yield value.hex()  # NaN is NaN
    elif isinstance(value, int | str | complex):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _plain(item, prints)
    elif hasattr(value, "tobytes"):
        yield value.tobytes()  # of NumPy, on which nothing here depends
    elif type(value) in (torch.Tensor, torch.nn.Parameter) and not value.requires_grad:
        # torch keeps the number by which a tensor is multiplied, divided or interpolated as one without dimensions.
        if value.dim() == 0 and value.dtype in _PYTHON_DTYPES and value.device.type == "cpu":
            yield from _plain(_python_number(value), prints)
        elif value.layout == torch.strided and not value.is_quantized:
            prints.append(fingerprint((value,)))


def _python_number(tensor: torch.Tensor) -> Any:
    """Return the number that a tensor stands for; torch hands no such tensor to the modes of its dispatcher."""
    if not _len_torch_dispatch_stack():
        return tensor.item()
    with _disable_current_modes():
        return tensor.item()


# Those in which torch keeps a Python number.
_PYTHON_DTYPES = frozenset({torch.bool, torch.int64, torch.float64, torch.complex128})
_KINDS: dict[type, _Kind] = {}
# Nodes whose saved tensors scale or choose gradients.
_SCALING = (
    *("Mul", "Div", "Lerp", "Where", "Masked", "Index", "Gather", "Take", "Scatter", "Pow", "Maximum", "Minimum"),
    *("Mm", "Mv", "Dot", "Bmm", "Addmm", "Addmv", "Addr", "Addbmm", "Baddbmm", "Addcmul", "Addcdiv"),
    *("Convolution", "Prelu", "Fmod", "Remainder", "Atan2", "Hypot"),
)
_OPAQUE = frozenset({"CompiledFunctionBackward", "DifferentiableGraphBackward"})


def _accumulating_kind() -> type:
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(()).grad_fn
    assert node is not None
    return type(node.next_functions[0][0])


_ACCUMULATES = _accumulating_kind()
