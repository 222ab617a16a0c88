"""f under a transform of torch.func: what it captures, and f as a function in whose calls that is replaced.

NOTE [What f captures under a transform]
A transform holds the tensors that it follows in wrappers, which a closure may hold too; the plain solves inside run
when the transform has taken them off. So f is evaluated once with the wrappers on, to find every tensor that it reads.
Those that are followed become operands, and later evaluations get the operand in their place, by identity. One that is
followed and was not found so is refused. Modules get back the tensors that they held during the solve, because a
`functional_call` round it has ended when the backward pass runs.
"""

import contextlib
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import torch
from torch._C._functorch import (
    get_unwrapped,
    is_functorch_wrapped_tensor,
    maybe_get_level,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

from revdeq._errors import GradientError
from revdeq._tree import Leaves, flatten
from revdeq.adjoint.base import in_forward_mode
from revdeq.function import Function
from revdeq.function.border import described
from revdeq.function.graph import made_since, sequence_number
from revdeq.function.reach import Reach
from revdeq.function.reads import ReadsSeen, Substituted


def captured_by(f: Function) -> list[torch.Tensor]:
    """Return what f reads besides z and args and gradients or transforms may follow; f is as before.

    Args:
        f: the function, not yet evaluated.

    Raises:
        GradientError: something that it reads cannot be replaced.
    """
    with torch.no_grad():
        f(f.z0)
        f.surroundings.restore()
        f.extras.position = 0
        # Aliases: the same tensors read from elsewhere are then seen as captured too.
        z, given = (tuple(t.detach() for t in leaves) for leaves in (f.z0, f.arg_tensors))
        reads = _OperandsSeen((*z, *given))
        f.evaluate(z, f.with_arg_tensors(given), reads)
    f.surroundings.forget()
    f.extras.forget()
    captured = [*reads.trainable(), *(t for t in reads.constants() if _followed(t))]
    if isinstance(f.function, torch.nn.Module):
        # A later evaluation may read the other parameters: a module decides that by its data.
        known = {id(t) for t in captured}
        captured += [t for t in f.function.parameters() if t.requires_grad and id(t) not in known]
    return captured


def _followed(tensor: torch.Tensor) -> bool:
    """Return whether a tensor that requires no grad here is followed by a transform, or has a tangent."""
    if is_functorch_wrapped_tensor(tensor):
        return True
    if not in_forward_mode():
        return False
    with (
        temporarily_clear_interpreter_stack()
    ):  # a transform inside function would say of every tensor that it has none
        return forward_ad.unpack_dual(tensor).tangent is not None


class _OperandsSeen(ReadsSeen):
    """Collects what f reads, and refuses a followed tensor that f hands to a transform of its own.

    There it gets another wrapper before any operation sees it, so that nothing can be put in its place.

    Args:
        known: tensors that count as made inside.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__(known)
        interpreter = peek_interpreter_stack()
        self._depth = interpreter.level() if interpreter else 0
        self._wrapped: list[weakref.ref[torch.Tensor]] = []

    def wrapped(self) -> list[torch.Tensor]:
        """Return the tensors in wrappers of no transform outside that came in and are alive still.

        Those that a transform inside f makes are gone with it.
        """
        return [t for t in (reference() for reference in self._wrapped) if t is not None]

    def _enter(self, tensor: torch.Tensor) -> None:
        inner = tensor
        while id(inner) not in self._inside and is_functorch_wrapped_tensor(inner):
            if maybe_get_level(inner) <= self._depth:
                break
            inner = get_unwrapped(inner)
        if id(inner) in self._inside:
            return
        if inner is not tensor and (inner.requires_grad or _followed(inner)):
            raise GradientError(
                f"function hands a captured tensor of shape {tuple(inner.shape)}, which a gradient or a transform "
                "follows, to a torch.func transform inside function, where it cannot be replaced; pass it in args."
            )
        if inner is not tensor:
            self._wrapped.append(weakref.ref(tensor))
        super()._enter(inner)


class _ModulesAsNow:
    """Puts the tensors that modules hold now back into them: `functional_call` round a solve ends before backward.

    Args:
        function: whose modules are meant.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        layers = [layer for module in Reach.of(function).modules for layer in module.modules()]
        stores: list[dict[str, Any]] = []
        for layer in layers:
            stores += [layer._parameters, layer._buffers]  # pyright: ignore[reportPrivateUsage]
        self._held = [(store, dict(store)) for store in stores]

    @contextlib.contextmanager
    def __call__(self) -> Generator[None]:
        before = [(store, dict(store)) for store, _ in self._held]
        try:
            for store, held in self._held:
                store.update(held)
            yield
        finally:
            for store, held in before:
                store.update(held)


def with_operands(f: Function, captured: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """Return f as a function of leaves of z, and of the tensors of args and the captured ones together.

    Args:
        f: the function.
        captured: what `captured_by` found.
    """
    count, has_aux, modules = len(f.arg_tensors), f.extras.has_aux, _ModulesAsNow(f.function)
    border, function, with_args = f.border, f.function, f.with_arg_tensors

    def plain(z: Leaves, given: Leaves, *step: int) -> Any:
        reads, since = _OperandsSeen((*z, *given)), sequence_number()
        substitutes = {id(t): operand for t, operand in zip(captured, given[count:], strict=True)}
        with modules(), reads, Substituted(substitutes):
            returned = function(border.tree(z), with_args(given[:count]), *step)
        missed = [t for t in reads.trainable() if not made_since(t, since)]
        missed += [*reads.wrapped(), *(t for t in reads.constants() if _followed(t))]
        if missed:
            raise GradientError(
                f"function reads a tensor of shape {tuple(missed[0].shape)} that a gradient or a transform follows and "
                "that it did not read in its first evaluation, or reads it where it cannot be replaced; pass it in "
                "args, or use UnrolledAdjoint."
            )
        value, aux = returned if has_aux else (returned, ())
        leaves, structure = flatten(value)
        if structure != border.structure:
            raise TypeError(f"function returned {described(value)} in a later evaluation; it must return what z0 is.")
        # The rest is checked where this is called.
        leaves = border.inward(leaves)
        return (leaves, aux) if has_aux else leaves

    return plain
