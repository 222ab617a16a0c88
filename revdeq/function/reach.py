"""What a callable can reach without being called: by modules, closure, defaults, bound object and globals by name."""

import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple, cast

import torch
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize


def is_materialised(function: Any) -> bool:
    """Return whether no module that a callable reaches is lazy still."""
    return not any(is_lazy(t) for module in Reach.of(function).modules for t in module.parameters())


def fill_parametrisation_cache(function: Any) -> None:
    """Make the parametrised tensors that a callable reaches, where `parametrize.cached` is active.

    Made in an evaluation of f, they would belong to its graph, and to that of every later one.
    """
    if not parametrize._cache_enabled:  # pyright: ignore[reportPrivateUsage]
        return
    for module in Reach.of(function).modules:
        for layer in module.modules():
            if parametrize.is_parametrized(layer):
                for name in cast(torch.nn.ModuleDict, layer.parametrizations):
                    getattr(layer, name)


class Reach(NamedTuple):
    """What a callable can reach by modules, closure, defaults, partial arguments, bound object, and globals by name.

    Attributes:
        statistics: running statistics of normalisation layers in training mode.
        modules: the modules that are reached first; their submodules count with them.
    """

    statistics: list[torch.Tensor]
    modules: list[torch.nn.Module]

    @staticmethod
    def of(function: Any) -> "Reach":
        """Search a callable."""
        reach = Reach([], [])
        pending: list[Any] = [function, *_attributes(function)]
        visited: set[int] = set()
        while pending:
            item = pending.pop()
            if id(item) in visited:
                continue
            visited.add(id(item))
            if isinstance(item, torch.nn.Module):
                reach.modules.append(item)
                reach.statistics.extend(_statistics(item))
            elif isinstance(item, FunctionType):
                pending.extend(_closure(item))
            elif isinstance(item, MethodType):
                pending += [item.__func__, item.__self__, *_attributes(item.__self__)]
            elif isinstance(item, functools.partial):
                pending += [item.func, *item.args, *item.keywords.values()]
            elif isinstance(item, tuple | list | dict) and len(item) <= _LONGEST:
                pending.extend(item.values() if isinstance(item, dict) else item)
        return reach


def _statistics(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    for layer in module.modules():
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats:
            yield from layer.buffers(recurse=False)


# Longer containers are taken for data: looking through them at every solve would cost more than the solve.
_LONGEST = 256


def _attributes(item: Any) -> list[Any]:
    """Return the attributes of an object that is neither a module nor a function nor a class."""
    if isinstance(item, torch.nn.Module | FunctionType | MethodType | functools.partial | type):
        return []
    return list(getattr(item, "__dict__", {}).values())


def _closure(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is not filled yet holds nothing to read
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for name in _names(function.__code__):
        if name in function.__globals__:
            value = function.__globals__[name]
            # Functions and classes of other modules would open the whole library.
            if isinstance(value, torch.Tensor | torch.nn.Module | tuple | list | dict):
                yield value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
