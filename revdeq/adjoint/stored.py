"""The record that stores what f sees at every evaluation: nothing is undone, and nothing can be lost."""

from typing import NamedTuple, cast

import torch

from revdeq._fingerprint import fingerprint
from revdeq._residual import joint_norm, masked, per_sample
from revdeq._tree import Leaves
from revdeq.adjoint.base import not_repeated
from revdeq.adjoint.record import Record, Way
from revdeq.function import Function
from revdeq.function.linearisation import repeatability
from revdeq.solver.betas import Beta
from revdeq.solver.reversible import Coupled


class Inputs(NamedTuple):
    """What f saw.

    Attributes:
        seen: f's input at every half step, in f's dtype.
        prints: fingerprints of its values, an int64 tensor with one entry a half step; empty where not to be compared.
        end: z_N in f's dtype.
    """

    seen: tuple[Leaves, ...]
    prints: tuple[torch.Tensor, ...]
    end: Leaves


class Stored(Record):
    """Keeps f's input at every evaluation, in f's dtype, with a fingerprint of its value.

    Args:
        f: the function.
    """

    def __init__(self, f: Function) -> None:
        super().__init__(f)
        self._inputs: list[Leaves] = []
        self._prints: list[torch.Tensor] = []

    def evaluated(self, k: int, at: Leaves, value: Leaves) -> None:
        """See `Record.evaluated`."""
        self._inputs.append(at)
        self._prints.append(fingerprint(value))

    def kept(self, end: Coupled, num_steps: int) -> Inputs:
        """See `Record.kept`."""
        inputs, prints = self._inputs[: 2 * num_steps], self._prints[: 2 * num_steps]
        self._inputs, self._prints = [], []
        return Inputs(tuple(inputs), (torch.stack(prints),) if prints else (), self._f.border.narrow(end.z))

    def go_back(self, kept: Inputs, way: Way) -> None:
        """See `Record.go_back`; a value that does not repeat to the bit has to repeat within rounding."""
        mark = way.pullback.mark()
        seen = [fingerprint(value) for _, value in way.back_through(range(len(way.masks)), kept.seen)]
        way.health.replay_error = 0.0
        way.health.verified = not seen or torch.equal(torch.stack(seen[::-1]), kept.prints[0])
        if not way.health.verified:
            way.pullback.return_to(mark)
            self._go_back_comparing(kept, way)

    def _go_back_comparing(self, kept: Inputs, way: Way) -> None:
        way.health.repeated_evaluations += len(kept.seen)
        states = (way.y0 or way.z0, *kept.seen, kept.end)  # y_0, z_0, y_1, z_1, ... z_N, in f's dtype
        for k, value in way.back_through(range(len(way.masks)), kept.seen):
            n, active = k // 2, way.masks[k // 2]
            if k % 2 == 0 and n > 0 and active is not None:
                # f did not see the y of a sample that took no step before this one.
                active = active & cast(torch.Tensor, way.masks[n - 1])
            error, rounded = _difference(value, states[k], states[k + 2], way.pullback.beta(k), active)
            limit = rounded + repeatability(way.replay.roundoff)
            if not error <= limit:
                raise not_repeated(f"evaluation {k}, relative difference {error:.1e}", way.replay)
            way.health.replay_error = max(error, way.health.replay_error or 0.0)


def _difference(
    value: Leaves, before: Leaves, after: Leaves, beta: Beta, active: torch.Tensor | None
) -> tuple[float, float]:
    """Return how far a value is from that which moved `before` to `after`, relative to it.

    And how far that may be because the states are known to the roundings of their dtype alone.
    """
    moved: list[torch.Tensor] = []
    for old, new in zip(before, after, strict=True):
        factor = per_sample(beta, old) if isinstance(beta, torch.Tensor) else beta
        moved.append((new.double() - (1.0 - factor) * old.double()) / factor)
    roundoff = max(torch.finfo(leaf.dtype).eps for leaf in value)
    apart = masked(active, tuple(v.double() - w for v, w in zip(value, moved, strict=True)))
    size = float(joint_norm(masked(active, value)))
    states = float(joint_norm(masked(active, before)) + joint_norm(masked(active, after)))
    least = float(beta.min()) if isinstance(beta, torch.Tensor) else beta
    scale = size if size > 0 else 1.0
    return float(joint_norm(apart)) / scale, 4 * roundoff * states / (least * scale)
