"""The recorded graph of f as plain JSON: one entry for each operation, numbers at their stored bits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from verify.reference.graph import Graph, Node, Ref, TensorType
from verify.reference.graph.graph import Exact


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Inputs, constants, nodes and outputs; {"value": k} refers to the k-th of inputs, constants and nodes."""
    return {
        "inputs": [{"name": entry.name, "kind": entry.kind, **_type(entry.type)} for entry in graph.inputs],
        "constants": [
            {
                "name": entry.name,
                **_type(entry.type),
                "values": [_number(value) for value in entry.values.ravel().tolist()],
            }
            for entry in graph.constants
        ],
        "nodes": [_node(node) for node in graph.nodes],
        "outputs": {name: ref.value for name, ref in zip(graph.output_names, graph.outputs, strict=True)},
    }


def count_operations(graph: Graph) -> dict[str, int]:
    """How often each operation occurs, most frequent first."""
    return dict(Counter(node.operation for node in graph.nodes if node.operation != "getitem").most_common())


def _type(kind: TensorType) -> dict[str, Any]:
    return {"shape": list(kind.shape), "dtype": kind.dtype}


def _number(value: Any) -> Any:
    if isinstance(value, complex):
        return [value.real.hex(), value.imag.hex()]
    return float(value).hex() if isinstance(value, (float, np.floating)) else value


def _node(node: Node) -> dict[str, Any]:
    return {
        "operation": node.operation,
        "arguments": [_argument(item) for item in node.arguments],
        "options": {key: _argument(item) for key, item in node.options.items()},
        "outputs": [None if kind is None else _type(kind) for kind in node.outputs],
        "location": node.location,
    }


def _argument(item: Any) -> Any:
    if isinstance(item, Ref):
        return {"value": item.value}
    if isinstance(item, Exact):
        return {"symbol": item.symbol, "numerator": item.numerator, "denominator": item.denominator}
    if isinstance(item, complex):
        return {"complex": [item.real.hex(), item.imag.hex()]}
    if isinstance(item, float):
        return {"float": item.hex()}
    if isinstance(item, (list, tuple)):
        return [_argument(part) for part in item]
    return item
