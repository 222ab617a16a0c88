"""Which tensors a function reads besides its inputs, what they are called, and how to put others in their place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]
from torch.utils._pytree import tree_iter, tree_map_only


class Recording(TorchFunctionMode):
    """Remembers every tensor that enters a torch function and was neither given nor made inside the block.

    Args:
        given: tensors that the function receives as inputs.
    """

    def __init__(self, given: list[torch.Tensor]) -> None:
        super().__init__()
        self._known = {id(tensor): tensor for tensor in given}
        self.captured: list[torch.Tensor] = []
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            tensor = unwrapped(tensor)
            if id(tensor) not in self._known:
                self._known[id(tensor)] = tensor
                self.captured.append(tensor)
                self._before.append((tensor, tensor.detach().clone()))
        result = func(*args, **kwargs)
        # The references keep the tensors alive, so an id is never met again on another tensor.
        self._known.update({id(tensor): tensor for made in _tensors(result) for tensor in (made, unwrapped(made))})
        return result

    def restore(self) -> list[torch.Tensor]:
        """Undo what the function wrote into captured tensors, and say which ones it wrote into."""
        # By value: some kernels, batch norm's among them, write without counting the tensor's version up.
        written = [pair for pair in self._before if not _equal(*pair)]
        with torch.no_grad():
            for tensor, copy in written:
                tensor.copy_(copy)
        return [tensor for tensor, _ in written]


def unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor that a transformation of torch.func works on."""
    functorch: Any = torch._C._functorch  # type: ignore[attr-defined]
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def _equal(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Equal in every number, a NaN being equal to itself."""
    if tensor.layout != torch.strided:
        tensor, copy = tensor.to_dense(), copy.to_dense()
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return torch.equal(tensor, copy)
    return bool(torch.all((tensor == copy) | ((tensor != tensor) & (copy != copy))))


_INDEXING = frozenset({torch.Tensor.__getitem__, torch.Tensor.__setitem__})


def _is_constant(tensor: torch.Tensor) -> bool:
    """Whether a tensor of integers or bools has its values at hand while a function is recorded."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    return plain and not (tensor.is_floating_point() or tensor.is_complex())


def is_of_constants(given: Any) -> bool:
    """Whether an operation has tensors, and all of them are constants."""
    tensors = list(_tensors(given))
    return bool(tensors) and all(_is_constant(tensor) for tensor in tensors)


def _as_numbers(index: Any) -> Any:
    """An index with constant masks written as the numbers of the places that they choose."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(isinstance(part, torch.Tensor) and part.dtype == torch.bool and _is_constant(part) for part in parts):
        return index
    written: list[Any] = []
    with _disable_current_modes():
        for part in parts:
            mask = isinstance(part, torch.Tensor) and part.dtype == torch.bool and _is_constant(part)
            written += part.nonzero(as_tuple=True) if mask else [part]
    return tuple(written)


class Substitution(TorchFunctionMode):
    """Hands other tensors to every torch function in place of given ones: the same function at other captured values.

    Args:
        pairs: what stands in for what, as (original, replacement).
        before: called before every torch function, with it and its arguments.
    """

    def __init__(
        self,
        pairs: list[tuple[torch.Tensor, torch.Tensor]],
        before: Callable[[Callable[..., Any], Any], None] | None = None,
    ) -> None:
        super().__init__()
        self._before = before
        self._originals = [original for original, _ in pairs]
        self._replacements = {id(original): replacement for original, replacement in pairs}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        def replacement(tensor: torch.Tensor) -> torch.Tensor:
            return self._replacements.get(id(tensor), tensor)

        if is_of_constants((args, kwargs)):
            # Masks and indices stay what they are, so that shapes may depend on them.
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        options: dict[str, Any] = tree_map_only(torch.Tensor, replacement, kwargs or {})
        given = tree_map_only(torch.Tensor, replacement, args)
        if func is torch.sparse.mm:
            # A sparse constant is given as what it means.
            func = torch.mm
        if func in _INDEXING:
            given = (given[0], _as_numbers(given[1]), *given[2:])
        if self._before is not None:
            self._before(func, given)
        return func(*given, **options)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor))


def names_of_tensors(function: Callable[..., Any]) -> dict[int, str]:
    """Names for the tensors that can be reached from a function, by id.

    Looks at a module itself, at the object that a method is bound to, at what `functools.partial` holds, and at closure
    variables; parameters and buffers of a module become "parameters.<name>" and "buffers.<name>", other tensors
    "captured.<variable>".
    """
    names: dict[int, str] = {}
    seen: set[int] = set()

    def visit(item: Any, prefix: str) -> None:
        if id(item) in seen:
            return
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            names.setdefault(id(item), f"captured.{prefix}" if prefix else "captured")
        elif isinstance(item, torch.nn.Module):
            dotted = f"{prefix}." if prefix else ""
            for name, parameter in item.named_parameters():
                names.setdefault(id(parameter), f"parameters.{dotted}{name}")
            for name, buffer in item.named_buffers():
                names.setdefault(id(buffer), f"buffers.{dotted}{name}")
        elif isinstance(item, functools.partial):
            visit(item.func, prefix)
            visit(list(item.args), prefix)
            visit(item.keywords, prefix)
        elif inspect.ismethod(item):
            visit(item.__self__, prefix)
        elif inspect.isfunction(item):
            for name, value in _variables(item).items():
                visit(value, f"{prefix}.{name}" if prefix else name)
        elif isinstance(item, Mapping):
            for key, value in item.items():
                visit(value, f"{prefix}.{key}" if prefix else str(key))
        elif isinstance(item, (list, tuple)):
            for index, value in enumerate(item):
                visit(value, f"{prefix}.{index}" if prefix else str(index))

    visit(function, "")
    return names


def _variables(function: Any) -> dict[str, Any]:
    found = inspect.getclosurevars(function)
    return {**found.globals, **found.nonlocals}


class CapturedTensorChangedError(ValueError):
    """The function writes into a tensor that it captured, so it is not one and the same map at every call."""


def captured_tensors(function: Callable[..., Any], z: Any, args: Any) -> dict[str, torch.Tensor]:
    """Every tensor that f(z, args) reads besides z and args, by name, found by calling it once.

    What the call writes into captured tensors and torch's random state is undone.

    Args:
        function: called as function(z, args).
        z: state, a pytree of tensors.
        args: a pytree.

    Returns:
        Tensors in the order of their first use; "captured.<number>" where no name is found.

    Raises:
        CapturedTensorChangedError: the function writes into a captured tensor (batch norm in training mode does).
    """
    with torch.random.fork_rng(devices=[]), Recording([*_tensors(z), *_tensors(args)]) as recording:
        function(z, args)
    written = recording.restore()
    names = names_of_tensors(function)
    if written:
        listed = ", ".join(names.get(id(tensor), "a captured tensor") for tensor in written)
        raise CapturedTensorChangedError(
            f"the function writes into {listed} while it runs, so it is a different map at every call; "
            "put the module into evaluation mode with .eval(), or leave the buffer alone"
        )
    result: dict[str, torch.Tensor] = {}
    for tensor in recording.captured:
        name = names.get(id(tensor), f"captured.{len(result)}")
        result[name if name not in result else f"{name}.{len(result)}"] = tensor
    return result
