"""What is to be certified: a function, a start and args, from a factory or as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from verify.users_module import import_users_module


class SourceError(ValueError):
    """What was given cannot be turned into (function, z0, args); the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """A function f(z, args), a start and args, and the name under which they were found.

    Attributes:
        name: "module:factory", or what the function calls itself.
        function: callable of (z, args).
        z0: start, a floating tensor or a pytree of them.
        args: any pytree.
    """

    name: str
    function: Callable[..., Any]
    z0: Any
    args: Any


def source_from(given: str | Callable[[], Any] | tuple[Callable[[Any, Any], Any], Any, Any]) -> Source:
    """Load "module:factory", call a factory, or take a triple as it is.

    Args:
        given: "package.module:factory", a callable without arguments that returns (function, z0, args), or that triple.

    Raises:
        SourceError: the module or the factory is missing, the factory raises or returns something else, z0 has no
            floating tensor.
    """
    if isinstance(given, str):
        return _checked(given, _call(given, _load(given)))
    if isinstance(given, tuple):
        return _checked("the given function", given)
    if not callable(given):
        raise SourceError(
            f"{given!r} cannot be certified; give 'module:factory', a factory, or a triple (function, z0, args)"
        )
    name = getattr(given, "__qualname__", type(given).__name__)
    return _checked(name, _call(name, given))


def _load(path: str) -> Callable[[], Any]:
    module_name, separator, factory_name = path.partition(":")
    if not separator or not module_name or not factory_name:
        raise SourceError(f"{path!r} does not name a factory; write MODULE:FACTORY, such as my_package.model:make_cell")
    try:
        module = import_users_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not (module_name + ".").startswith(error.name + "."):
            raise SourceError(
                f"the module {module_name} was found but needs {error.name}, which is not installed"
            ) from error
        raise SourceError(
            f"there is no module {module_name}; run from the folder that holds it, or install its package"
        ) from error
    except Exception as error:
        raise SourceError(f"importing {module_name} raised {type(error).__name__}: {error}") from error
    if not hasattr(module, factory_name):
        near = [name for name in vars(module) if not name.startswith("_") and callable(getattr(module, name))]
        raise SourceError(
            f"the module {module_name} has no {factory_name}; it has {', '.join(sorted(near)[:8]) or 'no functions'}"
        )
    factory = getattr(module, factory_name)
    if not callable(factory):
        raise SourceError(
            f"{path} is {type(factory).__name__}; a factory is a function that returns (function, z0, args)"
        )
    return factory


def _call(name: str, factory: Callable[[], Any]) -> Any:
    try:
        return factory()
    except Exception as error:
        raise SourceError(
            f"the factory {name} raised {type(error).__name__}: {error}; it is called without arguments and must "
            "return (function, z0, args)"
        ) from error


def _checked(name: str, given: Any) -> Source:
    if not isinstance(given, tuple) or len(given) != 3:
        what = f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__
        raise SourceError(f"{name} gives {what}; it must give the triple (function, z0, args)")
    function, z0, args = given
    if not callable(function):
        raise SourceError(
            f"the function of {name} is {type(function).__name__}; it must be callable as function(z, args)"
        )
    leaves = tree_leaves(z0)
    if not leaves or not all(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves):
        raise SourceError(f"z0 of {name} is not a floating tensor or a pytree of them; give the start of the iteration")
    return Source(name, function, z0, args)


def first_samples(source: Source, samples: int) -> Source:
    """The same source on the first samples of its batch: tensors of z0 and args with the batch in front are cut.

    Raises:
        SourceError: z0 is not one tensor with the batch in front.
    """
    if not isinstance(source.z0, torch.Tensor) or source.z0.ndim < 2:
        raise SourceError("a sub-batch needs one state tensor with the batch in front")
    batch = source.z0.shape[0]

    def cut(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.ndim >= 1 and leaf.shape[0] == batch:
            return leaf[:samples].detach().clone()
        return leaf

    return Source(source.name, source.function, cut(source.z0), tree_map(cut, source.args))
