"""Cotangents on their way back through the half steps, and the gradients that they leave.

NOTE [One reversed half step]
Half step k of N steps, k = 0 ... 2N - 1, evaluates f at one of the two coupled states, o, and moves the other, s:

    s' = a s + beta f(o),      a = 1 - beta,      o = z and s = y for even k, o = y and s = z for odd k.

With p and q the cotangents of s' and o after it and K(o) = df/dz at o, the backward pass does

    evaluate f(o) and keep its graph
    pull beta p back through it                q     <- q + beta K(o)^T p           p <- a p
                                               theta <- theta + beta f_theta(o)^T p

for which it needs o as f saw it, and no state. Where o was not stored, s = (s' - beta f(o)) / a rebuilds what the half
step before it evaluates f at, with the value that is there anyway. In all that is one evaluation and one VJP each.

NOTE [Stopped samples]
A sample that takes no part in a step gets no VJP from its own values, but where f couples samples (batch statistics)
the values of the others depend on its state, and its cotangent receives those parts. f sees it at z in both half steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch

from revdeq._half_step import ReversedHalfSteps
from revdeq._iterate import where_active
from revdeq._residual import masked, per_sample
from revdeq._tree import Leaves
from revdeq.adjoint.totals import Totals
from revdeq.arithmetic.floating import scaled
from revdeq.arithmetic.tape import Entry
from revdeq.function import Function, Replay
from revdeq.function.linearisation import PartialLeaves
from revdeq.solver.betas import Beta
from revdeq.solver.reversible import ReversibleIteration


States = TypeVar("States", bound=tuple[Any, ...])


class Mark(NamedTuple):
    """Where a pullback stood, to go back there.

    Attributes:
        y: cotangent of y.
        z: cotangent of z.
        totals: sums of the gradients.
        noted: what the replay had noted.
    """

    y: Leaves
    z: Leaves
    totals: Totals
    noted: tuple[int, int]


class AuxCotangents(NamedTuple):
    """Cotangents of the auxiliary output of f.

    Attributes:
        leaves: one for each of its leaves, None for zero.
        only: index of the half step whose output they are of; None where they are of the sum over all.
    """

    leaves: PartialLeaves = ()
    only: int | None = None

    def at(self, k: int) -> PartialLeaves:
        """Return those of half step k; empty for zero."""
        return self.leaves if self.only is None or self.only == k else ()


class Pullback:
    """The cotangents of the two states and the sums of gradients; see NOTE [One reversed half step].

    Args:
        solver: the iteration, with the betas that it took.
        replay: the function in the backward pass, active.
        y: cotangent of y_N in the state dtype, fresh tensors, which are changed in place.
        z: cotangent of z_N, likewise.
        aux: those of what f makes besides z.
        saved: those of z_n for numbers of steps n whose states the solve returned.
    """

    def __init__(
        self,
        solver: ReversibleIteration,
        replay: Replay,
        y: Leaves,
        z: Leaves,
        aux: AuxCotangents,
        saved: Mapping[int, Leaves],
    ) -> None:
        self.solver, self.replay, self._aux, self._saved = solver, replay, aux, saved
        self.totals = Totals(len(replay.inputs))
        self.y, self.z = y, z

    @staticmethod
    def of_results(
        f: Function,
        solver: ReversibleIteration,
        replay: Replay,
        z0: Leaves,
        save_at: Sequence[int],
        num_steps: int,
        cotangents: Sequence[torch.Tensor | None],
    ) -> "Pullback":
        """Return the pullback at the end of a solve.

        Args:
            f: the function.
            solver: as above.
            replay: as above.
            z0: leaves of the start state.
            save_at: numbers of steps whose states were returned.
            num_steps: steps taken.
            cotangents: of y_N, z_N, the states of `save_at` and the auxiliary output, leaf by leaf; None for zero.
        """
        dtypes = [solver.arithmetic.dtype(leaf) for leaf in z0]
        count = len(z0)
        first_aux = (2 + len(save_at)) * count
        y, z, *saved = (widened(cotangents[i : i + count], z0, dtypes) for i in range(0, first_aux, count))
        only = None if f.extras.has_aux == "sum" else 2 * num_steps - 1
        aux = AuxCotangents(tuple(cotangents[first_aux:]), only)
        return Pullback(solver, replay, y, z, aux, dict(zip(save_at, saved, strict=True)))

    def mark(self) -> Mark:
        """Return where the pullback stands; what follows does not change it."""
        y, z = (tuple(p.clone() for p in leaves) for leaves in (self.y, self.z))
        return Mark(y, z, self.totals.copy(), self.replay.mark())

    def return_to(self, mark: Mark) -> None:
        """Forget what was done since the mark, which is used up."""
        self.y, self.z, self.totals, noted = mark
        self.replay.return_to(noted)

    def through(self, k: int, at: Leaves, active: torch.Tensor | None) -> Leaves:
        """Go back through half step k, whose states need not be rebuilt.

        Args:
            k: index of the half step.
            at: what f saw there.
            active: the samples that took it; None for all.

        Returns:
            f(at).
        """
        self.join(k)
        if self.solver.compiled:
            beta = self.beta(k)
            moved, other = self._cotangents(k)
            pulled = cast(ReversedHalfSteps, self.replay).pull_back(at, masked(active, moved), _empty(other), beta)
            self.totals.add(pulled.inputs)
            self._set(k, active, _select(active, pulled.moved, moved), other, pulled.other)
            return pulled.value
        f = self.replay.linearise(at, k)
        to_other, to_inputs = f.pull_back(self.of_value(k, active), self.of_aux(k))
        self.passed(k, active, to_other, to_inputs)
        return f.value

    def of_value(self, k: int, active: torch.Tensor | None) -> Leaves:
        """Return the cotangent of f's value in half step k: beta times that of the state that the half step moved."""
        moved, _ = self._cotangents(k)
        return masked(active, tuple(scaled(p, self.beta(k)) for p in moved))

    def of_aux(self, k: int) -> PartialLeaves:
        """Return the cotangents of the auxiliary output of f in half step k; empty for zero."""
        return self._aux.at(k)

    def passed(self, k: int, active: torch.Tensor | None, to_other: PartialLeaves, to_inputs: PartialLeaves) -> None:
        """Take the cotangents through half step k.

        Args:
            k: index of the half step.
            active: the samples that took it; None for all.
            to_other: the product of `of_value` with df/dz.
            to_inputs: that with the derivative in `Replay.inputs`.
        """
        self.totals.add(to_inputs)
        moved, other = self._cotangents(k)
        self._set(k, active, _kept(moved, self.beta(k), active), other, to_other)

    def undoing(
        self,
        k: int,
        at: Leaves,
        state: States,
        active: torch.Tensor | None,
        *,
        lost: Entry | None = None,
        ours: bool = False,
    ) -> tuple[Leaves, States]:
        """Go back through half step k and rebuild the state that it moved.

        Args:
            k: index of the half step.
            at: what f saw there.
            state: leaves of the state after the half step.
            active: the samples that took it; None for all.
            lost: what the tape says the half step lost.
            ours: whether `state` may be overwritten.

        Returns:
            f(at), and the state before the half step.
        """
        beta = self.beta(k)
        if self.solver.compiled:
            self.join(k)
            moved, other = self._cotangents(k)
            steps = cast(ReversedHalfSteps, self.replay)
            undone = steps.undo_half_step(state, at, masked(active, moved), _empty(other), beta)
            self.totals.add(undone.inputs)
            self._set(k, active, _select(active, undone.moved, moved), other, undone.other)
            return undone.value, cast(States, _select(active, undone.state, state))
        value = self.through(k, at, active)
        before = self.solver.half_steps.undo(state, value, lost, beta, ours=ours and active is None)
        return value, cast(States, _select(active, before, state))

    def beta(self, k: int) -> Beta:
        """Return the relaxation parameter of half step k."""
        return self.solver.betas.of_step(k // 2)[k % 2]

    def start(self) -> tuple[Leaves, Leaves]:
        """Return the gradients of y_0 and of z_0, in the state dtype."""
        saved = self._saved.get(0)
        return self.y, self.z if saved is None else tuple(p + c for p, c in zip(self.z, saved, strict=True))

    def to_start(self, *, together: bool) -> Leaves:
        """Return the gradients of z_0, then of y_0, in the state dtype; their sum if the states start `together`."""
        to_y0, to_z0 = self.start()
        return tuple(u + v for u, v in zip(to_y0, to_z0, strict=True)) if together else (*to_z0, *to_y0)

    def inputs(self) -> PartialLeaves:
        """Return the gradients of `Replay.inputs`."""
        return self.totals.sums()

    def join(self, k: int) -> None:
        """Add the cotangent of a state that was returned to that which comes from later steps, before half step k."""
        joining = self._saved.get((k + 1) // 2) if k % 2 else None
        if joining is not None:
            self.z = tuple(p + c for p, c in zip(self.z, joining, strict=True))

    def _cotangents(self, k: int) -> tuple[Leaves, Leaves]:
        return (self.z, self.y) if k % 2 else (self.y, self.z)

    def _set(self, k: int, active: torch.Tensor | None, moved: Leaves, other: Leaves, to_other: PartialLeaves) -> None:
        for p, q, part in zip(moved, other, to_other, strict=True):
            if part is None:
                continue
            if active is None or k % 2 == 0:
                q.add_(part)
            else:
                q.add_(torch.where(per_sample(active, part), part, 0.0))
                p.add_(torch.where(per_sample(active, part), 0.0, part))
        self.y, self.z = (other, moved) if k % 2 else (moved, other)


def in_order_of_sources(
    start: Leaves, inputs: PartialLeaves, f: Function, needed: Sequence[bool]
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients in the order of the node's inputs: start, tensors of args, captured; None where not needed.

    Args:
        start: those of z0, and of y0 where it is another one.
        inputs: those of `Replay.inputs`.
        f: the function.
        needed: for each of the node's inputs whether its gradient is.
    """
    remaining = iter(inputs)
    args = [next(remaining) if required else None for required in f.args_require]
    wanted = needed[len(start) + len(args) :]
    captured = [next(remaining) if w else None for w in wanted]
    return tuple(g if need else None for g, need in zip((*start, *args, *captured), needed, strict=True))


def widened(cotangents: Sequence[torch.Tensor | None], leaves: Leaves, dtypes: Sequence[torch.dtype]) -> Leaves:
    """Return copies of the cotangents in the dtypes of the states."""
    return tuple(
        torch.zeros_like(leaf, dtype=dtype) if c is None else c.to(dtype, copy=True)
        for c, leaf, dtype in zip(cotangents, leaves, dtypes, strict=True)
    )


def _empty(cotangent: Leaves) -> Leaves:
    return tuple(torch.zeros_like(leaf) for leaf in cotangent)


def _kept(cotangent: Leaves, beta: Beta, active: torch.Tensor | None) -> Leaves:
    if active is None and isinstance(beta, float):
        return tuple(p.mul_(1.0 - beta) for p in cotangent)
    return _select(active, tuple(scaled(p, 1.0 - beta) for p in cotangent), cotangent)


def _select(active: torch.Tensor | None, new: States, old: States) -> States:
    return new if active is None else cast(States, where_active(active, new, old))
