"""The tensors that f reads: those passed to it, and the leaves behind a value of it."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def tensors_in(args: Any) -> list[Tensor]:
    """The tensors among args."""
    if isinstance(args, Tensor):
        return [args]
    values = cast("list[Any]", list(args.values() if isinstance(args, dict) else args))
    return [x for x in values if isinstance(x, Tensor)]


def leaves_behind(value: Tensor) -> list[Tensor]:
    """The leaf tensors that a value's graph accumulates into."""
    found: dict[int, Tensor] = {}
    seen: set[Any] = set()
    waiting: list[Any] = [value.grad_fn] if value.grad_fn is not None else []
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        waiting += [following for following, _ in node.next_functions if following is not None]
    return list(found.values())
