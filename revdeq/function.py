"""The user's function as one call that finds what it reads and can be replayed in the backward pass.

NOTE [What f reads]
A gradient is lost silently when f reads a trainable tensor that the autograd node does not list as an input. The first
evaluation of a solve runs under a `TorchFunctionMode`, which sees every tensor that enters an operation. Those that
were not made inside the evaluation are what f reads: parameters, captured tensors (leaves or not), constants and
buffers. The backward pass checks the finding: it walks the graph of its first replay, and a trainable leaf that is
reached but not listed raises `GradientError`.

NOTE [f is one map]
A fixed point needs one map, so all evaluations of a solve draw the same random numbers (one dropout mask a solve), in
the forward pass and in every replay; the generators are left where one evaluation leaves them. Running statistics of
normalisation layers are updated once an evaluation in the forward pass, as in a plain loop, and never by backward.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from revdeq.environment import Flags, RandomState
from revdeq.solution import GradientError
from revdeq.tree import Leaves, Tree, flatten, leaf_names, unflatten


PartialLeaves: TypeAlias = tuple[torch.Tensor | None, ...]
"""Leaves of a cotangent or gradient, in which None stands for an exact zero."""


# These update the running statistics that they are given without raising the tensors' version counters.
_UPDATES_STATISTICS: frozenset[Any] = frozenset(
    {
        torch.nn.functional.batch_norm,
        torch.nn.functional.instance_norm,
        torch.batch_norm,
        torch.instance_norm,
        torch.native_batch_norm,
    }
)


class _ReadsSeen(TorchFunctionMode):
    """Collects the tensors that enter an operation and were not made by one before; see NOTE [What f reads]."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._inside = {id(t) for t in known}
        self.seen: dict[int, torch.Tensor] = {}
        self.versions: dict[int, int] = {}
        self.statistics: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        entering = list(_tensors((args, kwargs)))
        for tensor in entering:
            # The id of a tensor made inside can be taken over only by another one made inside: what was made outside
            # stays alive throughout.
            if id(tensor) not in self._inside and id(tensor) not in self.seen:
                self.seen[id(tensor)] = tensor
                self.versions[id(tensor)] = 0 if tensor.is_inference() else tensor._version
        if func in _UPDATES_STATISTICS:
            self.statistics.update(id(t) for t in entering if not t.requires_grad)
        result = func(*args, **kwargs)
        self._inside.update(id(t) for t in _tensors(result) if id(t) not in self.seen)
        return result


class _Substituted(TorchFunctionMode):
    """Puts other tensors in the place of captured ones, by identity, in every operation."""

    def __init__(self, substitutes: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self._substitutes = substitutes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        leaves, structure = flatten((args, kwargs or {}))
        entering, named = unflatten([self._substitutes.get(id(leaf), leaf) for leaf in leaves], structure)
        return func(*entering, **named)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tensors(item)


def vjp(
    values: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor | None], sources: Leaves, keep: bool = False
) -> PartialLeaves:
    """Return the products of `cotangents` with the derivative of `values` in `sources`.

    Args:
        values: tensors computed from `sources` with a graph; those without one have an exact zero as derivative.
        cotangents: one for each of `values`, in its dtype; None for zero.
        sources: tensors that require grad.
        keep: whether to keep the graph for another call.
    """
    pairs = [(v, c) for v, c in zip(values, cotangents, strict=True) if c is not None and v.requires_grad]
    if not pairs:
        return (None,) * len(sources)
    # allow_unused: a source that no value depends on has an exact zero as its gradient, given as None.
    found = torch.autograd.grad(
        [v for v, _ in pairs], sources, [c for _, c in pairs], retain_graph=keep, allow_unused=True
    )
    return tuple(found)


