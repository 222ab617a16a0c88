"""The user's function as one call that finds what it reads and can be replayed in the backward pass.

See NOTE [What f reads] in `revdeq.function.reads` and NOTE [f is one map] in `revdeq.function.surroundings`.
"""

import contextlib
import copy
import gc
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self, cast

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from revdeq._environment import DrawsRefused, DrawsSeen
from revdeq._errors import GradientError
from revdeq._tree import Leaves, Tree, flatten, unflatten
from revdeq.function.border import BatchDims, Border, savable
from revdeq.function.extras import Extras
from revdeq.function.linearisation import difference, repeatability
from revdeq.function.reach import Reach, fill_parametrisation_cache, is_materialised, release_remade_weights
from revdeq.function.reads import (
    ReadsSeen,
    Substituted,
    made_since,
    reached_leaves,
    sequence_number,
    trainable_leaves,
    version,
)
from revdeq.function.replay import Replay
from revdeq.function.sharding import refuse_sharded_modules
from revdeq.function.surroundings import Surroundings


class Function:
    """The user's `function(z, args)` on flat leaves, checked at every evaluation.

    Args:
        function: callable of (z, args) that returns the tree of z.
        z0: start state, a tensor or a pytree of floating-point tensors on one device.
        args: any pytree; its tensors that require grad receive gradients.
        batch_dims: see `Border`.
        extras: what it takes and makes besides z; None for nothing.

    Attributes:
        border: between its trees and the leaves here.
        surroundings: what its evaluations depend on beside their arguments.
        z0: leaves of the start state.
        arg_tensors: the tensors of args.
        args_require: which of them required grad in the forward pass.
        captured: trainable tensors that it reads from elsewhere; known after the first evaluation.
        constants: what it reads and nothing trains or updates; likewise.
        read: the captured tensors as it names them, where a solve inside another one's f has others in their place.
        watched: trainable tensors that it can reach and did not read.
        last: the leaves at which it was evaluated last, and its value there without a graph.

    Raises:
        TypeError: function is not callable; what `Border` raises.
        ValueError: what `Border` raises.
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
        if not callable(function):
            raise TypeError(
                f"function is a {type(function).__name__}; it must be callable as function(z, args) "
                "and return the next z, so give a function or an nn.Module."
            )
        self.border = Border(z0, batch_dims)
        self.z0: Leaves = self.border.start
        self.surroundings = Surroundings(self.z0)
        self.function = function
        self.extras = Extras(None, False, 1) if extras is None else extras
        given, self._args_structure = flatten(args)
        self._arg_leaves = [savable(leaf) for leaf in given]
        same = all(a is b for a, b in zip(given, self._arg_leaves, strict=True))
        self.args = args if same else unflatten(self._arg_leaves, self._args_structure)
        self.arg_tensors: Leaves = tuple(leaf for leaf in self._arg_leaves if isinstance(leaf, torch.Tensor))
        self.args_require = tuple(t.requires_grad for t in self.arg_tensors)
        self.captured: Leaves = ()
        self.constants: Leaves = ()
        self.read: Leaves = ()
        self.watched: Leaves = ()
        self.last: tuple[Leaves, Leaves] | None = None
        self._reached: set[int] = set()
        self._last_index = 0
        self._started = False
        self._recording = False
        self._keep_graph = False

    @property
    def capturing(self) -> bool:
        """Whether operations on the devices of z0 are now captured in a CUDA graph instead of run."""
        return self.surroundings.capturing

    @property
    def autocasting(self) -> bool:
        """Whether f is evaluated under autocast, and may return other dtypes than that of z0."""
        return self.surroundings.flags.autocasting

    @property
    def roundoff(self) -> float:
        """The greatest relative spacing among the dtypes that f computes in: those of z0, and that of autocast."""
        cast = [dtype for _, enabled, dtype in self.surroundings.flags.autocast if enabled]
        return max(torch.finfo(dtype).eps for dtype in (*(leaf.dtype for leaf in self.z0), *cast))

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
        narrow = self.border.narrow(z)
        if self._started:
            self.surroundings.restore()
            value = self.evaluate(narrow, self.args)
        else:
            self._started = True
            value = self._first(narrow)
        self.last = (narrow, tuple(v.detach() for v in value))
        self._last_index = self.extras.position - 1
        self.extras.collect()
        return value

    def last_repeats(self, evaluate: Callable[[Leaves], Leaves]) -> bool:
        """Return whether f still has, within rounding, the value that it had in its last evaluation.

        Where nothing can be read, in a torch.func transform or the capture of a CUDA graph, that is taken for granted.

        Args:
            evaluate: evaluates it again, in the surroundings of the forward pass.
        """
        if self.last is None or self.capturing or any(is_functorch_wrapped_tensor(leaf) for leaf in self.last[1]):
            return True
        at, before = self.last
        self.extras.position = self._last_index
        return difference(evaluate(at), before) <= repeatability(self.roundoff)

    def finish(self) -> None:
        """Close the forward pass: check that the evaluations drew the same random numbers.

        Raises:
            GradientError: a later evaluation drew more, fewer or others than the first.
        """
        if self.autocasting and self._recording:
            # Weights cast without a graph must not be taken for those of the operations that follow.
            torch.clear_autocast_cache()
        self.surroundings.finish(self._draws_itself)

    def refuse_unreached(self, replay: Replay) -> None:
        """Raise where a captured tensor that the first evaluation depended on was reached by no replayed one.

        Args:
            replay: after all its evaluations.

        Raises:
            GradientError: it lost its gradient between the passes.
        """
        for tensor in self.read:
            if id(tensor) in self._reached and not replay.reached(tensor):
                raise GradientError(
                    f"function depended on a trainable tensor of shape {tuple(tensor.shape)} in the forward pass and "
                    "does so no more in the backward pass, so its gradient is lost (a module switched between train() "
                    "and eval(), merged weights, a parameter replaced); change that after the backward pass."
                )

    def replay(self, arg_tensors: Leaves, captured_needed: Sequence[bool]) -> Replay:
        """Return what evaluates and linearises f in the backward pass.

        Args:
            arg_tensors: the tensors of args as the autograd node saved them, in the order of `arg_tensors`.
            captured_needed: for each of `captured`, whether its gradient is needed.
        """
        return Replay(self, arg_tensors, captured_needed)

    def with_arg_tensors(self, tensors: Iterable[torch.Tensor]) -> Tree:
        """Return args with its tensors replaced, in order."""
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in self._arg_leaves]
        return unflatten(leaves, self._args_structure)

    def without_graph(self) -> Self:
        """Return this function with nothing that holds on to a graph: it can be evaluated again, without gradients."""
        free = copy.copy(self)
        free.border, free.extras = self.border.without_graph(), self.extras.without_graph()
        free.z0 = free.border.start
        free.arg_tensors = tuple(t.detach() for t in self.arg_tensors)
        free._arg_leaves = [t.detach() if isinstance(t, torch.Tensor) else t for t in self._arg_leaves]
        free.args = unflatten(free._arg_leaves, self._args_structure)
        free.args_require = (False,) * len(free.arg_tensors)
        free.captured = free.read = free.watched = ()
        free.last = None if self.last is None else (tuple(t.detach() for t in self.last[0]), self.last[1])
        return free

    def evaluate(self, z: Leaves, args: Tree, mode: AbstractContextManager[Any] | None = None) -> Leaves:
        """Evaluate f with any args, and check that it leaves z alone and returns what fits.

        Args:
            z: leaves in z0's dtypes.
            args: what to hand to it.
            mode: entered round the call.
        """
        versions = [version(x) for x in z]
        given = (self.border.tree(z), args, *self.extras.arguments())
        if mode is None:
            returned = self.function(*given)
        else:
            with mode:
                returned = self.function(*given)
        self.refuse_changed(z, versions)
        return self.border.checked(self.extras.split(returned), any_float=self.autocasting)

    def refuse_changed(self, z: Leaves, versions: Sequence[int]) -> None:
        """Raise where a state has another version counter than before.

        Raises:
            ValueError: function changed it.
        """
        for i, (x, before) in enumerate(zip(z, versions, strict=True)):
            if version(x) != before:
                raise ValueError(
                    f"function changed its input z in place (leaf {self.border.name(i)}); it must leave z as it is, "
                    "so use the out-of-place form of the operation."
                )

    def _first(self, z: Leaves) -> Leaves:
        """Evaluate f for the first time and learn what it draws and updates, and what it reads where that is wanted."""
        if not is_materialised(self.function):
            # A lazy module takes its shapes, and draws its weights, in a call that belongs to no solve.
            with torch.no_grad():
                self.evaluate(z, self.args)
            self.surroundings = Surroundings(self.z0)
            self.extras.position = 0
        fill_parametrisation_cache(self.function)
        if self._recording:
            return self._discover(z)
        reads = ReadsSeen(())
        value = self._evaluate_watched(z, self.args, reads)
        self.surroundings.learn(reads, self.function, self._draws_itself)
        return value

    def _evaluate_watched(self, z: Leaves, args: Tree, reads: ReadsSeen) -> Leaves:
        refused = contextlib.nullcontext() if self.surroundings.generators_readable else DrawsRefused()
        with refused:
            return self.evaluate(z, args, reads)

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
            stack.enter_context(_without_autocast_cache(self.autocasting))
            stack.enter_context(refuse_sharded_modules())
            if not keep:
                stack.enter_context(own_saved_tensors())
            value = self._evaluate_watched(z, self.with_arg_tensors(local), reads)
        reach = Reach.of(self.function)
        seen = [t for t in reads.trainable() if not made_since(t, since)]
        # On CUDA, a gradient taken inside f makes nodes in a thread of the device, which counts for itself.
        made_here = 0 if self.surroundings.on_cuda else since
        seen += reached_leaves(value, (*z, *local), [Substituted.current(t) for t in seen], made_here)
        ids = {id(t) for t in seen}
        if isinstance(self.function, torch.nn.Module):
            # A later evaluation may read the other parameters: a module decides that by its data.
            seen += [t for t in reach.trainable if id(t) not in ids]
            ids.update(id(t) for t in seen)
        self.read = tuple(seen)
        # Not a leaf that f made for itself, to differentiate inside.
        self._reached = trainable_leaves((*value, *self.extras.now)) & {id(t) for t in reads.trainable()}
        self.captured = tuple(Substituted.current(t) for t in seen)
        self.watched = tuple(t for t in reach.trainable if id(t) not in ids)
        self.surroundings.learn(reads, self.function, self._draws_itself)
        updated = {id(t) for t in self.surroundings.updated}
        self.constants = tuple(t for t in reads.constants() if not t.is_inference() and id(t) not in updated)
        if not keep:
            value = tuple(v.detach() for v in value)
            self.extras.now = tuple(aux.detach() for aux in self.extras.now)
            if not self.capturing:  # what a capture holds on to is its memory
                self._refuse_escaped(reads)
        return value

    def _refuse_escaped(self, reads: ReadsSeen) -> None:
        """Raise where a tensor that f made with a graph, and did not return, is still alive."""
        escaped = reads.made_with_graph()
        if escaped:
            del escaped
            release_remade_weights(self.function)
            gc.collect()  # what only a reference cycle holds is nobody's
            escaped = reads.made_with_graph()
        if escaped:
            shapes = ", ".join(str(tuple(t.shape)) for t in escaped[:3])
            raise GradientError(
                f"function keeps a tensor that it computes and does not return (shape {shapes}), in a list or an "
                "attribute; its gradient would be lost, because the evaluations of a solve have no graph. Return it "
                "beside z and give has_aux='last' or 'sum', detach it where no gradient is wanted, or use "
                "UnrolledAdjoint."
            )

    def _draws_itself(self) -> bool:
        """Evaluate f once more, as it was evaluated last, and return whether it draws random numbers."""
        seen = DrawsSeen()
        at = self.z0 if self.last is None else self.last[0]
        self.extras.position -= 1
        with self.surroundings.replayed(), torch.no_grad():
            self.evaluate(tuple(x.detach() for x in at), self.args, seen)
        return seen.drew


def own_saved_tensors() -> AbstractContextManager[Any]:
    """Return a context in which the user's hooks on saved tensors see nothing: the graph made there is not kept."""
    if _hooks_on_saved_tensors is not None and _hooks_on_saved_tensors(True) is None:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_detached_uncompiled, lambda tensor: tensor)


# Hooks cost a call for every tensor that is saved, so they are set only against others where torch can say so.
_hooks_on_saved_tensors = getattr(getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", None)  # pyright: ignore[reportPrivateUsage]


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
