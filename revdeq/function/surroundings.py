"""What surrounds an evaluation of f, recorded before the first one and brought back for every other one.

NOTE [f is one map]
A fixed point needs one map, so every evaluation of a solve, in the forward pass and in every replay, finds what the
first one found: the same random numbers (one dropout mask a solve), and the same values in the buffers that f reads and
updates (the vectors of spectral normalisation, counters). They are left where one evaluation leaves them. Running
statistics of normalisation layers, which the outputs of a layer in training mode do not depend on, are updated once an
evaluation in the forward pass, as in a plain loop, and never by backward.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from revdeq._environment import Flags, RandomState
from revdeq._errors import GradientError
from revdeq._tree import Leaves
from revdeq.function.reach import Reach
from revdeq.function.reads import ReadsSeen


def is_symbolic(leaves: Leaves) -> bool:
    """Return whether tensors have shapes and no values to read: on the meta device, fake ones, those of an export."""
    return torch.compiler.is_compiling() or any(leaf.is_meta or isinstance(leaf, FakeTensor) for leaf in leaves)


class Surroundings:
    """The switches, random number generators and buffers that evaluations of f depend on; see NOTE [f is one map].

    Args:
        start: leaves of z0, on whose devices f computes.

    Attributes:
        symbolic: see `is_symbolic`.
    """

    def __init__(self, start: Leaves) -> None:
        types = [leaf.device.type for leaf in start]
        self._cuda = tuple({leaf.device.index for leaf in start if leaf.device.type == "cuda"})
        self.flags = Flags.now(list(dict.fromkeys([*types, "cpu"])))
        self.symbolic = is_symbolic(start)
        # The state of a generator cannot be read while a CUDA graph is captured, and tensors without data need none.
        self._before = None if self.capturing or self.symbolic else RandomState.now(self._cuda)
        self._after: RandomState | None = None
        self._draws = False
        self._buffers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
        self._statistics: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    @property
    def capturing(self) -> bool:
        """Whether operations on the devices of z0 are now captured in a CUDA graph instead of run."""
        return bool(self._cuda) and torch.cuda.is_current_stream_capturing()

    @property
    def generators_readable(self) -> bool:
        """Whether random numbers can be repeated; they cannot in the capture of a CUDA graph."""
        return self._before is not None or self.symbolic

    @property
    def on_cuda(self) -> bool:
        """Whether a leaf of z0 is on a CUDA device."""
        return bool(self._cuda)

    @property
    def updated(self) -> tuple[torch.Tensor, ...]:
        """The tensors that f changes in place."""
        return tuple(tensor for tensor, _ in (*self._statistics, *self._buffers))

    def learn(self, reads: ReadsSeen, function: Any, draws_itself: Callable[[], bool]) -> None:
        """Take note of what the first evaluation drew and changed.

        Args:
            reads: what was seen of it.
            function: the function, whose normalisation layers are looked for where it changed anything.
            draws_itself: whether f draws random numbers; asked where a generator moved and f was not seen to move it,
                since another thread may have.
        """
        updated = reads.updated()
        running = {id(t) for t in Reach.of(function).statistics} if updated else set[int]()
        self._buffers = tuple(pair for pair in updated if id(pair[0]) not in running)
        self._statistics = (*reads.statistics(), *(pair for pair in updated if id(pair[0]) in running))
        if self._before is not None:
            self._before = dataclasses.replace(self._before, named=tuple(reads.generators.values()))
            self._after = self._now()
            self._draws = not self._before.same_as(self._after) and (reads.drew or draws_itself())

    def moved(self) -> bool:
        """Return whether generators have moved since this was made."""
        return self._before is not None and not self._before.same_as(self._now())

    def restore(self) -> None:
        """Put generators and buffers back to where the first evaluation found them."""
        if self._draws:
            assert self._before is not None
            self._before.restore()
        for buffer, value in self._buffers:
            # `.data` leaves the version counter alone: other graphs may have saved the buffer.
            buffer.data.copy_(value)

    @contextlib.contextmanager
    def restored(self) -> Generator[None]:
        """Put generators and buffers back for an evaluation in the backward pass, whose hooks draw as they go on."""
        now = self._now() if self._draws else None
        self.restore()
        try:
            yield
        finally:
            if now is not None:
                now.restore()

    def forget(self) -> None:
        """Put back everything that evaluations of f have changed, as if there had been none."""
        self.restore()
        for tensor, value in self._statistics:
            tensor.data.copy_(value)

    def finish(self, draws_itself: Callable[[], bool]) -> None:
        """Check that the last evaluation drew the random numbers that the first one drew.

        Args:
            draws_itself: see `learn`.

        Raises:
            GradientError: it drew more, fewer or others.
        """
        if self._after is not None and not self._after.same_as(self._now()) and (self._draws or draws_itself()):
            raise GradientError(
                "function drew other random numbers in a later evaluation than in the first, so it is not one map; "
                "draw the same at every evaluation, or draw them before the solve and pass them in args. If another "
                "thread draws from the same generator meanwhile, give that thread a torch.Generator of its own."
            )

    @contextlib.contextmanager
    def replayed(self) -> Generator[None]:
        """Hold the switches of the forward pass inside the block; updated tensors end as they were."""
        updated = self.updated
        values = [t.detach().clone() for t in updated]
        try:
            with self.flags.active(), torch.enable_grad():
                yield
        finally:
            for tensor, value in zip(updated, values, strict=True):
                tensor.data.copy_(value)

    def _now(self) -> RandomState:
        assert self._before is not None
        return RandomState.now(self._cuda, [generator for generator, _ in self._before.named])
