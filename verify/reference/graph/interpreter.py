"""Evaluates a graph in any arithmetic: what depends on fixed inputs once, the rest at every call."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.graph import operations as _operations
from verify.reference.graph.complex_numbers import Complex, as_complex, complex_result, has_complex
from verify.reference.graph.errors import UnsupportedOperationError
from verify.reference.graph.graph import Exact, Graph, Node, Ref, TensorType, references, substituted
from verify.reference.graph.operations.numbers import exact_number
from verify.reference.graph.operations.shape import is_identity
from verify.reference.graph.registry import Rule, family_of, is_covered, rule_for


class ShapeError(RuntimeError):
    """A rule returned another shape than torch recorded: the rule is wrong."""


@runtime_checkable
class FollowsNodes(Protocol):
    """An arithmetic that wants to know which node of the graph its next operations are of."""

    def at_node(self, node: int) -> None:
        """Say which."""
        ...


def check_covered(graph: Graph) -> None:
    """See that every operation of a graph has a rule.

    Raises:
        UnsupportedOperationError: one has none; the first that stands in the user's source is named, before any that
            only the derivative needs.
    """
    missing = [node for node in graph.nodes if node.operation != "getitem" and not is_covered(node.operation)]
    for node in sorted(missing, key=lambda node: not node.location):
        raise UnsupportedOperationError(node.operation, node.location)


@dataclass
class _Step:
    """One node made ready: its rule, its arguments with the exact numbers in them, what it reads, what dies with it."""

    number: int
    node: Node
    rule: Rule | None
    arguments: list[Any]
    options: dict[str, Any]
    reads: list[int]
    drops: list[int] = field(default_factory=list[int])


class Program:
    """A graph made ready for one arithmetic.

    Values that depend on fixed inputs and constants alone are computed here, once. Every value is marked read-only, so
    an arithmetic may keep what it derives from it (`Balls` keeps its matrices).

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
        self._inputs: dict[str, tuple[int, TensorType]] = {}
        for number, entry in enumerate(graph.inputs):
            if entry.name in fixed:
                self._start[number] = self._entered(fixed[entry.name], entry.type, entry.name)
            else:
                self._inputs[entry.name] = (number, entry.type)
        for number, constant in enumerate(graph.constants, len(graph.inputs)):
            self._start[number] = self._entered(constant.values, constant.type, constant.name)
        same = {number: number for number in range(graph.first_node)}
        steps: list[_Step] = []
        for number, node in enumerate(graph.nodes, graph.first_node):
            if is_identity(node.operation):
                same[number] = same[next(references(node)).value]
                continue
            same[number] = number
            steps.append(self._step(number, node, same))
        self._steps = self._folded(steps, self._start)
        self._results = {name: same[ref.value] for name, ref in zip(graph.output_names, graph.outputs, strict=True)}
        kept = set(self._results.values())
        for step in reversed(self._steps):
            # A value is dropped after the last step that reads it.
            step.drops = [place for place in set(step.reads) if place not in kept and place not in self._start]
            kept.update(step.reads)

    def at(self, inputs: Mapping[str, Array]) -> Program:
        """The program that remains once some of the free inputs are known; what depends on them alone is computed here.

        Args:
            inputs: arrays by name, of the arithmetic or float64; names of free inputs.

        Raises:
            KeyError: a name is not a free input.
            ValueError: an input has another shape than the one recorded.
            Undecided: a comparison of balls cannot be decided.
        """
        unknown = sorted(set(inputs) - set(self.free))
        if unknown:
            raise KeyError(f"the free inputs are {', '.join(self.free) or 'none'}; given was {unknown[0]!r}")
        values = dict(self._start)
        for name, array in inputs.items():
            number, kind = self._inputs[name]
            values[number] = self._entered(array, kind, name)
        rest = copy(self)
        rest._steps = self._folded(self._steps, values)
        needed = {place for step in rest._steps for place in step.reads}.union(self._results.values())
        rest._start = {place: value for place, value in values.items() if place in needed}
        rest._inputs = {name: entry for name, entry in self._inputs.items() if name not in inputs}
        rest.free = tuple(rest._inputs)
        return rest

    def _folded(self, steps: list[_Step], values: dict[int, Any]) -> list[_Step]:
        """Evaluate, into `values`, the steps that read nothing else; return the others."""
        left: list[_Step] = []
        for step in steps:
            if all(place in values for place in step.reads):
                values[step.number] = self._evaluate(step, values)
            else:
                left.append(step)
        return left

    @property
    def known(self) -> dict[str, Array]:
        """The outputs that depend on no free input, by name."""
        return {name: self._start[number] for name, number in self._results.items() if number in self._start}

    def _step(self, number: int, node: Node, same: Mapping[int, int]) -> _Step:
        refs = {old: Ref(new) for old, new in same.items()}
        arguments = [self._exact(substituted(item, refs)) for item in node.arguments]
        options = {key: self._exact(substituted(item, refs)) for key, item in node.options.items()}
        reads = [same[ref.value] for ref in references(node)]
        rule = None if node.operation == "getitem" else rule_for(node.operation, node.location)
        return _Step(number, node, rule, arguments, options, reads)

    def _entered(self, values: Any, kind: TensorType, name: str) -> Any:
        array = np.asarray(values)
        if array.shape != kind.shape:
            raise ValueError(f"the input {name} has shape {array.shape}; the graph was recorded at {kind.shape}")
        if kind.is_complex:
            parts = (self.ops.convert(np.ascontiguousarray(part)) for part in (np.real(array), np.imag(array)))
            return _frozen(Complex(*parts))
        if not kind.is_real or array.dtype == object or array.dtype == np.longdouble:
            return _frozen(array.copy())
        return _frozen(self.ops.convert(array))

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
        for name, (number, kind) in self._inputs.items():
            values[number] = self._entered(inputs[name], kind, name)
        for step in self._steps:
            values[step.number] = self._evaluate(step, values)
            for place in step.drops:
                del values[place]
        return {name: values[number] for name, number in self._results.items()}

    def _evaluate(self, step: _Step, values: Mapping[int, Any]) -> Any:
        arguments = [
            values[item.value] if type(item) is Ref else substituted(item, values) if type(item) is list else item
            for item in step.arguments
        ]
        if step.rule is None:
            item = arguments[0][arguments[1]]
            if isinstance(item, Undecided):
                raise item
            return item
        options = step.options and {key: substituted(item, values) for key, item in step.options.items()}
        if isinstance(self.ops, FollowsNodes):
            self.ops.at_node(step.number - self.graph.first_node)
        if has_complex(arguments) or has_complex(options):
            operation, location = step.node.operation, step.node.location
            family = family_of(operation)
            result = complex_result(self.ops, operation, location, step.rule, family, arguments, options)
        else:
            result = self._carried_out(step, arguments, options)
            kind = step.node.outputs[0] if step.node.outputs else None
            if kind is not None and kind.is_complex and isinstance(result, np.ndarray):
                result = as_complex(self.ops, result)
        outputs = result if isinstance(result, tuple) else (result,)
        for output, kind in zip(outputs, step.node.outputs, strict=False):
            if isinstance(output, np.ndarray) and kind is not None and output.shape != kind.shape:
                raise ShapeError(
                    f"the rule of {step.node.operation} gave shape {output.shape} where torch recorded {kind.shape}; "
                    "correct the registered rule"
                )
        return _frozen(result)

    def _carried_out(self, step: _Step, arguments: list[Any], options: dict[str, Any]) -> Any:
        assert step.rule is not None
        try:
            return step.rule(self.ops, *arguments, **options)
        except (Undecided, UnsupportedOperationError, ShapeError):
            raise
        except Exception as error:
            # A rule that does not know these arguments is no rule for them.
            raise UnsupportedOperationError(
                step.node.operation, step.node.location, f"{type(error).__name__}: {error}"
            ) from error

    def _exact(self, item: Any) -> Any:
        return exact_number(self.ops, item) if isinstance(item, Exact) else item


def _frozen(value: Any) -> Any:
    if isinstance(value, Complex):
        _frozen((value.real, value.imaginary))
        return value
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, np.ndarray):
            item.flags.writeable = False
    return value


FAMILIES: tuple[str, ...] = _operations.FAMILIES
"""The modules of rules, one for each family of operations."""
