"""The user's function as one call that finds what it reads and can be replayed in the backward pass.

See NOTE [What f reads] in `revdeq.reads`.

NOTE [f is one map]
A fixed point needs one map, so all evaluations of a solve draw the same random numbers (one dropout mask a solve), in
the forward pass and in every replay; the generators are left where one evaluation leaves them. Running statistics of
normalisation layers are updated once an evaluation in the forward pass, as in a plain loop, and never by backward.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch

from revdeq.environment import DrawsRefused, Flags, RandomState
from revdeq.linearisation import Linearisation
from revdeq.narrowing import narrow
from revdeq.reads import (
    Reach,
    ReadsSeen,
    Substituted,
    fill_parametrisation_cache,
    made_since,
    reached_leaves,
    refuse_unlisted,
    sequence_number,
    version,
)
from revdeq.sharding import refuse_sharded_modules
from revdeq.solution import GradientError
from revdeq.tree import Leaves, Tree, flatten, leaf_names, unflatten


class Function:
    """The user's `function(z, args)` on flat leaves, checked at every evaluation.

    Args:
        function: callable of (z, args) that returns the tree of z.
        z0: start state, a tensor or a pytree of floating-point tensors on one device.
        args: any pytree; its tensors that require grad receive gradients.

    Raises:
        TypeError: function is not callable; z0 has a leaf that is not a tensor or not of a real floating dtype.
        ValueError: z0 has no leaf, or leaves on several devices.
    """

    def __init__(self, function: Callable[[Tree, Tree], Tree], z0: Tree, args: Tree) -> None:
        if not callable(function):
            raise TypeError(
                f"function is a {type(function).__name__}; it must be callable as function(z, args) "
                "and return the next z, so give a function or an nn.Module."
            )
        leaves, self.structure = flatten(z0)
        _check_start(leaves, z0)
        self.function = function
        self.z0: Leaves = tuple(leaves)
        self.args = args
        arg_leaves, self._args_structure = flatten(args)
        self._arg_leaves = arg_leaves
        self.arg_tensors: Leaves = tuple(leaf for leaf in arg_leaves if isinstance(leaf, torch.Tensor))
        self.args_require = tuple(t.requires_grad for t in self.arg_tensors)
        self.last: tuple[Leaves, Leaves] | None = None
        self.captured: Leaves = ()
        self.constants: Leaves = ()
        self._read: Leaves = ()
        self._watched: Leaves = ()
        self._statistics: Leaves = ()
        self._buffers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
        self._flags = Flags.now(list(dict.fromkeys([leaf.device.type for leaf in leaves] + ["cpu"])))
        self._cuda = tuple({leaf.device.index for leaf in leaves if leaf.device.type == "cuda"})
        # The state of a generator cannot be read while a CUDA graph is captured.
        self._random_before = None if self.capturing else RandomState.now(self._cuda)
        self._random_after: RandomState | None = None
        self._draws = False
        self._started = False
        self._recording = False
        self._keep_graph = False

    @property
    def capturing(self) -> bool:
        """Whether operations on the devices of z0 are now captured in a CUDA graph instead of run."""
        return bool(self._cuda) and torch.cuda.is_current_stream_capturing()

    def record_reads(self, *, keep_graph: bool = False) -> None:
        """Make the first evaluation find what f reads; an adjoint that replays f calls this before the forward pass.

        Args:
            keep_graph: whether the graph of that evaluation is wanted too.
        """
        self._recording, self._keep_graph = True, keep_graph

    def __call__(self, z: Leaves) -> Leaves:
        """Evaluate f once in the forward pass, in the grad mode that holds.

        Args:
            z: leaves of the state, in z0's dtypes or wider ones, which are rounded to z0's.

        Returns:
            The leaves of f(z), in z0's dtypes (under autocast, in a dtype that it chose).

        Raises:
            TypeError, ValueError: what f returned does not fit z0; the sentence says how.
        """
        narrow = self._narrow(z)
        if self._started:
            self._restore()
            value = self._evaluate(narrow, self.args)
        else:
            self._started = True
            fill_parametrisation_cache(self.function)
            value = (
                self._discover(narrow) if self._recording else self._evaluate_first(narrow, self.args, ReadsSeen(()))
            )
            if self._random_before is not None:
                self._random_after = self._random_now()
                self._draws = not self._random_before.same_as(self._random_after)
        self.last = (narrow, tuple(v.detach() for v in value))
        return value

    def finish(self) -> None:
        """Close the forward pass: check that every evaluation drew the random numbers that the first one drew.

        Raises:
            GradientError: a later evaluation drew more, fewer or others.
        """
        if self._flags.autocasting and self._recording:
            # Weights cast without a graph must not be taken for those of the operations that follow.
            torch.clear_autocast_cache()
        if self._random_after is not None and not self._random_after.same_as(self._random_now()):
            raise GradientError(
                "function drew other random numbers in a later evaluation than in the first, so it is not one map; "
                "draw the same at every evaluation, or draw them before the solve and pass them in args."
            )

    def replay(self, arg_tensors: Leaves, captured_needed: Sequence[bool]) -> "Replay":
        """Return what evaluates and linearises f in the backward pass.

        Args:
            arg_tensors: the tensors of args as the autograd node saved them, in the order of `arg_tensors`.
            captured_needed: for each of `captured`, whether its gradient is needed.
        """
        return Replay(self, arg_tensors, captured_needed)

    def _with_arg_tensors(self, tensors: Iterable[torch.Tensor]) -> Tree:
        """Return args with its tensors replaced, in order."""
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._arg_leaves]
        return unflatten(leaves, self._args_structure)

    def _narrow(self, z: Leaves) -> Leaves:
        return tuple(narrow(x, start.dtype) for x, start in zip(z, self.z0, strict=True))

    def _random_now(self) -> RandomState:
        assert self._random_before is not None
        return RandomState.now(self._cuda, [generator for generator, _ in self._random_before.named])

    def _restore(self) -> None:
        """Put generators and the buffers that f updates back to where the first evaluation found them."""
        if self._draws:
            assert self._random_before is not None
            self._random_before.restore()
        for buffer, value in self._buffers:
            # `.data` leaves the version counter alone: other graphs may have saved the buffer.
            buffer.data.copy_(value)

    def _evaluate_first(self, z: Leaves, args: Tree, reads: ReadsSeen) -> Leaves:
        if self._random_before is None:
            with DrawsRefused():
                return self._evaluate(z, args, reads)
        value = self._evaluate(z, args, reads)
        self._random_before = dataclasses.replace(self._random_before, named=tuple(reads.generators.values()))
        self._buffers = tuple(reads.updated())
        return value

    def _discover(self, z: Leaves) -> Leaves:
        """Evaluate f with a graph and find what it reads."""
        keep = self._keep_graph
        # f gets aliases of the tensors of args: the same tensor read from elsewhere is then seen as captured too.
        # Not where the graph of this very evaluation is wanted: aliases are not connected to args.
        local = (
            self.arg_tensors if keep else tuple(t.detach().requires_grad_(t.requires_grad) for t in self.arg_tensors)
        )
        reads = ReadsSeen((*z, *local))
        since = sequence_number()
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_without_autocast_cache(self._flags.autocasting))
            stack.enter_context(refuse_sharded_modules())
            if not keep:
                stack.enter_context(own_saved_tensors())
            value = self._evaluate_first(z, self._with_arg_tensors(local), reads)
        reach = Reach.of(self.function)
        seen = [t for t in reads.trainable() if not made_since(t, since)]
        # On CUDA, a gradient taken inside f makes nodes in a thread of the device, which counts for itself.
        made_here = 0 if self._cuda else since
        seen += reached_leaves(value, (*z, *local), [Substituted.current(t) for t in seen], made_here)
        ids = {id(t) for t in seen}
        if isinstance(self.function, torch.nn.Module):
            # A later evaluation may read the other parameters: a module decides that by its data.
            seen += [t for t in reach.trainable if id(t) not in ids]
            ids.update(id(t) for t in seen)
        self._read = tuple(seen)
        self.captured = tuple(Substituted.current(t) for t in seen)
        self._watched = tuple(t for t in reach.trainable if id(t) not in ids)
        self._statistics = tuple({id(t): t for t in (*reads.statistics(), *reach.statistics)}.values())
        if not keep:
            value = tuple(v.detach() for v in value)
        updated = {id(t) for t in (*self._statistics, *(buffer for buffer, _ in self._buffers))}
        self.constants = tuple(t for t in reads.constants() if not t.is_inference() and id(t) not in updated)
        return value

    def _evaluate(self, z: Leaves, args: Tree, mode: AbstractContextManager[Any] | None = None) -> Leaves:
        versions = [version(x) for x in z]
        tree = unflatten(z, self.structure)
        if mode is None:
            value = self.function(tree, args)
        else:
            with mode:
                value = self.function(tree, args)
        self._refuse_changed(z, versions)
        return self._checked(value)

    def _refuse_changed(self, z: Leaves, versions: Sequence[int]) -> None:
        for i, (x, before) in enumerate(zip(z, versions, strict=True)):
            if version(x) != before:
                raise ValueError(
                    f"function changed its input z in place (leaf {self._name(i)}); it must leave z as it is, "
                    "so use the out-of-place form of the operation."
                )

    def _name(self, index: int) -> str:
        return leaf_names(unflatten(self.z0, self.structure), "z0")[index]

    def _checked(self, value: Tree) -> Leaves:
        leaves, structure = flatten(value)
        if structure is not self.structure and structure != self.structure:
            raise TypeError(
                f"function returned {_describe(value)}; it must return the structure of z0, "
                f"{_describe(unflatten(self.z0, self.structure))}."
            )
        for i, (leaf, start) in enumerate(zip(leaves, self.z0, strict=True)):
            if not isinstance(leaf, torch.Tensor):
                raise TypeError(
                    f"function returned a {type(leaf).__name__} for leaf {self._name(i)}; it must return a tensor."
                )
            if leaf.shape != start.shape:
                raise ValueError(
                    f"function returned shape {tuple(leaf.shape)} for leaf {self._name(i)}; it must return the shape "
                    f"of z0, {tuple(start.shape)}."
                )
            if leaf.device != start.device:
                raise ValueError(
                    f"function returned a tensor on {leaf.device} for leaf {self._name(i)}; it must stay on the device "
                    f"of z0, {start.device}."
                )
            if leaf.dtype != start.dtype and not (self._flags.autocasting and leaf.dtype.is_floating_point):
                raise TypeError(
                    f"function returned dtype {leaf.dtype} for leaf {self._name(i)}; it must return the dtype of z0, "
                    f"{start.dtype}: cast z0 or the parameters, and let state_dtype widen the states."
                )
        return tuple(leaves)


class Replay:
    """f in the backward pass: the same surroundings as in the forward pass, the same random numbers, buffers kept.

    Attributes:
        inputs: the tensors whose gradients `Linearisation.pull_back` returns: local copies of the tensors of args that
            require grad, then the captured tensors that need a gradient (or their local copies).
    """

    def __init__(self, function: Function, arg_tensors: Leaves, captured_needed: Sequence[bool]) -> None:
        self._f = function
        local = [saved.detach() for saved in arg_tensors]
        self.arg_inputs: list[torch.Tensor] = []
        for alias, required in zip(local, function.args_require, strict=True):
            if required:
                self.arg_inputs.append(alias.requires_grad_())
        self._args = function._with_arg_tensors(local)
        self._substitutes: dict[int, torch.Tensor] = {}
        captured: list[torch.Tensor] = []
        self._replaced: list[torch.Tensor] = []
        pairs = zip(function._read, function.captured, captured_needed, strict=True)
        for tensor, attached, needed in pairs:
            # The hooks of a captured tensor (and retain_grad) would run once a replay, on parts of the gradient. A
            # local copy has none; autograd runs them once, on the whole, outside.
            # And one that was frozen since has no derivative of its own any more.
            if attached is not tensor or not tensor.is_leaf or tensor._backward_hooks or not tensor.requires_grad:
                self._substitutes[id(tensor)] = tensor.detach().requires_grad_()
                self._replaced.append(tensor)
            if needed:
                captured.append(self._substitutes.get(id(tensor), tensor))
        for tensor in function.constants:
            if tensor.requires_grad:  # it was not trainable in the forward pass
                self._substitutes[id(tensor)] = tensor.detach()
        self.inputs: Leaves = (*self.arg_inputs, *captured)
        self._walked = False

    @contextlib.contextmanager
    def active(self) -> Generator[None]:
        """Hold the surroundings of the forward pass inside the block; generators and buffers end as they were."""
        f = self._f
        before = f._random_now() if f._draws else None
        updated = (*f._statistics, *(buffer for buffer, _ in f._buffers))
        values = [t.detach().clone() for t in updated]
        try:
            with f._flags.active(), torch.enable_grad():
                yield
        finally:
            if before is not None:
                before.restore()
            for tensor, value in zip(updated, values, strict=True):
                # `.data` leaves the version counter alone: other graphs may have saved the buffer.
                tensor.data.copy_(value)

    def narrow(self, z: Leaves) -> Leaves:
        """Return the leaves of a state as f sees them, in z0's dtypes."""
        return self._f._narrow(z)

    def evaluate(self, z: Leaves) -> Leaves:
        """Evaluate f at the leaves `z` in the grad mode that holds, with local args and captured tensors."""
        f = self._f
        f._restore()
        narrow = f._narrow(z)
        return f._evaluate(narrow, self._args, Substituted(self._substitutes) if self._substitutes else None)

    def linearise(self, z: Leaves) -> Linearisation:
        """Evaluate f at `z` once, keeping the graph of this one evaluation.

        Args:
            z: leaves of a state, in z0's dtypes or wider.
        """
        local = tuple(x.detach().requires_grad_() for x in self._f._narrow(z))
        with torch.enable_grad():
            # Not the leaves themselves: hooks that tools set on the inputs of modules are refused on leaves in here.
            value = self.evaluate(tuple(x.view_as(x) for x in local))
        if not self._walked:
            own = [t for t in self._f._read if id(t) not in self._substitutes]
            refuse_unlisted(value, (*local, *self.arg_inputs, *own, *self._substitutes.values()), self._replaced)
            self._walked = True
        return Linearisation(local, value, self.inputs, self._f._watched)


