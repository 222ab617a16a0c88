"""Evaluates a graph in any arithmetic: what depends on fixed inputs once, the rest at every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.graph import operations as _operations
from verify.reference.graph.errors import UnsupportedOperationError
from verify.reference.graph.graph import Exact, Graph, Node, TensorType, references, substituted
from verify.reference.graph.operations.numbers import exact_number
from verify.reference.graph.registry import is_covered, rule_for


class ShapeError(RuntimeError):
    """A rule returned another shape than torch recorded: the rule is wrong."""


def check_covered(graph: Graph) -> None:
    """See that every operation of a graph has a rule.

    Raises:
        UnsupportedOperationError: one has none; the first that stands in the user's source is named, before any that
            only the derivative needs.
    """
    missing = [node for node in graph.nodes if node.operation != "getitem" and not is_covered(node.operation)]
    for node in sorted(missing, key=lambda node: not node.location):
        raise UnsupportedOperationError(node.operation, node.location)


class Program:
    """A graph made ready for one arithmetic.

    Values that depend on fixed inputs and constants alone are computed here, once, and marked read-only, so an
    arithmetic may keep what it derives from them (`Balls` keeps its matrices).

    Args:
        graph: what to evaluate.
        ops: the arithmetic.
        fixed: inputs by name that never change: float64, integer or bool numpy arrays, or arrays of the arithmetic.

    Raises:
        KeyError: `fixed` names no input.
        UnsupportedOperationError: an operation has no rule.
    """

    def __init__(self, graph: Graph, ops: Arithmetic, fixed: Mapping[str, Array]) -> None:
        check_covered(graph)
        self.graph = graph
        self.ops = ops
        names = [entry.name for entry in graph.inputs]
        unknown = sorted(set(fixed) - set(names))
        if unknown:
            raise KeyError(f"the graph has no input {unknown[0]!r}; it has {', '.join(names)}")
        self.free = tuple(name for name in names if name not in fixed)
        self._start: dict[int, Any] = {}
        for number, entry in enumerate(graph.inputs):
            if entry.name in fixed:
                self._start[number] = _frozen(self._entered(fixed[entry.name], entry.type, entry.name))
        for number, constant in enumerate(graph.constants, len(graph.inputs)):
            self._start[number] = _frozen(self._entered(constant.values, constant.type, constant.name))
        self._steps: list[tuple[int, Node]] = []
        for number, node in enumerate(graph.nodes, graph.first_node):
            if all(ref.value in self._start for ref in references(node)):
                self._start[number] = _frozen(self._evaluate(node, self._start))
            else:
                self._steps.append((number, node))
        self._last_use: dict[int, int] = {}
        for position, (_, node) in enumerate(self._steps):
            self._last_use.update({ref.value: position for ref in references(node)})
        for ref in graph.outputs:
            self._last_use.pop(ref.value, None)

    def _entered(self, values: Any, kind: TensorType, name: str) -> Any:
        array = np.asarray(values)
        if array.shape != kind.shape:
            raise ValueError(f"the input {name} has shape {array.shape}; the graph was recorded at {kind.shape}")
        if not kind.is_real or array.dtype == object or array.dtype == np.longdouble:
            return array
        return self.ops.convert(array)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Evaluate at the free inputs.

        Args:
            inputs: an array for every name in `free`: of the arithmetic, or float64, which is converted exactly.

        Returns:
            The outputs by name, arrays of the arithmetic.

        Raises:
            KeyError: an input is missing or is not free.
            ValueError: an input has another shape than the one recorded.
            Undecided: a comparison of balls cannot be decided.
        """
        if set(inputs) != set(self.free):
            raise KeyError(f"the free inputs are {', '.join(self.free)}; given were {', '.join(inputs) or 'none'}")
        values = dict(self._start)
        for number, entry in enumerate(self.graph.inputs):
            if entry.name in inputs:
                values[number] = self._entered(inputs[entry.name], entry.type, entry.name)
        for position, (number, node) in enumerate(self._steps):
            values[number] = self._evaluate(node, values)
            for ref in references(node):
                if self._last_use.get(ref.value) == position and ref.value not in self._start:
                    values.pop(ref.value, None)
        results = zip(self.graph.output_names, self.graph.outputs, strict=True)
        return {name: values[ref.value] for name, ref in results}

    def _evaluate(self, node: Node, values: Mapping[int, Any]) -> Any:
        arguments = [self._exact(substituted(item, values)) for item in node.arguments]
        if node.operation == "getitem":
            item = arguments[0][arguments[1]]
            if isinstance(item, Undecided):
                raise item
            return item
        options = {key: self._exact(substituted(item, values)) for key, item in node.options.items()}
        result = rule_for(node.operation, node.location)(self.ops, *arguments, **options)
        outputs = result if isinstance(result, tuple) else (result,)
        for output, kind in zip(outputs, node.outputs, strict=False):
            if kind is not None and output is not None and np.shape(output) != kind.shape:
                raise ShapeError(
                    f"the rule of {node.operation} gave shape {np.shape(output)} where torch recorded {kind.shape}; "
                    "correct the registered rule"
                )
        return result

    def _exact(self, item: Any) -> Any:
        return exact_number(self.ops, item) if isinstance(item, Exact) else item


def _frozen(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, np.ndarray):
        array = value.view()
        array.flags.writeable = False
        return array
    return value


FAMILIES: tuple[str, ...] = _operations.FAMILIES
"""The modules of rules, one for each family of operations."""
