"""The exact gradient of the N-step map, obtained by running the iteration backwards; memory does not grow with N.

NOTE [One reversed step]
With a = 1 - beta, K(s) = df/dz at s, and cotangents p_y, p_z of the states after the step, the backward pass does

    evaluate f(y') and keep its graph          z   = (z' - beta f(y')) / a
    pull beta p_z back through it              q   = p_y + beta K(y')^T p_z      theta += beta f_theta(y')^T p_z
    evaluate f(z) and keep its graph           y   = (y' - beta f(z)) / a
    pull beta q back through it                p_z <- a p_z + beta K(z)^T q      theta += beta f_theta(z)^T q
                                               p_y <- a q

so the evaluation that rebuilds a state is the one whose graph carries the cotangent: 2 evaluations and 2 VJPs a step.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from revdeq.adjoint.base import (
    Adjoint,
    Attached,
    iterate_without_graph,
    narrowed,
    refuse_second_derivative,
    wants_gradient,
)
from revdeq.adjoint.checkpointed import iterate_in_segments
from revdeq.adjoint.totals import Totals
from revdeq.adjoint.trust import gradient_error_estimate, significand_bits
from revdeq.arithmetic.tape import Entry
from revdeq.function import Function, PartialLeaves, Replay, vjp
from revdeq.iterate import Outcome, where_active
from revdeq.residual import Stopping, per_sample
from revdeq.solution import GradientError, Health
from revdeq.solver.base import Solver
from revdeq.solver.reversible import Coupled, Reversible
from revdeq.tree import Leaves, flatten, unflatten


_States = TypeVar("_States", bound=tuple[Any, ...])

OnUntrusted = Literal["raise", "warn", "checkpoint"]


class ReversibleAdjoint(Adjoint):
    """Invert the iteration in the backward pass and take one VJP per half step.

    The gradient is exact for the map z0, args, parameters -> (y_N, z_N) up to rounding. Reversal amplifies rounding, so
    the backward pass ends by comparing the start state that it rebuilt with the true one, and estimates from that how
    many bits of the gradient are left. A gradient with fewer than `min_bits` is never returned silently.

    Args:
        min_bits: bits that must be left, >= 0; None for 20, or two less than the significand of z0's dtype has, if that
            is fewer.
        on_untrusted: what to do below `min_bits`: "checkpoint" computes the gradient again from the start state with
            stored segments (right at any depth, at more memory and two to three times the evaluations), "warn" returns
            it with a warning, "raise" raises `GradientError`.
        on_health: called with the `Health` at the end of every backward pass, for loggers.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
    """

    def __init__(
        self,
        *,
        min_bits: float | None = None,
        on_untrusted: OnUntrusted = "checkpoint",
        on_health: Callable[[Health], None] | None = None,
    ) -> None:
        if min_bits is not None and (
            isinstance(min_bits, bool) or not isinstance(min_bits, int | float) or not 0 <= min_bits < math.inf
        ):
            raise ValueError(f"min_bits is {min_bits!r}; it must be a number >= 0 of bits, or None for the default.")
        if on_untrusted not in ("raise", "warn", "checkpoint"):
            raise ValueError(f"on_untrusted is {on_untrusted!r}; it must be 'raise', 'warn' or 'checkpoint'.")
        if on_health is not None and not callable(on_health):
            raise TypeError(f"on_health is a {type(on_health).__name__}; it must be callable as on_health(health).")
        self.min_bits = min_bits
        self.on_untrusted: OnUntrusted = on_untrusted
        self.on_health = on_health

    def __repr__(self) -> str:
        return f"ReversibleAdjoint(min_bits={self.min_bits}, on_untrusted={self.on_untrusted!r})"

    def run(self, f: Function, solver: Solver, stopping: Stopping) -> Attached:
        """Iterate without a graph and attach the reversal; see `Adjoint.run`."""
        if not isinstance(solver, Reversible):
            raise TypeError(
                f"ReversibleAdjoint cannot differentiate {solver!r}, whose steps have no inverse; use it with "
                "Reversible, or use UnrolledAdjoint or ImplicitAdjoint."
            )
        last = _LastValue(f, as_replayed=solver.repeats and torch.is_grad_enabled())
        iteration = solver.recording() if torch.is_grad_enabled() else solver
        outcome = iterate_without_graph(last, iteration, stopping, of=f)
        state: Coupled = outcome.state
        health = Health()
        plan = _Plan(f, solver, outcome._replace(state=None), stopping, self, health)
        if wants_gradient(f):
            repeated = () if stopping.by_tolerance or last.value is None else last.value
            sources = (*f.z0, *f.arg_tensors, *f.captured)
            final = _Reversal.apply(plan, _Saved(state, repeated, f.constants), *sources)
            y1, z1 = final[: len(state.y)], final[len(state.y) :]
        else:
            y1, z1 = narrowed(solver.values(state.y), f), narrowed(solver.values(state.z), f)
        return Attached(z1, y1, plan.outcome, health)


# What the operations of a graph that is dropped would save for backward goes nowhere.
_NOTHING_SAVED = torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda _: torch.empty(0))


class _LastValue:
    """Evaluates f and remembers the value: a fixed number of steps ends with f(y_N), which backward computes first.

    Args:
        f: the function.
        as_replayed: whether to evaluate as backward does, with a graph that is dropped: without one, some layers take
            other kernels, whose values differ in the last bits.
    """

    def __init__(self, f: Function, *, as_replayed: bool) -> None:
        self._f, self._as_replayed = f, as_replayed
        self.value: Leaves | None = None

    def __call__(self, z: Leaves) -> Leaves:
        if self._as_replayed:
            local = tuple(leaf.detach().requires_grad_() for leaf in narrowed(z, self._f))
            with torch.enable_grad(), _NOTHING_SAVED:
                self.value = tuple(leaf.detach() for leaf in self._f(local))
        else:
            self.value = self._f(z)
        return self.value


@dataclass(frozen=True)
class _Plan:
    """What the backward pass needs besides tensors that autograd saves."""

    f: Function
    solver: Reversible
    outcome: Outcome
    stopping: Stopping
    adjoint: ReversibleAdjoint
    health: Health


class _Saved(NamedTuple):
    state: Coupled
    repeated: Leaves
    constants: Leaves


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, saved: _Saved, *sources: torch.Tensor) -> Leaves:
        ctx.set_materialize_grads(False)
        outputs = tuple(
            leaf.to(start.dtype, copy=True)
            for states in (saved.state.y, saved.state.z)
            for leaf, start in zip(plan.solver.values(states), plan.f.z0, strict=True)
        )
        ctx.plan = plan
        states, ctx.structure = flatten((saved.state.y, saved.state.z))
        remainders, ctx.tape = flatten([tape.entries() for tape in saved.state.tape])
        tensors = (states, remainders, saved.repeated, saved.constants)
        ctx.groups = [*map(len, tensors), *_source_counts(plan.f)]
        ctx.save_for_backward(*(tensor for group in tensors for tensor in group), *sources)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        # Reading the saved tensors raises if one of them was changed in place since the forward pass.
        states, remainders, repeated, _, z0, args, captured = _split(ctx.saved_tensors, ctx.groups)
        end = Coupled(*unflatten(states, ctx.structure))
        lost = [entry for entries in unflatten(remainders, ctx.tape) for entry in entries]
        plan: _Plan = ctx.plan
        needed = ctx.needs_input_grad[2:]
        replay = plan.f.replay(args, needed[len(z0) + len(args) :])
        count = len(z0)
        with torch.no_grad():
            p_y = _widened(cotangents[:count], plan.solver.values(end.y))
            p_z = _widened(cotangents[count:], plan.solver.values(end.z))
            end_norm = _norm((*p_y, *p_z))
            reversal = _reverse(plan, replay, end, lost, z0, (p_y, p_z), repeated)
            grads = (reversal.start, reversal.inputs)
            _measure(plan, reversal, end, z0, end_norm)
            if not _trusted(plan):
                grads = _decide(plan, replay, z0, cotangents, grads)
            if plan.adjoint.on_health is not None:
                plan.adjoint.on_health(plan.health)
            start = tuple(g.to(leaf.dtype) for g, leaf in zip(grads[0], z0, strict=True))
        ordered = _in_order_of_sources(start, grads[1], plan.f, needed)
        return (None, None, *refuse_second_derivative(ordered, (*cotangents, *z0, *args, *captured)))


class _Reversed(NamedTuple):
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


def _reverse(
    plan: _Plan,
    replay: Replay,
    state: Coupled,
    lost: Sequence[Entry],
    z0: Leaves,
    cotangents: tuple[Leaves, Leaves],
    repeated: Leaves,
) -> _Reversed:
    """Run the reversed steps; see NOTE [One reversed step]."""
    solver, num_steps = plan.solver, plan.outcome.num_steps
    a, beta = 1.0 - solver.beta, solver.beta
    (y, z, _), (p_y, p_z) = state, cotangents
    totals = Totals(len(replay.inputs))
    replay_error = None
    last = int(num_steps.max()) if plan.stopping.by_tolerance and num_steps.numel() else plan.stopping.max_steps
    with replay.active():
        for n in reversed(range(last)):
            active = num_steps > n if plan.stopping.by_tolerance else None
            lost_y, lost_z = lost[2 * n : 2 * n + 2] or (None, None)
            at_y = replay.linearise(solver.values(y))
            if repeated and replay_error is None:
                with torch.no_grad():
                    replay_error = _relative_difference(at_y.value, repeated)
            with torch.no_grad():
                z = _select(active, solver.undo_z(z, at_y.value, lost_z), z)
                weighted = _masked(active, tuple(p.mul(beta) for p in p_z))
            to_y, inputs = at_y.pull_back(weighted)
            totals.add(inputs)
            with torch.no_grad():
                q = _plus(p_y, to_y)
            # Integers stand for a rounded z0, but the forward pass evaluated f at z0 itself.
            at_z = replay.linearise(z0 if n == 0 and solver.repeats else solver.values(z))
            with torch.no_grad():
                y = _select(active, solver.undo_y(y, at_z.value, lost_y), y)
                weighted = _masked(active, tuple(x.mul(beta) for x in q))
            to_z, inputs = at_z.pull_back(weighted)
            totals.add(inputs)
            with torch.no_grad():
                p_z = _select(active, _plus(tuple(p.mul(a) for p in p_z), to_z), p_z)
                p_y = _select(active, tuple(x.mul(a) for x in q), p_y)
    return _Reversed(
        tuple(u + v for u, v in zip(p_y, p_z, strict=True)),
        totals.sums(),
        Coupled(y, z),
        _norm((*p_y, *p_z)),
        replay_error,
    )


def _measure(plan: _Plan, reversal: _Reversed, end: Coupled, z0: Leaves, end_norm: torch.Tensor) -> None:
    """Write what the reversal saw into `health`; the only place of the backward pass that waits for the device."""
    solver, health, num_steps = plan.solver, plan.health, plan.outcome.num_steps
    rebuilt = (*solver.values(reversal.rebuilt.y), *solver.values(reversal.rebuilt.z))
    distance = _norm(tuple(r - s for r, s in zip(rebuilt, (*z0, *z0), strict=True)))
    ends = (*solver.values(end.y), *solver.values(end.z))
    size = _norm(ends)
    absent = torch.full_like(distance, math.nan)
    returned = solver.returned(reversal.rebuilt, z0)
    numbers = [
        distance,
        size,
        reversal.cotangent_norm,
        end_norm,
        absent if reversal.replay_error is None else reversal.replay_error,
        num_steps.max().to(distance.dtype) if num_steps.numel() else torch.zeros_like(distance),
        torch.zeros_like(distance) if returned is None else returned.to(distance.dtype),
    ]
    moved, scale, start, finish, repeat, steps, same = torch.stack(numbers).tolist()
    health.passes += 1
    health.fell_back = False
    health.bitwise = bool(same)
    if health.bitwise:
        moved = 0.0  # what is left is the rounding of z0 itself to integers
    error, decay = moved / scale if scale > 0 else moved, start / finish if finish > 0 else 0.0
    health.reconstruction_error, health.start_cotangent = error, decay
    health.replay_error = None if reversal.replay_error is None else repeat
    roundoff = torch.finfo(ends[0].dtype).eps / 2
    estimate = gradient_error_estimate(error, decay, int(steps), roundoff)
    bits = math.inf if estimate == 0.0 else -math.log2(estimate) if math.isfinite(estimate) else 0.0
    health.bits_left = max(0.0, min(bits, float(min(significand_bits(leaf.dtype) for leaf in z0))))


def _trusted(plan: _Plan) -> bool:
    health = plan.health
    if plan.solver.repeats and not health.bitwise:
        return False
    assert health.bits_left is not None
    return health.bits_left >= _bits_needed(plan)


def _bits_needed(plan: _Plan) -> float:
    if plan.adjoint.min_bits is not None:
        return plan.adjoint.min_bits
    return min(20, min(significand_bits(leaf.dtype) for leaf in plan.f.z0) - 2)


def _decide(
    plan: _Plan,
    replay: Replay,
    z0: Leaves,
    cotangents: Sequence[torch.Tensor | None],
    grads: tuple[Leaves, PartialLeaves],
) -> tuple[Leaves, PartialLeaves]:
    """Do what `on_untrusted` says about a gradient with too few bits left."""
    health = plan.health
    if plan.solver.repeats and not health.bitwise:
        error = math.nan if health.replay_error is None else health.replay_error
        said = (
            "function does not repeat to the bit: evaluated again in backward it returned other values "
            f"(relative difference of f(y_N): {error:.1e}), so the states could not be undone; make it deterministic "
            "(torch.use_deterministic_algorithms(True), no state of its own), or use arithmetic='floating'."
        )
        if plan.adjoint.on_untrusted == "warn":
            warnings.warn(said, stacklevel=2)
            return grads
        raise GradientError(said)
    said = (
        f"the reversible gradient has about {health.bits_left:.1f} bits left, below min_bits = {_bits_needed(plan):g} "
        f"(the start state was rebuilt with relative error {health.reconstruction_error:.1e}); take fewer steps, a "
        "beta nearer to the optimum, a wider state_dtype, or on_untrusted='checkpoint'."
    )
    if plan.adjoint.on_untrusted == "raise":
        raise GradientError(said)
    if plan.adjoint.on_untrusted == "warn":
        warnings.warn(said, stacklevel=2)
        return grads
    health.fell_back = True
    return _from_checkpoints(plan, replay, z0, cotangents)


def _from_checkpoints(
    plan: _Plan, replay: Replay, z0: Leaves, cotangents: Sequence[torch.Tensor | None]
) -> tuple[Leaves, PartialLeaves]:
    """Compute the same gradient from the start state, with segments of steps stored and recomputed."""
    steps = plan.outcome.num_steps
    with replay.active():
        start = tuple(leaf.detach().requires_grad_() for leaf in z0)
        final: Coupled = iterate_in_segments(
            replay.evaluate, plan.solver, start, steps, plan.stopping.max_steps, segment=None
        )
        outputs = (*narrowed(final.y, plan.f), *narrowed(final.z, plan.f))
        found = vjp(outputs, cotangents, (*start, *replay.inputs))
    to_start = tuple(torch.zeros_like(s) if g is None else g for g, s in zip(found[: len(start)], start, strict=True))
    return to_start, found[len(start) :]


def _in_order_of_sources(
    start: Leaves, inputs: PartialLeaves, f: Function, needed: Sequence[bool]
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients in the order of the node's inputs: z0, tensors of args, captured; None where not needed."""
    remaining = iter(inputs)
    requires = [t.requires_grad for t in f.arg_tensors]
    args = [next(remaining) if r else None for r in requires]
    wanted = needed[len(start) + len(args) :]
    captured = [next(remaining) if w else None for w in wanted]
    return tuple(g if need else None for g, need in zip((*start, *args, *captured), needed, strict=True))


