"""Sees that the drawn graph is that of the program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from verify.certificate.kernel.bits import by_leaf
from verify.certificate.kernel.code import Code
from verify.certificate.kernel.numbers import Failed, expanded


ALONE = {
    **{f"aten.{name}.default": name for name in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "erf")},
    "aten.abs.default": "absolute",
    "aten.neg.default": "negative",
    "aten.maximum.default": "maximum",
    "aten.minimum.default": "minimum",
    "aten.relu.default": "maximum",
    "aten.mm.default": "matmul",
    "aten.bmm.default": "matmul",
    "aten.div.Tensor": "divide",
    "aten.mul.Tensor": "multiply",
}
"""Operations of torch that are one operation of the program."""


def check_graph(certificate: dict[str, Any], code: Code | None) -> None:
    """The drawn graph is that of the program: what each node computes reads what the node reads, and nothing else."""
    if code is None:
        return
    graph = certificate["graph"]
    names = [entry["name"] for entry in graph["inputs"]]
    first = len(names) + len(graph["constants"])
    above = [1 << place for place in range(first)]
    dtypes = [entry["dtype"] for entry in (*graph["inputs"], *graph["constants"])]
    complexes: list[bool] = []
    for place, node in enumerate(graph["nodes"], first):
        read = list(_read_by([node["arguments"], node["options"]]))
        if any(not 0 <= value < place for value in read):
            raise Failed(f"node {place - first} of the graph reads what comes after it")
        above.append((1 << place) | _union(above[value] for value in read))
        dtypes.append(str(node["outputs"][0] and node["outputs"][0]["dtype"]))
        complexes.append(any(dtypes[value].startswith("complex") for value in (*read, place)))
    if len(graph["nodes"]) != code.program["nodes"]:
        raise Failed(f"the graph has {len(graph['nodes'])} nodes, its program {code.program['nodes']}")
    owner: dict[int, int] = {}
    state = {slot: name for name, slots in _state_slots(certificate, code).items() for slot in slots}
    for name, slots in code.inputs.items():
        for slot in slots:
            owner[slot] = names.index(state.get(slot, name)) if state.get(slot, name) in names else -1
    for tape in (tape for name, tape in code.program["tapes"].items() if name.startswith("f ")):
        entries, outputs = code.entries[slice(*tape["instructions"])], tape["outputs"]
        for entry in entries:
            place = entry.given["node"] + first
            if not first <= place < len(above):
                raise Failed("an instruction belongs to a node that the graph has not")
            operation = graph["nodes"][place - first]["operation"]
            if entry.level and not complexes[place - first] and ALONE.get(operation, entry.name) != entry.name:
                raise Failed(f"node {place - first} of the graph is {operation}; its program computes {entry.name}")
            for slot in (slot for operand in entry.places for slot in operand if code.levels[slot]):
                if not above[place] >> owner[slot] & 1:
                    raise Failed(f"node {place - first} of the graph reads other numbers than its program")
            for slot in range(entry.first, entry.first + entry.size):
                owner[slot] = place
        drawn = _union(above[value] for value in graph["outputs"].values())
        if any(not drawn >> owner[slot] & 1 for slot in expanded(outputs["z0"]) if code.levels[slot]):
            raise Failed("the graph's outputs are not those of its program")
    for name, shape in certificate["state"].items():
        if name not in graph["outputs"] or graph["inputs"][names.index(name)]["shape"] != shape:
            raise Failed(f"the graph does not return {name}, or in another shape")


def _state_slots(certificate: dict[str, Any], code: Code) -> dict[str, list[int]]:
    return by_leaf(list(code.inputs["z"]), certificate["state"])


def _union(masks: Iterable[int]) -> int:
    result = 0
    for mask in masks:
        result |= mask
    return result


def _read_by(item: Any) -> Iterator[int]:
    """The values that the arguments of a node name."""
    if isinstance(item, dict):
        if set(item) == {"value"}:
            yield item["value"]
        else:
            for part in item.values():
                yield from _read_by(part)
    elif isinstance(item, list):
        for part in item:
            yield from _read_by(part)
