"""The reversed steps: states undone, cotangents pulled back, gradients summed.

NOTE [One reversed step]
With a = 1 - beta, K(s) = df/dz at s, and cotangents p_y, p_z of the states after the step, the backward pass does (a
and beta of the half step of z above, of y below, where a schedule has them differ)

    evaluate f(y') and keep its graph          z   = (z' - beta f(y')) / a
    pull beta p_z back through it              q   = p_y + beta K(y')^T p_z      theta += beta f_theta(y')^T p_z
    evaluate f(z) and keep its graph           y   = (y' - beta f(z)) / a
    pull beta q back through it                p_z <- a p_z + beta K(z)^T q      theta += beta f_theta(z)^T q
                                               p_y <- a q

so the evaluation that rebuilds a state is the one whose graph carries the cotangent: 2 evaluations and 2 VJPs a step.

NOTE [Stopped samples]
A sample that had stopped by step n gets no VJP from its own values, but where f couples samples (batch statistics) the
values of the others depend on its state, which is that of the forward pass: its cotangents receive those parts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from revdeq.adjoint.totals import Totals
from revdeq.arithmetic.floating import scaled
from revdeq.arithmetic.tape import Entry
from revdeq.function import PartialLeaves, Replay
from revdeq.iterate import where_active
from revdeq.residual import joint_norm, masked
from revdeq.solver.reversible import Coupled, Reversible
from revdeq.tree import Leaves


_States = TypeVar("_States", bound=tuple[Any, ...])


class Reversed(NamedTuple):
    """What one pass through the reversed steps found.

    Attributes:
        start: gradient with respect to z0 in the state dtype.
        inputs: gradients of `Replay.inputs`.
        rebuilt: the start states as reversal rebuilt them.
        cotangent_norm: norm of (p_y, p_z) at the start, a 0-d tensor.
        replay_error: relative difference of the first replayed value from the forward one, 0-d, or None.
    """

    start: Leaves
    inputs: PartialLeaves
    rebuilt: Coupled
    cotangent_norm: torch.Tensor
    replay_error: torch.Tensor | None


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
    """Run the reversed steps; see NOTE [One reversed step].

    Args:
        solver: the iteration.
        replay: the function in the backward pass.
        end: the final states.
        lost: what the half steps lost, two entries a step, in bitwise arithmetic; else empty.
        z0: leaves of the start state.
        cotangents: of the final states.
        repeated: the value f(y_N) of the forward pass, which the first evaluation here repeats; or empty.
        num_steps: int64 tensor of steps per sample; None where all samples took `last`.
        last: the greatest number of steps.
    """
    (y, z), (p_y, p_z) = (end.y, end.z), cotangents
    totals = Totals(len(replay.inputs))
    replay_error = None
    with replay.active():
        for n in reversed(range(last)):
            active = None if num_steps is None else num_steps > n
            beta_y, beta_z = solver.betas(n)
            lost_y, lost_z = lost[2 * n : 2 * n + 2] or (None, None)
            at_y = replay.linearise(solver.values(y))
            if repeated and replay_error is None:
                with torch.no_grad():
                    replay_error = _relative_difference(masked(active, at_y.value), masked(active, repeated))
            with torch.no_grad():
                z = _select(active, solver.undo_z(z, at_y.value, lost_z, n), z)
                weighted = masked(active, tuple(scaled(p, beta_z) for p in p_z))
            to_y, inputs = at_y.pull_back(weighted)
            totals.add(inputs)
            with torch.no_grad():
                # The cotangents that were handed in are not ours to change.
                q = _plus(p_y, to_y) if n == last - 1 else _add_to(p_y, to_y)
            # Integers stand for a rounded z0, but the forward pass evaluated f at z0 itself.
            at_z = replay.linearise(z0 if n == 0 and solver.repeats else solver.values(z))
            with torch.no_grad():
                y = _select(active, solver.undo_y(y, at_z.value, lost_y, n), y)
                weighted = masked(active, tuple(scaled(x, beta_y) for x in q))
            to_z, inputs = at_z.pull_back(weighted)
            totals.add(inputs)
            with torch.no_grad():
                p_z = _add_to(_select(active, tuple(scaled(p, 1.0 - beta_z) for p in p_z), p_z), to_z)
                p_y = _select(active, tuple(scaled(x, 1.0 - beta_y) for x in q), q)
    return Reversed(
        tuple(u + v for u, v in zip(p_y, p_z, strict=True)),
        totals.sums(),
        Coupled(y, z),
        joint_norm((*p_y, *p_z)),
        replay_error,
    )


def _plus(total: Leaves, part: PartialLeaves) -> Leaves:
    return tuple(t if p is None else t + p for t, p in zip(total, part, strict=True))


def _add_to(total: Leaves, part: PartialLeaves) -> Leaves:
    """Add in place: fresh tensors of this size cost as much as the sum."""
    return tuple(t if p is None else t.add_(p) for t, p in zip(total, part, strict=True))


def _select(active: torch.Tensor | None, new: _States, old: _States) -> _States:
    return new if active is None else where_active(active, new, old)


def _relative_difference(values: Leaves, others: Leaves) -> torch.Tensor:
    """Return the norm of the difference over that of `others`, where NaN equals NaN and infinity infinity."""
    pairs = list(zip(values, others, strict=True))
    differences = tuple(
        torch.where((a == b) | (torch.isnan(a) & torch.isnan(b)), torch.zeros_like(a), a - b) for a, b in pairs
    )
    size = joint_norm(tuple(torch.where(torch.isfinite(b), b, torch.zeros_like(b)) for b in others))
    return joint_norm(differences) / torch.where(size > 0, size, 1.0)
