"""The graph that one evaluation of f leaves: which trainable leaves it reaches, and whether another one is the same.

NOTE [The same graph]
An evaluation in the backward pass has to return what it returned in the forward pass, and to be differentiated as it
would have been there. The first is told by the values. The second is not: a part that is detached by a counter, or a
gradient scaled by a number that changes, leaves the values as they are. So the graph of every evaluation of the forward
pass is made as backward makes it, walked, dropped, and remembered by its signature: the kinds of its nodes in the order
of a walk, how they hang together, and the numbers that they hold.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch._C import _len_torch_dispatch_stack  # pyright: ignore[reportPrivateUsage]
from torch.autograd.graph import Node
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]


class Graph(NamedTuple):
    """What a walk from some values finds.

    Attributes:
        leaves: the trainable leaves that it reaches, by their ids.
        older: a node that was made before the evaluation began, where there is one.
        met: those of the nodes where it was to end to which it came.
        signature: equal for graphs of the same form with the same numbers in it, within this process; None where a
            part is compiled by torch.compile, which shows neither and makes other parts at its first calls.
    """

    leaves: dict[int, torch.Tensor]
    older: Node | None
    met: set[Node]
    signature: int | None

    @staticmethod
    def of(values: Sequence[torch.Tensor], ends: Set[Node] = frozenset(), since: int = 0) -> "Graph":
        """Walk the graph of some values.

        Args:
            values: what an evaluation returned.
            ends: nodes where the walk ends, as it does at leaves.
            since: `sequence_number()` just before the evaluation; 0 to take no node for older.
        """
        leaves = {id(v): v for v in values if v.grad_fn is None and v.requires_grad}
        met = {v.grad_fn for v in values if v.grad_fn is not None and v.grad_fn in ends}
        # A value that is an input itself is one node or none, as that input is a leaf or not: it counts as one apart.
        inner = [v.grad_fn for v in values if not v.requires_grad or (v.grad_fn is not None and v.grad_fn not in ends)]
        found: list[Any] = [_INPUT] * (len(values) - len(inner))
        numbers: dict[Node, int] = {}
        older: Node | None = None
        pending: list[Node | None] = [*inner]
        while pending:
            node = pending.pop()
            if node is None:
                found.append(-1)
            elif node in ends:
                met.add(node)
                found.append(_INPUT)
            elif type(node) is _ACCUMULATES:
                leaf: torch.Tensor = node.variable  # pyright: ignore[reportAttributeAccessIssue]
                leaves[id(leaf)] = leaf
                found.append(_INPUT)
            elif node in numbers:
                found.append(numbers[node])
            else:
                numbers[node] = len(numbers)
                if since and node._sequence_nr() < since:  # pyright: ignore[reportPrivateUsage]
                    older = node
                kind = _KINDS.get(type(node)) or _kind(type(node))
                found.append(kind.name)
                if kind.holds:
                    found.extend(_numbers(node, kind))
                for child, _ in node.next_functions:
                    pending.append(child)
        return Graph(leaves, older, met, None if _COMPILED in found else hash(tuple(found)))


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
    """What is known of a type of node: name, attributes with numbers, whether Python made it, whether to look."""

    name: str
    numbers: tuple[str, ...]
    custom: bool
    holds: bool


def _kind(node: type) -> _Kind:
    saved = [name for name in dir(node) if name.startswith("_saved_") and not name.endswith(("sizes", "strides"))]
    # torch keeps the number by which a tensor is multiplied, divided or interpolated as a tensor without dimensions.
    scales = node.__name__.startswith(("Mul", "Div", "Lerp"))
    numbers = tuple(name for name in saved if scales or not hasattr(node, f"_raw{name}"))
    custom = issubclass(node, torch.autograd.function.FunctionCtx)
    _KINDS[node] = found = _Kind(node.__name__, numbers, custom, bool(numbers) or custom)
    return found


def _numbers(node: Node, kind: _Kind) -> Iterator[Any]:
    """Yield the numbers that a node holds and may scale gradients by."""
    for name in kind.numbers:
        value = getattr(node, name)
        if type(value) is torch.Tensor and value.dim() == 0 and value.dtype in _PYTHON_DTYPES and not value.is_cuda:
            value = _python_number(value)
        if type(value) in _NUMBERS:
            yield value
    if kind.custom:
        for name, value in vars(node).items():
            if type(value) in _NUMBERS and not name.startswith("_"):
                yield name
                yield value


def _python_number(tensor: torch.Tensor) -> Any:
    """Return the number that a tensor stands for; torch hands no such tensor to the modes of its dispatcher."""
    if not _len_torch_dispatch_stack():
        return tensor.item()
    with _disable_current_modes():
        return tensor.item()


# Those in which torch keeps a Python number.
_PYTHON_DTYPES = frozenset({torch.bool, torch.int64, torch.float64, torch.complex128})
_KINDS: dict[type, _Kind] = {}
_NUMBERS = (bool, int, float, complex, str)


def _accumulating_kind() -> type:
    with torch.enable_grad():
        node = torch.zeros((), requires_grad=True).view(()).grad_fn
    assert node is not None
    return type(node.next_functions[0][0])


_ACCUMULATES = _accumulating_kind()
_INPUT = "input"
_COMPILED = "CompiledFunctionBackward"
