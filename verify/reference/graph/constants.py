"""Numbers that torch's derivative formulas round, put back as what they are.

The derivative of erf holds 2 / sqrt(pi), that of log2 holds log 2, that of var holds 2 / (n - 1), that of x^p holds
p - 1; torch computes each in float64 and records the rounded number. Left alone it would make the gradient of the
function of real numbers wrong by 1e-17. Only numbers in the graph of the derivative are looked at, and only those that
the function itself does not contain, as an argument or as an argument's default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch

from verify.reference.graph.graph import Exact, Graph, Node


_SYMBOLS = {
    2.0 / math.sqrt(math.pi): "2/sqrt(pi)",
    0.5 * math.sqrt(math.pi): "sqrt(pi)/2",
    math.log(2.0): "log(2)",
    math.log(10.0): "log(10)",
    2.3025850929940455: "log(10)",  # torch's literal, one unit below the nearest
}

LARGEST_DENOMINATOR = 2**20
"""Counts of elements do not exceed this, and few float64 numbers round a fraction below it by accident (1 in 10^4)."""


def with_exact_constants(derivative: Graph, function: Graph) -> Graph:
    """The graph of a derivative with its rounded constants replaced by exact ones.

    Args:
        derivative: graph of the VJP.
        function: graph of the function; a number that occurs in it is the user's and stays as it is.
    """
    own = {value for node in function.nodes for value in (*_numbers(node), *_default_numbers(node.operation))}

    def exact(value: float) -> Any:
        if value in own or not math.isfinite(value):
            return value
        size, sign = abs(value), -1 if value < 0 else 1
        if size in _SYMBOLS:
            return Exact(_SYMBOLS[size], sign, 1)
        for base in own:
            # The derivative of x^p multiplies by p x^(p - 1), with p - 1 rounded.
            if base - 1.0 == value:
                return _fraction(Fraction(base) - 1, value)
        return _fraction(Fraction(size).limit_denominator(LARGEST_DENOMINATOR) * sign, value)

    nodes = tuple(
        node
        if node.location
        else Node(
            node.operation,
            tuple(_replaced(item, exact) for item in node.arguments),
            {key: _replaced(item, exact) for key, item in node.options.items()},
            node.outputs,
            node.location,
        )
        for node in derivative.nodes
    )
    return Graph(derivative.inputs, derivative.constants, nodes, derivative.outputs, derivative.output_names)


def _fraction(fraction: Fraction, value: float) -> Any:
    fits = max(abs(fraction.numerator), fraction.denominator) < 2**63
    if not fits or fraction == Fraction(value) or float(fraction) != value:
        return value
    return Exact("", fraction.numerator, fraction.denominator)


def _numbers(node: Node) -> Iterator[float]:
    stack: list[Any] = [*node.arguments, *node.options.values()]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            yield item
        elif isinstance(item, list):
            stack.extend(item)


def _default_numbers(operation: str) -> Iterator[float]:
    """The floating defaults of an operation's arguments, which torch leaves out of the record."""
    if operation.count(".") != 2:
        return
    target: Any = torch.ops
    for part in operation.split("."):
        target = getattr(target, part)
    for argument in target._schema.arguments:
        if argument.has_default_value() and isinstance(argument.default_value, (int, float)):
            yield float(argument.default_value)


def _replaced(item: Any, exact: Any) -> Any:
    if isinstance(item, float):
        return exact(item)
    if isinstance(item, list):
        return [_replaced(part, exact) for part in item]
    return item
