"""The reversed steps: states undone, cotangents pulled back, gradients summed.

NOTE [One reversed half step]
The half step s' = a s + beta f(o), a = 1 - beta, moved one state s and left the other, o, as it was. With p and q their
cotangents after it and K(o) = df/dz at o, the backward pass does

    evaluate f(o) and keep its graph           s     = (s' - beta f(o)) / a
    pull beta p back through it                q     <- q + beta K(o)^T p           p <- a p
                                               theta <- theta + beta f_theta(o)^T p

so the evaluation that rebuilds a state is the one whose graph carries the cotangent. A step back is this twice: z is
undone at y', then y at the z so found, with 2 evaluations of f and 2 VJPs in all.

NOTE [Stopped samples]
A sample that had stopped by step n gets no VJP from its own values, but where f couples samples (batch statistics) the
values of the others depend on its state, which is that of the forward pass: its cotangents receive those parts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch

from revdeq.adjoint.totals import Totals
from revdeq.arithmetic.base import LeafState
from revdeq.arithmetic.floating import scaled
from revdeq.arithmetic.tape import Entry
from revdeq.function import Replay
from revdeq.half_step import ReversedHalfSteps
from revdeq.iterate import where_active
from revdeq.linearisation import PartialLeaves
from revdeq.residual import masked
from revdeq.solver.relaxation import Beta
from revdeq.solver.reversible import Coupled, Reversible
from revdeq.tree import Leaves


_States = TypeVar("_States", bound=tuple[Any, ...])


class Reversed(NamedTuple):
    """What one pass through the reversed steps found.

    Attributes:
        start: gradient with respect to z0 in the state dtype.
        inputs: gradients of `Replay.inputs`.
        rebuilt: the start states as reversal rebuilt them.
        cotangents: (p_y, p_z) at the start, whose sum is `start`.
        replayed: the first replayed value, f(y_N), in the samples that took the last step; empty where no step was.
        repeated: what the forward pass had there, likewise.
    """

    start: Leaves
    inputs: PartialLeaves
    rebuilt: Coupled
    cotangents: Leaves
    replayed: Leaves
    repeated: Leaves


class Cotangents(NamedTuple):
    """Cotangents of the two states, in the state dtype."""

    y: Leaves
    z: Leaves


def reverse(
    solver: Reversible,
    replay: Replay,
    end: Coupled,
    lost: Sequence[Entry],
    z0: Leaves,
    cotangents: Cotangents,
    repeated: Leaves,
    num_steps: torch.Tensor | None,
    last: int,
) -> Reversed:
    """Run the reversed steps; see NOTE [One reversed half step].

    Args:
        solver: the iteration.
        replay: the function in the backward pass.
        end: the final states.
        lost: what the half steps lost, two entries a step, in bitwise arithmetic; else empty.
        z0: leaves of the start state.
        cotangents: of the final states; fresh tensors, which are changed in place.
        repeated: the value f(y_N) of the forward pass, which the first evaluation here repeats; or empty.
        num_steps: int64 tensor of steps per sample; None where all samples took `last`.
        last: the greatest number of steps.
    """
    y, z = _Side(end.y, cotangents.y), _Side(end.z, cotangents.z)
    totals = Totals(len(replay.inputs))
    first: tuple[Leaves, Leaves] = ((), ())
    with replay.active(), torch.no_grad():
        for n in reversed(range(last)):
            active = None if num_steps is None else num_steps > n
            beta_y, beta_z = solver.betas(n)
            lost_y, lost_z = lost[2 * n : 2 * n + 2] or (None, None)
            # The final states are saved for another backward pass, and what is selected from is needed twice.
            ours = n < last - 1 and active is None
            value, z, y = _undone(solver, replay, totals, z, y, solver.values(y.state), beta_z, lost_z, active, ours)
            if repeated and n == last - 1:
                first = (masked(active, value), masked(active, repeated))
            # Integers stand for a rounded z0, but the forward pass evaluated f at z0 itself.
            at = z0 if n == 0 and solver.repeats else solver.values(z.state)
            _, y, z = _undone(solver, replay, totals, y, z, at, beta_y, lost_y, active, ours)
    return Reversed(
        tuple(u + v for u, v in zip(y.cotangent, z.cotangent, strict=True)),
        totals.sums(),
        Coupled(y.state, z.state),
        (*y.cotangent, *z.cotangent),
        *first,
    )


class _Side(NamedTuple):
    """One of the two coupled states, and its cotangent, a fresh tensor that may be changed."""

    state: tuple[LeafState, ...]
    cotangent: Leaves


def _undone(
    solver: Reversible,
    replay: Replay,
    totals: Totals,
    moved: _Side,
    other: _Side,
    at: Leaves,
    beta: Beta,
    lost: Entry | None,
    active: torch.Tensor | None,
    ours: bool,
) -> tuple[Leaves, _Side, _Side]:
    """Undo the half step in which f at `at`, the state of `other`, moved `moved`; see NOTE [One reversed half step].

    Returns:
        The value of f, then `moved` and `other` as they were before it.
    """
    if solver.compile:
        steps = cast(ReversedHalfSteps, replay)
        undone = steps.undo_half_step(moved.state, at, masked(active, moved.cotangent), other.cotangent, beta)
        totals.add(undone.inputs)
        before = _select(active, undone.state, moved.state), _select(active, undone.moved, moved.cotangent)
        return undone.value, _Side(*before), _Side(other.state, undone.other)
    f = replay.linearise(at)
    state = _select(active, solver.undo_half_step(moved.state, f.value, lost, beta, ours=ours), moved.state)
    to_other, to_inputs = f.pull_back(masked(active, tuple(scaled(p, beta) for p in moved.cotangent)))
    totals.add(to_inputs)
    for q, part in zip(other.cotangent, to_other, strict=True):
        if part is not None:
            q.add_(part)
    return f.value, _Side(state, _kept(moved.cotangent, beta, active)), other


def _kept(cotangent: Leaves, beta: Beta, active: torch.Tensor | None) -> Leaves:
    if active is None and isinstance(beta, float):
        return tuple(p.mul_(1.0 - beta) for p in cotangent)
    return _select(active, tuple(scaled(p, 1.0 - beta) for p in cotangent), cotangent)


def _select(active: torch.Tensor | None, new: _States, old: _States) -> _States:
    return new if active is None else where_active(active, new, old)
