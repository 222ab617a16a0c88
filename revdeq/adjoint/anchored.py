"""The record that stores the states every few steps and rebuilds those between, checked to the bit.

NOTE [Checked reversal]
A segment of steps is undone from the states at its upper end, and the gradient is right if f sees the very bits that it
saw in the forward pass. No norm of a state can tell that: a component that cancels to rounding noise within a segment
turns a ReLU over and has vanished at its end. So the forward pass keeps a fingerprint of f's input at every evaluation,
and the backward pass compares. On a difference the sums of the segment are dropped and its steps are taken again,
forwards, from the states stored at its lower end, which reproduces every bit of a map that repeats; if the fingerprints
show that it does not, there is no gradient. The first evaluation of a segment is at the stored state itself, so there
the fingerprint is of f's value: it says whether f repeats where no later evaluation would show it.
"""

from typing import NamedTuple

import torch

from revdeq._fingerprint import fingerprint
from revdeq._tree import Leaves
from revdeq.adjoint.base import not_repeated
from revdeq.adjoint.record import Record, Way
from revdeq.adjoint.segments import Segments
from revdeq.function import Function
from revdeq.solver.reversible import Coupled


class States(NamedTuple):
    """The states at the ends of segments.

    Attributes:
        anchors: (y, z) at the start of every segment but the first, which starts at z0, and after the last step.
        prints: an int64 tensor with one entry a half step, see NOTE [Checked reversal]; empty where none are compared.
    """

    anchors: tuple[tuple[Leaves, Leaves], ...]
    prints: tuple[torch.Tensor, ...]


class Anchored(Record):
    """Keeps the states at the ends of segments and fingerprints of what f sees.

    Args:
        f: the function.
        segments: where they are.
    """

    def __init__(self, f: Function, segments: Segments) -> None:
        super().__init__(f)
        self._segments = segments
        self._starts = frozenset(segments.starts or ()) if not isinstance(segments.starts, range) else segments.starts
        self._anchors: list[tuple[Leaves, Leaves]] = []
        self._prints: list[torch.Tensor] = []

    def step(self, n: int, state: Coupled, active: torch.Tensor | None) -> None:
        """See `Watch.step`."""
        super().step(n, state, active)
        if n > 0 and n in self._starts:
            # Copies where a step without masks may change its states in place.
            copied = (tuple(leaf.clone() for leaf in leaves) for leaves in (state.y, state.z))
            self._anchors.append((state.y, state.z) if active is not None else (next(copied), next(copied)))

    def evaluated(self, k: int, at: Leaves, value: Leaves) -> None:
        """See `Record.evaluated`."""
        self._prints.append(fingerprint(value if k % 2 == 0 and k // 2 in self._starts else at))

    def kept(self, end: Coupled, num_steps: int) -> States:
        """See `Record.kept`."""
        prints = self._prints[: 2 * num_steps]
        anchors = (*self._anchors, (end.y, end.z))
        self._anchors, self._prints = [], []
        return States(anchors, (torch.stack(prints),) if prints else ())

    def go_back(self, kept: States, way: Way) -> None:
        """See `Record.go_back`."""
        segments = self._segments.cut(len(way.masks))
        way.health.segments = len(segments)
        for i in reversed(range(len(segments))):
            mark = way.pullback.mark()
            lower = kept.anchors[i - 1] if i > 0 else None
            found = self._undo(segments[i], kept.anchors[i], lower, way)
            steps = slice(2 * segments[i].start, 2 * segments[i].stop)
            if segments[i] and not torch.equal(found, kept.prints[0][steps]):
                way.pullback.return_to(mark)
                way.health.repeated_segments += 1
                self._take_again(segments[i], lower, kept.prints[0][steps], way)
        way.health.verified, way.health.replay_error = True, 0.0

    @staticmethod
    def _undo(
        steps: range, upper: tuple[Leaves, Leaves], lower: tuple[Leaves, Leaves] | None, way: Way
    ) -> torch.Tensor:
        """Undo the steps of one segment and return the fingerprints that it left, in the order of the forward pass."""
        y, z = upper
        found: list[torch.Tensor] = []
        for n in reversed(steps):
            active = way.masks[n]
            ours = n < steps.stop - 1
            at = way.seen_at_y(y, z, n)
            found.append(fingerprint(at))
            if n > steps.start:
                _, z = way.pullback.undoing(2 * n + 1, at, z, active, ours=ours)
                at = way.replay.narrow(z)
                found.append(fingerprint(at))
                _, y = way.pullback.undoing(2 * n, at, y, active, ours=ours)
            else:
                # The states below are stored, so nothing has to be rebuilt from here.
                way.pullback.through(2 * n + 1, at, active)
                at = way.replay.narrow(way.z0 if lower is None else lower[1])
                found.append(fingerprint(way.pullback.through(2 * n, at, active)))
        return torch.stack(found[::-1]) if found else torch.empty(0, dtype=torch.int64)

    @staticmethod
    def _take_again(steps: range, lower: tuple[Leaves, Leaves] | None, prints: torch.Tensor, way: Way) -> None:
        if lower is None:
            start = way.solver.init(way.z0)
        else:
            y, z = (tuple(leaf.clone() for leaf in leaves) for leaves in lower)
            start = Coupled(y, z)
        seen, _ = way.repeated(start, steps, way.masks[steps.start : steps.stop])
        way.health.repeated_evaluations += len(seen)  # those of the products, which undoing took in vain
        found = [fingerprint(at) for at in seen]
        for k, value in way.back_through(steps, seen):
            if k == 2 * steps.start:
                found[0] = fingerprint(value)
        differing = (torch.stack(found) != prints).nonzero().reshape(-1).tolist()
        if differing:
            raise not_repeated(f"evaluation {2 * steps.start + max(0, differing[0] - 1)}", way.replay)
