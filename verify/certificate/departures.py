"""The first operation whose result in torch is further off than rounding explains: each is held to what it was given.

f and its pullback are run by torch as they are. What every ATen operation was given is taken exactly and put through
the interpreter's rule in balls of the precision in which its kernel computes, which enclose whatever an evaluation
gives whose elementary results are that good. So what is found is the fault of one operation, and not what sensitive
functions make of the rounding before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from verify.certificate.source import Source
from verify.certificate.stored import held
from verify.certificate.torch_run import own_tensors
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.balls import Balls
from verify.reference.graph import Traced
from verify.reference.graph.conversion import dtype_name, exact_values
from verify.reference.graph.registry import is_covered, rule_for


KERNEL_BITS = {torch.float64: 48, torch.float32: 19, torch.bfloat16: 19, torch.float16: 19}
"""Elementary results of a kernel are right to 32 units of what it computes in: 16-bit kernels compute in float32."""

SUMS = ("mm.", "bmm.", "mv.", "dot.", "addmm.", "baddbmm.", "addmv.", "convolution.")
"""Whose sums the rules take without rounding each term."""

_OURS = (str(Path(__file__).resolve().parents[2] / "verify"), str(Path(torch.__file__).parent), "<")


@dataclass(frozen=True)
class Departure:
    """An operation whose result is not what rounding makes of what it was given.

    Attributes:
        operation: such as "aten.tanh.default".
        module: the innermost module whose forward was running, by its name in f, or "" outside one.
        location: line of the user's source, or "" in the derivative.
        error: of the component that is furthest off, relative to the greatest of the result.
        allowed: for it.
    """

    operation: str
    module: str
    location: str
    error: float
    allowed: float

    def __str__(self) -> str:
        """A clause that names it."""
        where = f" in the module {self.module}" if self.module else ""
        line = f" at {self.location}" if self.location else "" if self.module else " in the derivative"
        return (
            f"{self.operation}{where}{line} is off by {self.error:.1e} of its greatest number, where rounding explains "
            f"{self.allowed:.1e}"
        )


@dataclass(frozen=True)
class Search:
    """What was looked at.

    Attributes:
        first: the first departure, or None.
        checked, unchecked: how many operations could and could not be held to a rule.
    """

    first: Departure | None
    checked: int
    unchecked: int


class _Watch(TorchDispatchMode):
    def __init__(self, modules: list[str]) -> None:
        super().__init__()
        self.modules, self.found = modules, Search(None, 0, 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        options = dict(kwargs or {})
        # An operation may write into what it was given.
        before, named = tree_map(_copied, (args, options))
        result = func(*args, **options)
        if self.found.first is None:
            self._hold(str(func), before, named, result)
        return result

    def _hold(self, name: str, args: tuple[Any, ...], options: dict[str, Any], result: Any) -> None:
        outputs = [one for one in (result if isinstance(result, (tuple, list)) else (result,)) if _is_real(one)]
        if not outputs or not any(output.numel() for output in outputs):
            return
        found = self.found
        offs = _offs(name, args, options, outputs) if is_covered(name) else None
        if offs is None:
            self.found = replace(found, unchecked=found.unchecked + 1)
            return
        self.found = replace(found, checked=found.checked + 1)
        for error, allowed in offs:
            if not error <= allowed:
                self.found = replace(
                    self.found, first=Departure(name, self.modules[-1] if self.modules else "", _line(), error, allowed)
                )
                return


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def _started(leaf: torch.Tensor) -> torch.Tensor:
    return leaf.detach().clone().requires_grad_()


def _is_real(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in KERNEL_BITS


def _offs(
    name: str, args: tuple[Any, ...], options: dict[str, Any], outputs: list[torch.Tensor]
) -> list[tuple[float, float]] | None:
    """(error, allowed) of the worst component of every output; None where the rule cannot say."""
    dtype = outputs[0].dtype
    exact, rough = Balls(128), Balls(KERNEL_BITS[dtype])
    try:
        truths = _applied(exact, name, args, options, exact_values)
        wide = _applied(rough, name, args, options, exact_values)
        sizes = None
        if name.removeprefix("aten.").startswith(SUMS):
            sizes = _applied(exact, name, args, options, lambda leaf: np.abs(exact_values(leaf)))
    except (Undecided, NotImplementedError, TypeError, ValueError):
        return None
    terms = max((leaf.numel() for leaf in args if isinstance(leaf, torch.Tensor)), default=1)
    offs: list[tuple[float, float]] = []
    for place, output in enumerate(outputs):
        got = exact_values(output).ravel()
        truth = exact.to_float64(truths[place]).ravel()
        allowed = np.array([2 * float(ball.rad()) for ball in wide[place].ravel().tolist()])
        if sizes is not None:
            allowed = allowed + terms * 2.0 ** -KERNEL_BITS[dtype] * exact.to_float64(sizes[place]).ravel()
        # What the kernel has computed is rounded to the result's dtype once.
        allowed = allowed + torch.finfo(output.dtype).eps * np.abs(truth) + torch.finfo(output.dtype).tiny
        offs.append(_worst(got, truth, allowed))
    return offs


def _worst(got: NDArray[Any], truth: NDArray[Any], allowed: NDArray[Any]) -> tuple[float, float]:
    """(error, allowed) of the component that is furthest above what is allowed, over the greatest of the truth."""
    known = np.isfinite(truth) & np.isfinite(allowed)
    if not known.any():
        return 0.0, 0.0
    errors, allowed = np.abs(got - truth)[known], allowed[known]
    place = int(np.argmax(np.where(np.isfinite(errors), errors - allowed, np.inf)))
    greatest = float(np.max(np.abs(truth[known]))) or 1.0
    return float(errors[place]) / greatest, float(allowed[place]) / greatest


def _applied(
    ops: Balls, name: str, args: tuple[Any, ...], options: dict[str, Any], read: Callable[[torch.Tensor], Any]
) -> list[Any]:
    def entered(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return ops.convert(exact_values(leaf) * 0 + read(leaf)) if leaf.is_floating_point() else exact_values(leaf)
        return dtype_name(leaf) if isinstance(leaf, torch.dtype) else leaf

    placed, named = tree_map(entered, (args, options))
    named = {key: value for key, value in named.items() if key not in ("layout", "device", "pin_memory")}
    result = rule_for(name)(ops, *placed, **named)
    return [one for one in (result if isinstance(result, tuple) else (result,)) if isinstance(one, np.ndarray)]


def _line() -> str:
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


@contextmanager
def _named_modules(function: Any) -> Generator[list[str]]:
    """The names of the modules whose forward is running, the innermost last."""
    running: list[str] = []
    names: dict[int, str] = {}
    if isinstance(function, torch.nn.Module):
        names = {id(module): name or type(module).__name__ for name, module in function.named_modules()}

    def enter(module: torch.nn.Module, given: Any) -> None:
        del given
        running.append(names.get(id(module), type(module).__name__))

    def leave(module: torch.nn.Module, given: Any, result: Any) -> None:
        del module, given, result
        running.pop()

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def first_departure(function: Callable[[Any, Any], Any], z: Any, args: Any) -> Search:
    """Run f and its pullback by torch, and hold every operation to what it was given.

    Args:
        function: f, its tensors in the dtype and on the device that are asked about.
        z: state, a pytree of floating tensors.
        args: likewise.
    """
    start = tree_map(_started, z)
    with _named_modules(function) as running, torch.enable_grad():
        watch = _Watch(running)
        with watch:
            outputs = [leaf for leaf in tree_leaves(function(start, args)) if leaf.requires_grad]
            if outputs:
                ones = [torch.ones_like(leaf) for leaf in outputs]
                torch.autograd.grad(outputs, tree_leaves(start), ones, allow_unused=True)
    return watch.found


def departure_in(source: Source, traced: Traced, dtype: torch.dtype | None, device: str, z: list[float]) -> Search:
    """`first_departure` of the user's function at a state, its tensors held in a dtype and on a device.

    Args:
        source: function, start and args as the user has them.
        traced: the same, recorded.
        dtype: of everything floating; None leaves each tensor in its own.
        device: "cpu", "cuda", ...
        z: the state, flat.
    """
    own = own_tensors(source)
    leaves, spec = tree_flatten(source.z0)
    parts = torch.tensor(z, dtype=torch.float64).split([leaf.numel() for leaf in leaves])
    state = [
        part.reshape(leaf.shape).to(dtype=dtype or leaf.dtype, device=device)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    with held(own, dtype, device, traced.leaves):
        return first_departure(source.function, tree_unflatten(state, spec), source.args)
