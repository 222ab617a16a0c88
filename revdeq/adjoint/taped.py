"""The record of an arithmetic that undoes half steps to the bit: the final states, and a tape of what they lost."""

from typing import Any, NamedTuple

from revdeq._errors import GradientError
from revdeq._tree import Leaves
from revdeq.adjoint.record import Record, Way
from revdeq.solver.reversible import Coupled


class Tapes(NamedTuple):
    """The final states and what the half steps lost.

    Attributes:
        y: leaves of y_N as the arithmetic keeps them.
        z: likewise.
        entries: the remainders, two entries a step.
    """

    y: tuple[Any, ...]
    z: tuple[Any, ...]
    entries: tuple[Any, ...]


class Taped(Record):
    """Keeps what the arithmetic wrote on its tape; that the start comes back to the bit shows that f repeated."""

    def evaluated(self, k: int, at: Leaves, value: Leaves) -> None:
        """See `Record.evaluated`."""

    def kept(self, end: Coupled, num_steps: int) -> Tapes:
        """See `Record.kept`."""
        return Tapes(end.y, end.z, tuple(entry for tape in end.tape for entry in tape.entries()))

    def go_back(self, kept: Tapes, way: Way) -> None:
        """See `Record.go_back`."""
        solver, y, z = way.solver, kept.y, kept.z
        for n in reversed(range(len(way.masks))):
            active = way.masks[n]
            lost_y, lost_z = kept.entries[2 * n : 2 * n + 2] or (None, None)
            at = way.seen_at_y(solver.half_steps.values(y), solver.half_steps.values(z), n)
            _, z = way.pullback.undoing(2 * n + 1, at, z, active, lost=lost_z)
            # Integers stand for a rounded z0, but the forward pass evaluated f at z0 itself.
            at = way.replay.narrow(way.z0 if n == 0 else solver.half_steps.values(z))
            _, y = way.pullback.undoing(2 * n, at, y, active, lost=lost_y)
        returned = solver.returned(Coupled(y, z), way.z0)
        way.health.verified = returned is not None and bool(returned)
        if not way.health.verified:
            raise GradientError(
                "function does not repeat to the bit: evaluated again in backward it returned other values, so the "
                "states could not be undone; make it deterministic (torch.use_deterministic_algorithms(True), no "
                "state of its own), or use arithmetic='floating'."
            )
        way.health.replay_error = 0.0
