"""What can go wrong on the way from a Python function to a graph, one sentence each."""

from __future__ import annotations


class TracingError(ValueError):
    """The function cannot be recorded as one fixed graph; the message says why and what to do."""


class DataDependentError(TracingError):
    """The function's control flow or a shape depends on the values of tensors.

    Args:
        location: where in the user's source, or "".
    """

    def __init__(self, location: str) -> None:
        super().__init__(
            f"control flow or a shape depends on the values of tensors{f' at {location}' if location else ''}, so the "
            "function is not one graph; use torch.where, or masks of fixed shape, in place of if, .item() or boolean "
            "indexing"
        )


class RandomOperationError(TracingError):
    """The function draws random numbers, so it is not one map and has no fixed point."""


class WrongReturnError(TracingError):
    """The function does not return what z looks like."""


class UnsupportedOperationError(NotImplementedError):
    """An operation occurs for which the interpreter has no rule.

    Attributes:
        operation: the operation's name, such as "aten.cumprod.default".
        location: where it stands in the user's source, or "".
    """

    def __init__(self, operation: str, location: str, why: str = "") -> None:
        self.operation = operation
        self.location = location
        where = f" at {location}" if location else " in the derivative of the function"
        lacks = f"has no rule for such arguments ({why})" if why else "has no rule in the interpreter"
        super().__init__(
            f"the operation {operation}{where} {lacks}; write one and register it with "
            f'@verify.reference.graph.register("{operation}") on a function (ops, *arguments, **options) -> array, or '
            "write the function with covered operations (verify.reference.graph.operation_table() lists them)"
        )
