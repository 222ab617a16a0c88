"""What a function that is traced may not do: return something else than a state, or draw random numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from verify.reference.graph.errors import RandomOperationError, WrongReturnError
from verify.reference.graph.graph import Graph


def refuse_other_return(outputs: list[Any], spec: Any, state: list[torch.Tensor], z_spec: Any) -> None:
    """Raise `WrongReturnError` where a function returned something else than what z0 looks like."""
    if spec != z_spec:
        raise WrongReturnError("the function's result has another structure than z0; return what z0 looks like")
    for output, leaf in zip(outputs, state, strict=True):
        if not isinstance(output, torch.Tensor):
            raise WrongReturnError(f"the function returns {type(output).__name__}; return a tensor for every one of z0")
        if output.shape != leaf.shape:
            raise WrongReturnError(
                f"the function returns shape {tuple(output.shape)} for a state of shape {tuple(leaf.shape)}; "
                "an equilibrium needs the same shape"
            )
        if not output.is_floating_point():
            raise WrongReturnError(f"the function returns {output.dtype}; return a floating tensor")


def refuse_random(graphs: Iterable[Graph]) -> None:
    """Raise `RandomOperationError` where a graph draws random numbers."""
    for graph in graphs:
        for node in graph.nodes:
            namespace, name, overload = node.operation.split(".") if node.operation.count(".") == 2 else ("", "", "")
            if not namespace:
                continue
            if name == "rrelu_with_noise_functional" and True not in (
                *node.arguments[4:],
                node.options.get("training"),
            ):
                continue
            operation: Any = getattr(getattr(getattr(torch.ops, namespace), name), overload)
            if torch.Tag.nondeterministic_seeded in operation.tags:
                where = f" at {node.location}" if node.location else ""
                raise RandomOperationError(
                    f"the function draws random numbers ({node.operation}{where}), so it is not one map; put the "
                    "module into evaluation mode with .eval(), or pass the random tensor in through args"
                )
