"""A traced function as plain data: inputs, constants, one node per operation, outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray


InputKind = Literal["state", "argument", "captured", "cotangent"]


@dataclass(frozen=True)
class Ref:
    """A reference to a value of the graph: inputs first, then constants, then nodes."""

    value: int


@dataclass(frozen=True)
class Exact:
    """A number that no float64 holds: symbol * numerator / denominator, the symbol "" standing for 1."""

    symbol: str
    numerator: int
    denominator: int


@dataclass(frozen=True)
class TensorType:
    """Shape and torch dtype (its name, such as "float32") of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_real(self) -> bool:
        """Whether the tensor holds floating-point numbers, that is real numbers once dtypes are stripped."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def is_complex(self) -> bool:
        """Whether the tensor holds complex numbers."""
        return self.dtype.startswith("complex")


@dataclass(frozen=True)
class Input:
    """One input of a graph.

    Attributes:
        name: the leaf's name: "z0", "args.W", "parameters.weight", "captured.scale", "cotangent".
        kind: what it is to the function.
        type: shape and dtype.
    """

    name: str
    kind: InputKind
    type: TensorType


@dataclass(frozen=True)
class Constant:
    """A tensor that the function made from Python numbers while it was traced, at its stored bits."""

    name: str
    type: TensorType
    values: NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One ATen operation.

    Attributes:
        operation: its name, such as "aten.mul.Tensor".
        arguments: positional arguments: `Ref`, `Exact`, Python numbers, strings, None, and lists of these.
        options: keyword arguments, likewise.
        outputs: type of each tensor that comes out.
        location: 'file.py:12: line of source' in the user's code, or "" where torch recorded none.
    """

    operation: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    outputs: tuple[TensorType | None, ...]
    location: str


@dataclass(frozen=True)
class Graph:
    """A function from arrays to arrays.

    Attributes:
        inputs: in the order of their value numbers, from 0.
        constants: their value numbers follow.
        nodes: their value numbers follow, in an order in which they can be evaluated.
        outputs: what the function returns.
        output_names: a name for each output.
    """

    inputs: tuple[Input, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]
    output_names: tuple[str, ...]

    @property
    def first_node(self) -> int:
        """The value number of the first node."""
        return len(self.inputs) + len(self.constants)

    def operations(self) -> tuple[str, ...]:
        """The names of the operations that occur, sorted."""
        return tuple(sorted({node.operation for node in self.nodes}))

    def restricted(self, names: Sequence[str]) -> Graph:
        """The same graph with these outputs only, in this order, and without the nodes that they do not need.

        Raises:
            KeyError: no output has that name.
        """
        outputs: list[Ref] = []
        for name in names:
            if name not in self.output_names:
                raise KeyError(f"the graph has no output {name!r}; it has {', '.join(self.output_names)}")
            outputs.append(self.outputs[self.output_names.index(name)])
        needed = {ref.value for ref in outputs}
        for index in reversed(range(len(self.nodes))):
            if index + self.first_node in needed:
                needed.update(ref.value for ref in references(self.nodes[index]))
        kept = [index for index in range(len(self.nodes)) if index + self.first_node in needed]
        numbers = {number: number for number in range(self.first_node)}
        numbers.update({index + self.first_node: self.first_node + new for new, index in enumerate(kept)})
        nodes = tuple(_renumbered(self.nodes[index], numbers) for index in kept)
        return Graph(self.inputs, self.constants, nodes, tuple(Ref(numbers[r.value]) for r in outputs), tuple(names))


def references(node: Node) -> Iterator[Ref]:
    """Every value that a node reads."""
    stack: list[Any] = [*node.arguments, *node.options.values()]
    while stack:
        item = stack.pop()
        if isinstance(item, Ref):
            yield item
        elif isinstance(item, (list, tuple)):
            stack.extend(item)


def substituted(item: Any, values: Any) -> Any:
    """The argument with every `Ref` replaced by `values[ref.value]`."""
    if isinstance(item, Ref):
        return values[item.value]
    if isinstance(item, (list, tuple)):
        return [substituted(part, values) for part in item]
    return item


def _renumbered(node: Node, numbers: dict[int, int]) -> Node:
    refs = {old: Ref(new) for old, new in numbers.items()}
    return Node(
        node.operation,
        tuple(substituted(item, refs) for item in node.arguments),
        {key: substituted(item, refs) for key, item in node.options.items()},
        node.outputs,
        node.location,
    )