def _source_counts(f: Function) -> tuple[int, int, int]:
    return len(f.z0), len(f.arg_tensors), len(f.captured)


def _split(tensors: Sequence[torch.Tensor], counts: Sequence[int]) -> list[Leaves]:
    groups: list[Leaves] = []
    first = 0
    for count in counts:
        groups.append(tuple(tensors[first : first + count]))
        first += count
    return groups


def _widened(cotangents: Sequence[torch.Tensor | None], states: Leaves) -> Leaves:
    return tuple(torch.zeros_like(s) if c is None else c.to(s.dtype) for c, s in zip(cotangents, states, strict=True))


def _plus(total: Leaves, part: PartialLeaves) -> Leaves:
    return tuple(t if p is None else t + p for t, p in zip(total, part, strict=True))


def _select(active: torch.Tensor | None, new: _States, old: _States) -> _States:
    return new if active is None else where_active(active, new, old)


def _masked(active: torch.Tensor | None, leaves: Leaves) -> Leaves:
    """Return the leaves with exact zeros for samples that had stopped by this step."""
    if active is None:
        return leaves
    return tuple(torch.where(per_sample(active, leaf), leaf, torch.zeros_like(leaf)) for leaf in leaves)


def _norm(leaves: Leaves) -> torch.Tensor:
    wide = torch.float32 if leaves[0].device.type == "mps" else torch.float64
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(leaf, dtype=wide) for leaf in leaves]))


def _relative_difference(values: Leaves, others: Leaves) -> torch.Tensor:
    size = _norm(others)
    return _norm(tuple(a - b for a, b in zip(values, others, strict=True))) / torch.where(size > 0, size, 1.0)
