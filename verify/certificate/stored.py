"""The problem that a run in a dtype really poses: values rounded to it, and the constants that f takes from it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from verify.certificate.source import Source
from verify.reference.graph import Graph, Traced, TracingError, trace
from verify.reference.graph.capture import Substitution, captured_tensors
from verify.reference.graph.conversion import exact_values


def cast(tensor: Any, dtype: torch.dtype | None, device: str = "cpu") -> Any:
    """A tensor on the device, a floating one in the dtype if one is given; anything else as it is."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    return tensor.detach().to(device=device, dtype=dtype if dtype and tensor.is_floating_point() else tensor.dtype)


@contextmanager
def held(
    tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None, device: str, wanted: Collection[str]
) -> Generator[None]:
    """The user's own tensors in another dtype or on another device for a while, as `module.to` would put them.

    So a function runs with the kernels that it has there: nothing stands between it and torch.

    Args:
        tensors: by name.
        dtype: of the floating ones; None leaves each its own.
        device: where they are to be.
        wanted: names of those that are to require grad.
    """
    before = [(name, tensor, tensor.data, tensor.requires_grad) for name, tensor in tensors.items()]
    try:
        for name, tensor, data, required in before:
            tensor.data = cast(data, dtype, device)
            if name in wanted and not required:
                tensor.requires_grad_()
        yield
    finally:
        for _, tensor, data, required in before:
            tensor.data = data
            if tensor.is_leaf:
                tensor.requires_grad_(required)


def as_stored_in(source: Source, traced: Traced, dtype: torch.dtype | None) -> Traced:
    """The recorded function at the values that the dtype holds, recorded anew where f takes constants from the dtype.

    `nn.RMSNorm` without an eps, for one, takes that of the dtype, so it is another function in float64 than in float32.

    Args:
        source: function, start and args as the user has them.
        traced: the same, recorded.
        dtype: of everything floating; None leaves each tensor in its own.

    Returns:
        `traced` itself where nothing changes.
    """
    values = {name: cast(tensor, dtype) for name, tensor in traced.values.items()}
    if all(values[name].dtype == tensor.dtype for name, tensor in traced.values.items()):
        return traced
    again = _recorded_in(source, traced, dtype, with_backward=False)
    if again is not None and set(_numbers(again.forward)) != set(_numbers(traced.forward)):
        again = _recorded_in(source, traced, dtype, with_backward=True)
        if again is not None:
            return replace(again, values=values)
    if all(np.array_equal(exact_values(values[name]), exact_values(traced.values[name])) for name in values):
        return traced
    return replace(traced, values=values)


def _recorded_in(source: Source, traced: Traced, dtype: torch.dtype | None, *, with_backward: bool) -> Traced | None:
    """The function recorded in the dtype, inputs named as before; None where it cannot be, which its run will say."""
    captured = captured_tensors(source.function, tree_map(torch.clone, source.z0), source.args)
    pairs = [(tensor, cast(tensor, dtype).clone().requires_grad_(tensor.requires_grad)) for tensor in captured.values()]

    def function(z: Any, args: Any) -> Any:
        with Substitution(pairs):
            return source.function(z, args)

    def moved(leaf: Any) -> Any:
        return cast(leaf, dtype)

    try:
        z0, args = tree_map(moved, source.z0), tree_map(moved, source.args)
        again = trace(function, z0, args, with_backward=with_backward)
    except TracingError:
        return None
    if len(again.values) != len(traced.values):
        return None
    names = dict(zip(again.values, traced.values, strict=True))
    return Traced(
        _renamed(again.forward, names),
        again.backward and _renamed(again.backward, names),
        traced.values,
        traced.state,
        tuple(names[leaf] for leaf in again.leaves),
        again.casts,
        again.cuts,
        again.no_backward,
    )


def _renamed(graph: Graph, names: dict[str, str]) -> Graph:
    inputs = tuple(replace(entry, name=names.get(entry.name, entry.name)) for entry in graph.inputs)
    return replace(graph, inputs=inputs, output_names=tuple(names.get(name, name) for name in graph.output_names))


def _numbers(graph: Graph) -> Iterator[float]:
    for node in graph.nodes:
        stack: list[Any] = [*node.arguments, *node.options.values()]
        while stack:
            item = stack.pop()
            if isinstance(item, float):
                yield item
            elif isinstance(item, (list, tuple)):
                stack.extend(item)