def own_saved_tensors() -> AbstractContextManager[Any]:
    """Return a context in which the user's hooks on saved tensors see nothing: the graph made there is not kept."""
    if _hooks_on_saved_tensors is not None and _hooks_on_saved_tensors(True) is None:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_detached_uncompiled, lambda tensor: tensor)


# Hooks cost a call for every tensor that is saved, so they are set only against others where torch can say so.
_hooks_on_saved_tensors = getattr(getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", None)


def _detached(tensor: torch.Tensor) -> torch.Tensor:
    # An output that its own node kept would keep that node for ever.
    return tensor.detach()


# A compiled function calls the hook too, and would compile it anew for every kind of tensor that it saves.
_detached_uncompiled = cast(Callable[[torch.Tensor], torch.Tensor], torch.compiler.disable(_detached))


@contextlib.contextmanager
def _without_autocast_cache(autocasting: bool) -> Generator[None]:
    """Cast weights anew inside the block, so that the casts belong to the graph of what is computed there."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(before and not autocasting)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _check_start(leaves: Sequence[Any], z0: Tree) -> None:
    if not leaves:
        raise ValueError("z0 has no tensor in it; it must be a tensor or a pytree with at least one tensor.")
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(
                f"{leaf_names(z0, 'z0')[i]} is a {type(leaf).__name__}; every leaf of z0 must be a tensor of a real "
                "floating dtype."
            )
        if not leaf.dtype.is_floating_point:
            raise TypeError(
                f"{leaf_names(z0, 'z0')[i]} has dtype {leaf.dtype}; a state must have a real floating dtype, so "
                "convert it, for example with .float()."
            )
        if leaf.layout != torch.strided:
            raise TypeError(
                f"{leaf_names(z0, 'z0')[i]} has layout {leaf.layout}; a state must be dense, so convert it with "
                ".to_dense() or pad it."
            )
    devices = {leaf.device for leaf in leaves}
    if len(devices) > 1:
        raise ValueError(f"z0 has leaves on {', '.join(sorted(map(str, devices)))}; move them to one device.")


def _describe(tree: Tree) -> str:
    """Return a short description of a tree for an error message: the types, and the shapes of tensors."""
    if isinstance(tree, torch.Tensor):
        return f"a tensor of shape {tuple(tree.shape)}"
    if isinstance(tree, tuple | list):
        return f"a {type(tree).__name__} of ({', '.join(_describe(item) for item in tree)})"
    if isinstance(tree, dict):
        return "a dict of {" + ", ".join(f"{key!r}: {_describe(item)}" for key, item in tree.items()) + "}"
    return f"a {type(tree).__name__}" if tree is not None else "None"
