"""The rules of the interpreter, by the name of the ATen operation, and the one way to add a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from verify.reference.graph.errors import UnsupportedOperationError


Rule = Callable[..., Any]
"""rule(ops, *arguments, **options) -> array, or a tuple of arrays for an operation with several outputs.

`ops` is the arithmetic (verify.reference.arithmetic.Arithmetic). Real tensors arrive as the arithmetic's arrays,
integer and bool tensors as numpy arrays of those dtypes, everything else as the Python value that torch recorded. A
rule uses nothing but the methods of `ops` and numpy's shape operations, so that it means the same in every arithmetic.
"""

_RuleT = TypeVar("_RuleT", bound=Rule)


@dataclass(frozen=True)
class Registration:
    """A rule, the family that it belongs to (its module's name), and its first line of documentation."""

    operation: str
    rule: Rule
    family: str
    summary: str


_registrations: dict[str, Registration] = {}


def register(*operations: str, replace: bool = False) -> Callable[[_RuleT], _RuleT]:
    """Register a rule for ATen operations, as a decorator.

        @register("aten.cumprod.default")
        def cumprod(ops, x, dim): ...

    Args:
        operations: full names with overload, such as "aten.add.Tensor".
        replace: allow a rule that is there already to be replaced.

    Raises:
        TypeError: no operation is named.
        ValueError: an operation has a rule already and replace is False, or its name is not namespace.name.overload.
    """
    if not operations:
        raise TypeError('register needs at least one operation, such as register("aten.cumprod.default")')

    def decorate(rule: _RuleT) -> _RuleT:
        for operation in operations:
            if operation.count(".") != 2:
                raise ValueError(f"{operation!r} is not a full name; write namespace.name.overload, as aten.add.Tensor")
            if operation in _registrations and not replace:
                raise ValueError(f"{operation} has a rule already; pass replace=True to put another in its place")
            summary = (rule.__doc__ or "").strip().split("\n")[0]
            _registrations[operation] = Registration(operation, rule, rule.__module__.rpartition(".")[2], summary)
        return rule

    return decorate


def unregister(operation: str) -> Rule:
    """Take an operation's rule away and return it.

    Raises:
        UnsupportedOperationError: there is none.
    """
    if operation not in _registrations:
        raise UnsupportedOperationError(operation, "")
    return _registrations.pop(operation).rule


def rule_for(operation: str, location: str = "") -> Rule:
    """The rule of an operation.

    Raises:
        UnsupportedOperationError: there is none.
    """
    if operation not in _registrations:
        raise UnsupportedOperationError(operation, location)
    return _registrations[operation].rule


def family_of(operation: str) -> str:
    """The family of an operation with a rule."""
    return _registrations[operation].family


def is_covered(operation: str) -> bool:
    """Whether an operation has a rule."""
    return operation in _registrations


def covered_operations() -> tuple[str, ...]:
    """The names of all operations with a rule, sorted."""
    return tuple(sorted(_registrations))


def operation_table() -> str:
    """All covered operations as a Markdown table: operation, family, what the rule computes."""
    rows = [_registrations[name] for name in covered_operations()]
    lines = ["| operation | family | rule |", "|---|---|---|"]
    lines += [f"| `{row.operation}` | {row.family} | {row.summary.replace('|', chr(92) + '|')} |" for row in rows]
    return "\n".join(lines) + "\n"