class Linearisation:
    """f at one state, with the graph of this one evaluation, through which cotangents are pulled back.

    Attributes:
        value: leaves of f(z), detached.
    """

    def __init__(self, z: Leaves, value: Leaves, inputs: Leaves) -> None:
        self._z, self._value, self._inputs = z, value, inputs
        self.value: Leaves = tuple(v.detach() for v in value)

    def pull_back(self, cotangent: Leaves) -> tuple[PartialLeaves, PartialLeaves]:
        """Return the products of `cotangent` with df/dz and with the derivative in the inputs, and free the graph.

        Args:
            cotangent: leaves shaped like f(z), in any floating dtype; rounded to the dtype of f(z).

        Returns:
            The cotangent of z in the dtypes of f, and the gradients of `Replay.inputs`; None stands for an exact zero.
        """
        grads = self._vjp(cotangent, (*self._z, *self._inputs), keep=False)
        return grads[: len(self._z)], grads[len(self._z) :]

    def pull_back_state(self, cotangent: Leaves) -> PartialLeaves:
        """Return the product of `cotangent` with df/dz alone, and keep the graph for more."""
        return self._vjp(cotangent, self._z, keep=True)

    def _vjp(self, cotangent: Leaves, sources: Leaves, *, keep: bool) -> PartialLeaves:
        return vjp(
            self._value, tuple(c.to(v.dtype) for v, c in zip(self._value, cotangent, strict=True)), sources, keep
        )


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
        self.names = leaf_names(z0, "z0")
        _check_start(leaves, self.names)
        self.function = function
        self.z0: Leaves = tuple(leaves)
        self.args = args
        arg_leaves, self._args_structure = flatten(args)
        self._arg_leaves = arg_leaves
        self.arg_tensors: Leaves = tuple(leaf for leaf in arg_leaves if isinstance(leaf, torch.Tensor))
        self.captured: Leaves = ()
        self.constants: Leaves = ()
        self._updated: Leaves = ()
        device_types = dict.fromkeys([leaf.device.type for leaf in leaves] + ["cpu"])
        self._flags = Flags.now(list(device_types))
        self._autocast = any(enabled for _, enabled, _ in self._flags.autocast)
        self._cuda = tuple({leaf.device.index for leaf in leaves if leaf.device.type == "cuda"})
        self._capturing = bool(self._cuda) and torch.cuda.is_current_stream_capturing()
        self._random_before = None if self._capturing else RandomState.now(self._cuda)
        self._random_after: RandomState | None = None
        self._draws = False
        self._started = False
        self._recording = False

    def record_reads(self) -> None:
        """Make the first evaluation find what f reads; an adjoint that replays f calls this before the forward pass."""
        self._recording = True

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
        if not self._started:
            self._started = True
            value = self._discover(narrow) if self._recording else self._evaluate(narrow, self.args)
            if self._random_before is not None:
                self._random_after = RandomState.now(self._cuda)
                self._draws = not self._random_before.same_as(self._random_after)
            return value
        if self._draws:
            assert self._random_before is not None
            self._random_before.restore()
        return self._evaluate(narrow, self.args)

    def finish(self) -> None:
        """Close the forward pass: check that the random numbers were drawn as the first evaluation drew them.

        Raises:
            GradientError: an evaluation after the first drew random numbers although the first did not.
        """
        if self._random_before is None or self._random_after is None:
            return
        if not self._draws and not self._random_before.same_as(RandomState.now(self._cuda)):
            raise GradientError(
                "function drew random numbers in a later evaluation but none in the first, so it is not one map; "
                "draw the same numbers at every evaluation, or draw them before the solve and pass them in args."
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
        return tuple(x.to(start.dtype) for x, start in zip(z, self.z0, strict=True))

    def _discover(self, z: Leaves) -> Leaves:
        # f gets aliases of the tensors of args: the same tensor read from elsewhere is then seen as captured too.
        # Not where the graph of this very evaluation is wanted: aliases are not connected to args.
        aliases = (
            self.arg_tensors
            if torch.is_grad_enabled()
            else tuple(t.detach().requires_grad_(t.requires_grad) for t in self.arg_tensors)
        )
        with _ReadsSeen((*z, *aliases)) as reads:
            value = self._evaluate(z, self._with_arg_tensors(aliases))
        changed = {i for i, t in reads.seen.items() if not t.is_inference() and t._version != reads.versions[i]}
        outside = list(reads.seen.values())
        if isinstance(self.function, torch.nn.Module):
            # A compiled or foreign forward may hide from the mode what it reads; its module still lists it.
            outside += [p for p in self.function.parameters() if id(p) not in reads.seen]
        self.captured = tuple(t for t in outside if t.requires_grad)
        self._updated = tuple(
            t for i, t in reads.seen.items() if i in (changed | reads.statistics) and not t.requires_grad
        )
        updated = {id(t) for t in self._updated}
        self.constants = tuple(t for t in reads.seen.values() if not t.requires_grad and id(t) not in updated)
        return value

    def _evaluate(self, z: Leaves, args: Tree) -> Leaves:
        versions = [None if x.is_inference() else x._version for x in z]
        value = self.function(unflatten(z, self.structure), args)
        for x, version, name in zip(z, versions, self.names, strict=True):
            if version is not None and x._version != version:
                raise ValueError(
                    f"function changed its input z in place (leaf {name}); it must leave z as it is, "
                    "so use the out-of-place form of the operation."
                )
        return self._checked(value)

    def _checked(self, value: Tree) -> Leaves:
        leaves, structure = flatten(value)
        if structure != self.structure:
            raise TypeError(
                f"function returned {_describe(value)}; it must return the structure of z0, "
                f"{_describe(unflatten(self.z0, self.structure))}."
            )
        for leaf, start, name in zip(leaves, self.z0, self.names, strict=True):
            if not isinstance(leaf, torch.Tensor):
                raise TypeError(f"function returned a {type(leaf).__name__} for leaf {name}; it must return a tensor.")
            if leaf.shape != start.shape:
                raise ValueError(
                    f"function returned shape {tuple(leaf.shape)} for leaf {name}; it must return the shape of z0, "
                    f"{tuple(start.shape)}."
                )
            if leaf.device != start.device:
                raise ValueError(
                    f"function returned a tensor on {leaf.device} for leaf {name}; it must stay on the device of z0, "
                    f"{start.device}."
                )
            if leaf.dtype != start.dtype and not (self._autocast and leaf.dtype.is_floating_point):
                raise TypeError(
                    f"function returned dtype {leaf.dtype} for leaf {name}; it must return the dtype of z0, "
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
        for alias, tensor in zip(local, function.arg_tensors, strict=True):
            if tensor.requires_grad:
                self.arg_inputs.append(alias.requires_grad_())
        self._args = function._with_arg_tensors(local)
        self._substitutes: dict[int, torch.Tensor] = {}
        captured: list[torch.Tensor] = []
        for tensor, needed in zip(function.captured, captured_needed, strict=True):
            # The hooks of a captured tensor (and retain_grad) would run once a replay, on parts of the gradient. A
            # local copy has none; autograd runs them once, on the whole, outside.
            if not tensor.is_leaf or tensor._backward_hooks:
                self._substitutes[id(tensor)] = tensor.detach().requires_grad_()
            if needed:
                captured.append(self._substitutes.get(id(tensor), tensor))
        self.inputs: Leaves = (*self.arg_inputs, *captured)
        self._walked = False

    @contextlib.contextmanager
    def active(self) -> Generator[None]:
        """Hold the surroundings of the forward pass inside the block; generators and buffers end as they were."""
        f = self._f
        before = None if f._random_before is None or not f._draws else RandomState.now(f._cuda)
        buffers = [t.detach().clone() for t in f._updated]
        try:
            with f._flags.active(), torch.enable_grad():
                yield
        finally:
            if before is not None:
                before.restore()
            for tensor, value in zip(f._updated, buffers, strict=True):
                # `.data` leaves the version counter alone: other graphs may have saved the buffer.
                tensor.data.copy_(value)

    def evaluate(self, z: Leaves) -> Leaves:
        """Evaluate f at the leaves `z` in the grad mode that holds, with local args and captured tensors."""
        f = self._f
        if f._draws:
            assert f._random_before is not None
            f._random_before.restore()
        narrow = f._narrow(z)
        if not self._substitutes:
            return f._evaluate(narrow, self._args)
        with _Substituted(self._substitutes):
            return f._evaluate(narrow, self._args)

    def linearise(self, z: Leaves) -> Linearisation:
        """Evaluate f at `z` once, keeping the graph of this one evaluation.

        Args:
            z: leaves of a state, in z0's dtypes or wider.
        """
        local = tuple(x.detach().requires_grad_() for x in self._f._narrow(z))
        value = self.evaluate(local)
        if not self._walked:
            self._refuse_unlisted_leaves(value, local)
            self._walked = True
        return Linearisation(local, value, self.inputs)

    def _refuse_unlisted_leaves(self, value: Leaves, local: Leaves) -> None:
        """Raise where the graph of an evaluation reaches a trainable leaf that would get no gradient."""
        listed = {id(t) for t in (*local, *self._f.captured, *self.arg_inputs, *self._substitutes.values())}
        pending: list[Node] = [v.grad_fn for v in value if v.grad_fn is not None]
        visited: set[Node] = set()
        while pending:
            node = pending.pop()
            if node in visited:
                continue
            visited.add(node)
            variable = getattr(node, "variable", None)  # only the nodes that accumulate into a leaf have one
            if isinstance(variable, torch.Tensor) and id(variable) not in listed:
                raise GradientError(
                    "function reads a trainable tensor of shape "
                    f"{tuple(variable.shape)} that was not seen in "
                    "the forward pass, so its gradient would be lost; pass it in args, or make it a module parameter."
                )
            pending.extend(child for child, _ in node.next_functions if child is not None)


def _check_start(leaves: Sequence[Any], names: Sequence[str]) -> None:
    if not leaves:
        raise ValueError("z0 has no tensor in it; it must be a tensor or a pytree with at least one tensor.")
    for leaf, name in zip(leaves, names, strict=True):
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}; every leaf of z0 must be a tensor of a real floating dtype."
            )
        if not leaf.dtype.is_floating_point:
            raise TypeError(
                f"{name} has dtype {leaf.dtype}; a state must have a real floating dtype, so convert it, "
                "for example with .float()."
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
