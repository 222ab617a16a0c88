"""The user's function as one call that finds what it reads and can be replayed in the backward pass.

See NOTE [What f reads] in `revdeq.function.sources`, NOTE [The same graph] in `revdeq.function.graph`, and NOTE [f is
one map] in `revdeq.function.surroundings`.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from torch._C._functorch import is_functorch_wrapped_tensor

from revdeq._environment import DrawsRefused, DrawsSeen
from revdeq._tree import Leaves, Tree, flatten, unflatten
from revdeq.function.border import BatchDims, Border, savable
from revdeq.function.extras import Extras
from revdeq.function.graph import Graph, made_since, sequence_number
from revdeq.function.linearisation import difference
from revdeq.function.local import Tether, local_leaves, nodes_of, own_saved_tensors, without_autocast_cache
from revdeq.function.reach import fill_parametrisation_cache, is_materialised
from revdeq.function.reads import ReadsSeen, version
from revdeq.function.replay import Replay
from revdeq.function.sharding import refuse_sharded_modules
from revdeq.function.sources import Sources, refuse_escaped
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
        y0: those of the second one, where a solve continues from two states; else empty.
        arg_tensors: the tensors of args.
        args_require: which of them required grad in the forward pass.
        sources: trainable tensors that it reads from elsewhere, as far as evaluations have shown.
        constants: what it reads and nothing trains or updates; known after the first evaluation.
        last: the leaves at which it was evaluated last, and its value there without a graph.
        last_position: the index of that evaluation.

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
        self.y0: Leaves = ()
        self.surroundings = Surroundings(self.z0)
        self.function = function
        self.extras = Extras(None, False, 1) if extras is None else extras
        given, self._args_structure = flatten(args)
        self._arg_leaves = [savable(leaf) for leaf in given]
        same = all(a is b for a, b in zip(given, self._arg_leaves, strict=True))
        self.args = args if same else unflatten(self._arg_leaves, self._args_structure)
        self.arg_tensors: Leaves = tuple(leaf for leaf in self._arg_leaves if isinstance(leaf, torch.Tensor))
        self.args_require = tuple(t.requires_grad for t in self.arg_tensors)
        self.sources = Sources(())
        self.constants: Leaves = ()
        self.last: tuple[Leaves, Leaves] | None = None
        self.last_position = 0
        self._started = False
        self._recording = False
        self._keep_graph = False
        self._aliases: Leaves = ()

    @property
    def captured(self) -> Leaves:
        """The trainable tensors that it reads from elsewhere than its arguments."""
        return self.sources.captured

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
        self._alias_args()

    def _alias_args(self) -> None:
        # The same tensor read from elsewhere than args is then seen as captured too.
        self._aliases = tuple(t.detach().requires_grad_(t.requires_grad) for t in self.arg_tensors)
        self.sources = Sources(self._aliases)

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
        if not self._started:
            self._started = True
            value = self._first(narrow)
        else:
            self.surroundings.restore()
            recording = self._recording and not self._keep_graph
            value = self._observed(narrow) if recording else self.evaluate(narrow, self.args)
        self.last = (narrow, tuple(v.detach() for v in value))
        self.last_position = self.extras.position - 1
        self.extras.collect()
        return value

    def difference_of_last(self, evaluate: Callable[[Leaves], Leaves]) -> float | None:
        """Return by how much f's value now differs, relatively, from that of its last evaluation.

        None where nothing can be read: in a torch.func transform, or the capture of a CUDA graph.

        Args:
            evaluate: evaluates it again, in the surroundings of the forward pass.
        """
        if self.last is None or self.capturing or any(is_functorch_wrapped_tensor(leaf) for leaf in self.last[1]):
            return None
        at, before = self.last
        self.extras.position = self.last_position
        return difference(evaluate(at), before)

    def finish(self) -> None:
        """Close the forward pass: check that the evaluations drew the same random numbers.

        Raises:
            GradientError: a later evaluation drew more, fewer or others than the first.
        """
        if self.autocasting and self._recording:
            # Weights cast without a graph must not be taken for those of the operations that follow.
            torch.clear_autocast_cache()
        self.surroundings.finish(self._draws_itself)

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
        free.z0, free.y0 = free.border.start, ()
        free.arg_tensors = tuple(t.detach() for t in self.arg_tensors)
        free._arg_leaves = [t.detach() if isinstance(t, torch.Tensor) else t for t in self._arg_leaves]
        free.args = unflatten(free._arg_leaves, self._args_structure)
        free.args_require = (False,) * len(free.arg_tensors)
        free._aliases, free.sources = (), Sources(())
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
        with mode or contextlib.nullcontext():
            try:
                returned = self.function(*given)
            except RuntimeError as error:
                if "a view of a leaf Variable that requires grad is being used in an in-place" in str(error):
                    raise _changed_in_place(self.border.name(0) if len(z) == 1 else "one of them") from error
                raise
        self.refuse_changed(z, versions)
        return self.border.checked(self.extras.split(returned), any_float=self.autocasting)

    def refuse_changed(self, z: Leaves, versions: Sequence[int]) -> None:
        """Raise where a state has another version counter than before.

        Raises:
            ValueError: function changed it.
        """
        for i, (x, before) in enumerate(zip(z, versions, strict=True)):
            if version(x) != before:
                raise _changed_in_place(self.border.name(i))

    def _first(self, z: Leaves) -> Leaves:
        """Evaluate f for the first time and learn what it draws and updates, and what it reads where that is wanted."""
        if not is_materialised(self.function):
            # A lazy module takes its shapes, and draws its weights, in a call that belongs to no solve.
            with torch.no_grad():
                self.evaluate(z, self.args)
            self._start_anew()
        fill_parametrisation_cache(self.function)
        value, reads = self._learnt(z)
        if reads.initialised and not self._keep_graph:
            # Nor does a call in which a layer takes its parameters from the first batch.
            self._start_anew()
            value, reads = self._learnt(z)
        if reads.initialised:
            raise ValueError(
                "function writes into a trainable tensor, so it is not one map; update that tensor outside the solve, "
                "or make it a buffer. If it initialises itself in its first call, call it once before the solve."
            )
        updated = {id(t) for t in self.surroundings.updated}
        self.constants = tuple(t for t in reads.constants() if not t.is_inference() and id(t) not in updated)
        return value

    def _start_anew(self) -> None:
        """Forget an evaluation that belongs to no solve."""
        self.surroundings = Surroundings(self.z0)
        self.extras.position = 0
        self.sources = Sources(self._aliases)

    def _learnt(self, z: Leaves) -> tuple[Leaves, ReadsSeen]:
        """Return the value of the first evaluation, and what was seen of it."""
        if not self._recording:
            reads = ReadsSeen(())
            value = self._watched(z, self.args, reads)
            self.surroundings.learn(reads, self.function, self._draws_itself)
            return value, reads
        reads = ReadsSeen((*z, *(self.arg_tensors if self._keep_graph else self._aliases)))
        return (self._traced if self._keep_graph else self._observed)(z, reads), reads

    def _watched(self, z: Leaves, args: Tree, reads: ReadsSeen) -> Leaves:
        refused = contextlib.nullcontext() if self.surroundings.generators_readable else DrawsRefused()
        with refused:
            return self.evaluate(z, args, reads)

    def _traced(self, z: Leaves, reads: ReadsSeen) -> Leaves:
        """Evaluate f for the first time with the graph that the caller wants, and find what it reads."""
        with torch.enable_grad(), without_autocast_cache(self.autocasting), refuse_sharded_modules():
            value = self._watched(z, self.args, reads)
        self.sources.take(reads.trainable())
        self.surroundings.learn(reads, self.function, self._draws_itself)
        return value

    def _observed(self, z: Leaves, reads: ReadsSeen | None = None) -> Leaves:
        """Evaluate f with a graph as the backward pass will, find what it reads, and drop the graph.

        Args:
            z: leaves in z0's dtypes.
            reads: what watches the first evaluation; None for a later one.
        """
        position = self.extras.position
        # On CUDA, a gradient taken inside f makes nodes in a thread of the device, which counts for itself.
        since = sequence_number()
        made_here = 0 if self.surroundings.on_cuda else since
        _, given = local_leaves(z)
        with torch.enable_grad():
            local_args = tuple(t.view_as(t) if t.requires_grad else t for t in self._aliases)
        begin = (*given, *(t for t in local_args if t.requires_grad))
        tether, args = Tether(begin), self.with_arg_tensors(local_args)
        with torch.enable_grad(), without_autocast_cache(self.autocasting), own_saved_tensors():
            if reads is None:
                value = self.evaluate(given, args)
            else:
                reads.take_for_inside((*given, *local_args))
                with refuse_sharded_modules():
                    value = self._watched(given, args, reads)
                self.sources.take(t for t in reads.trainable() if not made_since(t, since))
        graph = Graph.of((*value, *self.extras.now), self.sources.ends | nodes_of(begin), made_here)
        unlisted = self.sources.note(graph, position)
        del graph, given, local_args, begin, args
        value = tuple(v.detach() for v in value)
        self.extras.now = tuple(aux.detach() for aux in self.extras.now)
        if reads is not None:
            self.surroundings.learn(reads, self.function, self._draws_itself)
        if not self.capturing:  # what a capture holds on to is its memory
            refuse_escaped(tether)
        if unlisted:
            self.sources.take_outliving(unlisted)
        return value

    def _draws_itself(self) -> bool:
        """Evaluate f once more, as it was evaluated last, and return whether it draws random numbers."""
        seen = DrawsSeen()
        at = self.z0 if self.last is None else self.last[0]
        self.extras.position -= 1
        with self.surroundings.replayed(), torch.no_grad():
            self.evaluate(tuple(x.detach() for x in at), self.args, seen)
        return seen.drew


def _changed_in_place(leaf: str) -> ValueError:
    return ValueError(
        f"function changed its input z in place (leaf {leaf}); it must leave z as it is, so use the out-of-place form "
        "of the operation."
    )
