"""From torch's own records (fx graphs, tensors) to the plain data of `Graph`."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
import torch.fx
from numpy.typing import NDArray

from verify.reference.graph.errors import DataDependentError, TracingError
from verify.reference.graph.graph import Constant, Graph, Input, Node, Ref, TensorType


_PLACEMENT = {"layout", "device", "pin_memory", "memory_format", "non_blocking"}
"""Options that say where a tensor lies in memory, which numbers do not know."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*(?:\n\s*([^\n]*))?')


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a torch dtype without its module."""
    return str(dtype).removeprefix("torch.")


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """Shape and dtype of a tensor.

    Raises:
        TracingError: the tensor is sparse or quantized.
    """
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise TracingError(f"the function uses a tensor of layout {tensor.layout}; use dense tensors")
    return TensorType(tuple(int(size) for size in tensor.shape), dtype_name(tensor.dtype))


def plain_tensor(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without a subclass that has torch's operations.

    Raises:
        TracingError: the subclass has operations of its own.
    """
    own, torchs = (getattr(kind, "__torch_dispatch__") for kind in (type(tensor), torch.Tensor))  # noqa: B009
    if own is not torchs:
        raise TracingError(
            f"{name} is a {type(tensor).__name__}, a tensor with operations of its own, which cannot be recorded; give "
            "the plain tensors that it holds, and make one of them inside the function"
        )
    return tensor if type(tensor) in (torch.Tensor, torch.nn.Parameter) else tensor.as_subclass(torch.Tensor)


def exact_values(tensor: torch.Tensor) -> NDArray[Any]:
    """The stored values of a tensor, exactly: float64 for floating dtypes, complex128, int64 or bool."""
    tensor = tensor.detach().cpu().resolve_neg()
    if tensor.is_floating_point():
        return tensor.to(torch.float64).numpy().copy()
    if tensor.is_complex():
        return tensor.resolve_conj().to(torch.complex128).numpy().copy()
    if tensor.dtype == torch.bool:
        return tensor.numpy().copy()
    return tensor.to(torch.int64).numpy().copy()


def _location(stack_trace: str | None) -> str:
    """The innermost line outside torch of a stack trace, as 'file:line: source'."""
    torch_root = os.path.dirname(torch.__file__)
    frames = _FRAME.findall(stack_trace or "")
    for filename, line, source in reversed(frames):
        if not filename.startswith(torch_root) and not filename.startswith("<"):
            return f"{filename}:{line}: {source.strip()}"
    return ""


def refuse_symbolic_shapes(module: torch.fx.GraphModule) -> None:
    """See that no shape in a traced graph depends on values.

    Raises:
        DataDependentError: one does; the line is named.
    """
    for node in module.graph.nodes:
        value = node.meta.get("val")
        for item in value if isinstance(value, (tuple, list)) else [value]:
            shape = item.shape if isinstance(item, torch.Tensor) else [item]
            if any(isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) for size in shape):
                raise DataDependentError(_location(node.stack_trace))


def graph_from_fx(module: torch.fx.GraphModule, inputs: list[Input], output_names: list[str]) -> Graph:
    """Plain data from a traced fx graph.

    Args:
        module: made by make_fx, functional.
        inputs: description of its placeholders, in order.
        output_names: a name for each output, in order.

    Raises:
        TracingError: the graph writes into one of its inputs, or uses complex or sparse tensors.
    """
    module.graph.eliminate_dead_code()
    numbers: dict[torch.fx.Node, int] = {}
    constants: list[Constant] = []
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    attributes = [node for node in module.graph.nodes if node.op == "get_attr"]
    for node in placeholders:
        numbers[node] = len(numbers)
    for node in attributes:
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if value.requires_grad:
            raise TracingError(
                f"a tensor of shape {tuple(value.shape)} that requires grad is read past torch's functions, so its "
                "gradient cannot be followed; hand it in through args"
            )
        numbers[node] = len(numbers)
        constants.append(Constant(str(node.target), tensor_type(value), exact_values(value)))
    nodes: list[Node] = []
    outputs: tuple[Ref, ...] = ()
    for node in module.graph.nodes:
        if node.op == "call_function":
            if str(node.target) == "aten.copy_.default" and node.args[0] in placeholders:
                name = inputs[placeholders.index(node.args[0])].name
                raise TracingError(
                    f"the function writes into {name} in place, so evaluating it changes its own input; "
                    "make a new tensor, as z * s in place of z.mul_(s)"
                )
            numbers[node] = len(numbers)
            nodes.append(_node(node, numbers))
        elif node.op == "output":
            outputs = tuple(Ref(numbers[item]) for item in node.args[0])
    return Graph(tuple(inputs), tuple(constants), tuple(nodes), outputs, tuple(output_names))


def _node(node: torch.fx.Node, numbers: dict[torch.fx.Node, int]) -> Node:
    operation = "getitem" if "getitem" in str(node.target) else str(node.target)
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    types = tuple(tensor_type(item) if isinstance(item, torch.Tensor) else None for item in values)
    return Node(
        operation,
        tuple(_argument(item, numbers) for item in node.args),
        {str(key): _argument(item, numbers) for key, item in node.kwargs.items() if key not in _PLACEMENT},
        types,
        _location(node.stack_trace),
    )


def _argument(item: Any, numbers: dict[torch.fx.Node, int]) -> Any:
    if isinstance(item, torch.fx.Node):
        return Ref(numbers[item])
    if isinstance(item, torch.dtype):
        return dtype_name(item)
    if isinstance(item, (torch.device, torch.memory_format, torch.layout)):
        return None
    if isinstance(item, (list, tuple)):
        return [_argument(part, numbers) for part in item]
    if item is None or isinstance(item, (bool, int, float, complex, str)):
        return item
    raise TracingError(f"an operation has the argument {item!r}, which the graph cannot hold; use numbers and tensors")
