"""The user's function compiled together with the half step around it, forward and backward; never the loop.

NOTE [Compiled half steps]
`torch.compile` makes one graph of f and the half step that uses its value, and one of f, its VJP and the half step
undone. The loop stays in Python, so compile time and memory do not depend on the number of steps. Nor do they on the
number of samples, which the graphs take as it comes (one sample apart, for which there are others): the last batch of
an epoch is smaller. What f reads are the
inputs of the first graph, which holds every tensor that the code reaches: nothing has to be watched. The guards of
torch.compile see to it that code, shapes and settings are those that were compiled.

Reversal needs f to return in the second graph what it returned in the first. Both come from the same code and mostly
agree to the bit; where they do not, `Health` says so and the gradient is treated as one that lost bits.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch._dynamo import config as dynamo_config, lookup_backend, maybe_mark_dynamic
from torch._dynamo.exc import TorchDynamoException

from revdeq._errors import GradientError
from revdeq._half_step import PulledBack
from revdeq._residual import per_sample, sample_shape
from revdeq._tree import Leaves, Structure, Tree, flatten, unflatten
from revdeq.adjoint.base import transformed
from revdeq.arithmetic.floating import scaled
from revdeq.function import Function, Replay
from revdeq.function.border import BatchDims
from revdeq.function.extras import Extras
from revdeq.function.linearisation import vjp
from revdeq.function.reach import Reach
from revdeq.function.reads import Substituted, version


# Graphs that may be held at once: one for each function, shape, dtype and setting.
_GRAPHS = 256


class CompiledFunction(Function):
    """The user's function on flat leaves, compiled; the arguments are those of `Function`.

    Raises:
        RuntimeError: this release of torch cannot compile a VJP.
        GradientError: a torch.func transform or forward-mode AD is active.
        TypeError, ValueError: as for `Function`, or f updates running statistics.
    """

    def __init__(
        self,
        function: Callable[..., Tree],
        z0: Tree,
        args: Tree,
        *,
        batch_dims: BatchDims | None = None,
        extras: Extras | None = None,
    ) -> None:
        _refuse_old_torch()
        if transformed():
            raise GradientError(
                "compile is True inside a torch.func transform or forward-mode AD, which cannot follow compiled half "
                "steps; give compile=False there."
            )
        super().__init__(function, z0, args, batch_dims=batch_dims, extras=extras)
        if self.extras.has_aux or self.extras.with_step:
            raise ValueError("compile is True, which has_aux and with_step do not go with; give compile=False.")
        if Reach.of(function).statistics:
            raise ValueError(
                "function updates running statistics and compile is True; put its normalisation layers in eval mode, "
                "or give compile=False."
            )
        self._alias_args()
        self._taken: set[Callable[..., Any]] = set()
        self._map = self.map_of(self.with_arg_tensors(self._aliases))

    def __call__(self, z: Leaves) -> Leaves:
        """Evaluate f once in the forward pass."""
        at = self.border.narrow(z)
        value = self._run(self._map, _value, at, ())[0]
        self.last = (at, tuple(v.detach() for v in value))
        return value

    def half_step(self, state: Leaves, at: Leaves, beta: float | torch.Tensor) -> tuple[Leaves, Leaves]:
        """Return `(1 - beta) state + beta f(at)`, and f(at).

        Args:
            state: the state that the half step moves, in the state dtype.
            at: the other state.
            beta: relaxation parameter.
        """
        at = self.border.narrow(at)
        moved, value = self.moved(self._map, state, at, beta)
        self.last = (at, value)
        return moved, value

    def moved(self, f: "_Map", state: Leaves, at: Leaves, beta: float | torch.Tensor) -> tuple[Leaves, Leaves]:
        """Return `(1 - beta) state + beta f(at)`, and f(at), for f with any args."""
        # At the start both states may be one tensor, for which torch.compile would make a graph of its own.
        state = tuple(s.clone() if s is x else s for s, x in zip(state, at, strict=True))
        value, moved = self._run(f, _moved, at, (state, beta))
        return moved, value

    def replay(self, arg_tensors: Leaves, captured_needed: Sequence[bool]) -> "CompiledReplay":
        """Return what undoes compiled half steps in the backward pass; the arguments are those of `Function.replay`."""
        return CompiledReplay(self, arg_tensors, captured_needed)

    def _run(self, f: "_Map", compiled: Callable[..., Any], at: Leaves, more: tuple[Any, ...]) -> Any:
        versions = [version(x) for x in at]
        self.take_any_number(compiled, (f.args, at, more))
        with _reading() as read:
            tree, *found = self._called(f, compiled, at, more)
        self.refuse_changed(at, versions)
        value = self.border.checked(tree, any_float=self.autocasting)
        if not self._started:
            self._started = True
            self._list(read, (*at, *(more[0] if more else ())))
            if self.surroundings.moved():
                raise GradientError(
                    "function draws random numbers and compile is True; a compiled function does not repeat them, so "
                    "draw them before the solve and pass them in args, or give compile=False."
                )
        return (value, *found)

    def _called(self, f: "_Map", compiled: Callable[..., Any], at: Leaves, more: tuple[Any, ...]) -> Any:
        try:
            return compiled(f, at, *more)
        except TorchDynamoException as error:
            # What is wrong with f without compilation too is said as it is said there.
            self.evaluate(self.border.narrow(at), self.args)
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ValueError(
                f"function could not be compiled to one graph ({' '.join(lines[:2])}); make it plain tensor code "
                "without graph breaks, see to it that torch finds a C++ compiler, or give compile=False."
            ) from error

    def take_any_number(self, compiled: Callable[..., Any], given: Tree) -> None:
        """Let the graph that a first call may make take any number in the dimensions that count samples.

        Args:
            compiled: what is called.
            given: what it is called with, the args of f among it.
        """
        if compiled in self._taken:
            return
        self._taken.add(compiled)
        for samples in sample_shape(self.z0):
            for tensor in flatten(given)[0]:
                if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[0] == samples:
                    maybe_mark_dynamic(tensor, 0)

    def map_of(self, args: Tree) -> "_Map":
        """Return f with these args in the place of its own, as the graphs see it."""
        ndims = tuple(len(shape) for shape in self.border.shapes)
        return _Map(self.function, self.border.structure, ndims, self.border.one_sample, args)

    def _list(self, read: Sequence[torch.Tensor], states: Leaves) -> None:
        """Sort what the graph reads into captured tensors and constants."""
        known = {id(t) for t in (*states, *self._aliases)}
        outside = list({id(t): t for t in read if id(t) not in known}.values())
        trainable = [t for t in outside if t.requires_grad]
        for t in trainable:
            if not t.is_leaf or t._backward_hooks or Substituted.current(t) is not t:
                raise GradientError(
                    f"function reads a trainable tensor of shape {tuple(t.shape)} that is not a leaf or has hooks, "
                    "and compile is True; pass it in args, or give compile=False."
                )
        ids = {id(t) for t in trainable}
        if isinstance(self.function, torch.nn.Module):
            # A later evaluation may read the other parameters: a module decides that by its data.
            trainable += [t for t in self.function.parameters() if t.requires_grad and id(t) not in ids]
        self.sources.take(trainable)
        self.constants = tuple(t for t in outside if not t.requires_grad and not t.is_inference())


class CompiledReplay(Replay):
    """Compiled half steps undone; the arguments and attributes are those of `Replay`."""

    def __init__(self, function: CompiledFunction, arg_tensors: Leaves, captured_needed: Sequence[bool]) -> None:
        super().__init__(function, arg_tensors, captured_needed)
        self._listed = {id(t) for t in (*function.captured, *self.arg_inputs)}
        self._map = function.map_of(self.args)
        self._compiled = function

    @contextmanager
    def active(self) -> Generator[None]:
        """Hold the surroundings of the forward pass inside the block."""
        with super().active(), dynamo_config.patch(trace_autograd_ops=True):
            yield

    def half_step(self, state: Leaves, at: Leaves, beta: float | torch.Tensor) -> Leaves:
        """Take a half step again as the forward pass took it; see `HalfSteps.half_step`."""
        return self._compiled.moved(self._map, state, at, beta)[0]

    def pull_back(self, at: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor) -> PulledBack:
        """Go back through one half step; see `ReversedHalfSteps.pull_back`."""
        self._compiled.take_any_number(_pulled, (self.args, at, moved, other, beta))
        with self._listed_alone((*at, *moved, *other)):
            return _pulled(self._map, self.inputs, at, moved, other, beta)

    def undo_half_step(
        self, state: Leaves, at: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor
    ) -> PulledBack:
        """Go back through one half step and undo it; see `ReversedHalfSteps.undo_half_step`."""
        self._compiled.take_any_number(_undone, (self.args, at, state, moved, other, beta))
        with self._listed_alone((*state, *at, *moved, *other)):
            return _undone(self._map, self.inputs, at, state, moved, other, beta)

    @contextmanager
    def _listed_alone(self, states: Leaves) -> Generator[None]:
        """Raise where a graph that runs in the block reads a trainable tensor that is not listed."""
        with _reading() as read:
            yield
        known = {id(t) for t in states}
        for tensor in read:
            if tensor.requires_grad and id(tensor) not in self._listed and id(tensor) not in known:
                raise GradientError(
                    f"function read a trainable tensor of shape {tuple(tensor.shape)} in the backward pass that it "
                    "did not read in its first evaluation, so its gradient would be lost; pass it in args."
                )


def _refuse_old_torch() -> None:
    """Raise RuntimeError where torch cannot compile a function that takes a VJP."""
    if not hasattr(dynamo_config, "trace_autograd_ops"):
        raise RuntimeError(
            f"compile is True, but torch {torch.__version__} cannot compile a VJP inside a function; use torch 2.13 "
            "or newer, or give compile=False."
        )


class _Reading(threading.local):
    """Where the graphs that run in this thread say which tensors enter them."""

    tensors: list[torch.Tensor] | None = None


_READING = _Reading()


@contextmanager
def _reading() -> Generator[list[torch.Tensor]]:
    """Collect the tensors that enter the graphs that run in the block."""
    read: list[torch.Tensor] = []
    before, _READING.tensors = _READING.tensors, read
    try:
        yield read
    finally:
        _READING.tensors = before


def _recording_backend(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Callable[..., Any]:
    """Compile a graph as torch.compile does by default, and let every call say which tensors it reads."""
    run = lookup_backend("inductor")(graph, examples)

    def recorded(*inputs: Any) -> Any:
        if _READING.tensors is not None:
            _READING.tensors.extend(t for t in inputs if isinstance(t, torch.Tensor))
        return run(*inputs)

    return recorded


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    if not hasattr(dynamo_config, "trace_autograd_ops"):
        return function
    make: Any = torch.compile
    return make(function, backend=_recording_backend, fullgraph=True, recompile_limit=_GRAPHS)


class _Map(NamedTuple):
    """f as the graphs see it: the callable, how its state is made of leaves, and its args."""

    function: Callable[[Tree, Tree], Tree]
    structure: Structure
    ndims: tuple[int, ...]
    one_sample: bool
    args: Tree

    def value(self, z: Leaves) -> Tree:
        # No number of samples stands here, which the graph would keep.
        shaped = [self._outward(leaf, ndim) for leaf, ndim in zip(z, self.ndims, strict=True)]
        return self.function(unflatten(shaped, self.structure), self.args)

    def _outward(self, leaf: torch.Tensor, ndim: int) -> torch.Tensor:
        if leaf.ndim == ndim:
            return leaf
        return leaf.reshape(()) if ndim == 0 else leaf.squeeze(0 if self.one_sample else -1)


def _value_of(f: _Map, at: Leaves) -> tuple[Tree]:
    return (f.value(at),)


def _half_step_with(f: _Map, at: Leaves, state: Leaves, beta: float | torch.Tensor) -> tuple[Tree, Leaves]:
    tree = f.value(at)
    values = _widened(_laid_out(flatten(tree)[0], state), state)
    # Not add(alpha=beta): compiled for one number, it keeps that one when beta changes (seen in torch 2.13.0).
    return tree, tuple(scaled(s, 1.0 - beta) + scaled(v, beta) for s, v in zip(state, values, strict=True))


def _pulled_with(
    f: _Map, inputs: Leaves, at: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor
) -> PulledBack:
    with torch.enable_grad():
        z = tuple(x.detach().requires_grad_() for x in at)
        values = _laid_out(flatten(f.value(z))[0], moved)
    weighted = [scaled(p, beta).to(v.dtype) for p, v in zip(moved, values, strict=True)]
    found = vjp(values, weighted, (*z, *inputs))
    return PulledBack(
        tuple(v.detach() for v in values),
        tuple(scaled(p, 1.0 - beta) for p in moved),
        tuple(q if part is None else q + part for q, part in zip(other, found, strict=False)),
        found[len(z) :],
    )


def _undone_with(
    f: _Map, inputs: Leaves, at: Leaves, state: Leaves, moved: Leaves, other: Leaves, beta: float | torch.Tensor
) -> PulledBack:
    pulled = _pulled_with(f, inputs, at, moved, other, beta)
    wide = _widened(pulled.value, state)
    before = tuple(_divided(s - scaled(v, beta), 1.0 - beta) for s, v in zip(state, wide, strict=True))
    return PulledBack(pulled.value, pulled.moved, pulled.other, pulled.inputs, before)


def _laid_out(values: Sequence[torch.Tensor], states: Leaves) -> Leaves:
    """Return values of f in the shapes in which the solver holds its states."""
    return tuple(v if v.ndim == s.ndim else v.reshape(s.shape) for v, s in zip(values, states, strict=True))


def _widened(values: Sequence[torch.Tensor], states: Leaves) -> Leaves:
    return tuple(v.to(s.dtype) for v, s in zip(values, states, strict=True))


def _divided(leaf: torch.Tensor, divisor: float | torch.Tensor) -> torch.Tensor:
    return leaf / (per_sample(divisor, leaf) if isinstance(divisor, torch.Tensor) else divisor)


_value = _compiled(_value_of)
_moved = _compiled(_half_step_with)
_pulled = _compiled(_pulled_with)
_undone = _compiled(_undone_with)
