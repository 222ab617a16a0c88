"""The exact gradient of the N-step map, obtained by running the iteration backwards; memory does not grow with N."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch

from revdeq.adjoint.base import (
    Adjoint,
    Attached,
    broken_samples,
    final_leaves,
    iterate_without_graph,
    refuse_dependence,
    refuse_forward_mode,
    refuse_second_derivative,
    wants_gradient,
)
from revdeq.adjoint.checkpointed import iterate_in_segments
from revdeq.adjoint.reversal import Cotangents, Reversed, reverse
from revdeq.adjoint.trust import OnUntrusted, Verdict, bits_needed, measure, refuse_or_warn
from revdeq.arithmetic.tape import Entry
from revdeq.function import Function, Replay, own_saved_tensors
from revdeq.iterate import Outcome, where_active
from revdeq.linearisation import PartialLeaves, vjp
from revdeq.narrowing import narrow
from revdeq.residual import Stopping, leaf_norms
from revdeq.solution import GradientError, Health
from revdeq.solver.base import Solver
from revdeq.solver.reversible import Coupled, Reversible
from revdeq.tree import Leaves, flatten, unflatten


if TYPE_CHECKING:
    from revdeq.compiled import CompiledFunction


class ReversibleAdjoint(Adjoint):
    """Invert the iteration in the backward pass and take one VJP per half step.

    The gradient is exact for the map z0, args, parameters -> (y_N, z_N) up to rounding. Reversal amplifies rounding, so
    the backward pass ends by comparing the start state that it rebuilt with the true one, and estimates from that how
    many bits of the gradient are left. A gradient with fewer than `min_bits` is never returned silently.

    A function that returns other values in the backward pass than in the forward pass has no such gradient: where
    f(y_N) differs by more than half of its digits (`Health.replay_error` above sqrt(eps)), `GradientError` is raised,
    or a warning given with on_untrusted="warn"; smaller differences, of a device that does not repeat sums to the
    bit, count as rounding errors in the estimate.

    Samples whose result is NONFINITE (possible with `throw=False`) have no gradient. If the loss does not depend on
    them (their cotangents are exactly zero) the others get theirs; else `GradientError` is raised.

    Args:
        min_bits: bits that must be left, >= 0; None for 24, or as many as the significand of z0's dtype has, if that is
            fewer: then reversal adds less than one rounding of f. With states no wider than z0, four bits less than
            they have. Numbers that overflowed in reverse are never trusted, whatever min_bits says.
        on_untrusted: what to do below `min_bits`: "checkpoint" computes the gradient again from the start state with
            stored segments (right at any depth, at more memory and two to three times the evaluations), "warn" returns
            it with a warning, "raise" raises `GradientError`.
        on_health: called with the `Health` at the end of every backward pass, for loggers.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
    """

    compiles: ClassVar[bool] = True

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
        as_replayed = solver.repeats and torch.is_grad_enabled()
        values = (_LastCompiledValue if solver.compile else _LastValue)(f, stopping, as_replayed=as_replayed)
        iteration = solver.recording() if torch.is_grad_enabled() else solver
        outcome = iterate_without_graph(values, iteration, stopping, of=f)
        state: Coupled = outcome.state
        solver = solver.repeating(state)
        health = Health()
        y1, z1 = final_leaves(solver.values(state.y), outcome, f), final_leaves(solver.values(state.z), outcome, f)
        plan = _Plan(f, solver, outcome._replace(state=None), stopping, self, health)
        if wants_gradient(f):
            sources = (*f.z0, *f.arg_tensors, *f.captured)
            saved = _Saved((*y1, *z1), state, values.of_y(), f.constants)
            final = _Reversal.apply(plan, saved, *sources)
            y1, z1 = final[: len(state.y)], final[len(state.y) :]
        return Attached(z1, y1, plan.outcome, health)


class _LastValue:
    """Evaluates f and remembers f(y_N), the value of the last half step, which backward computes first.

    Args:
        f: the function.
        stopping: when the iteration ends.
        as_replayed: whether to evaluate as backward does, with a graph that is dropped: without one, some layers take
            other kernels, whose values differ in the last bits.
    """

    def __init__(self, f: Function, stopping: Stopping, *, as_replayed: bool) -> None:
        self._f, self._as_replayed = f, as_replayed
        # With tolerances f(z_N) is judged after f(y_N), and only then the last step is known to be that.
        self._behind = 2 if stopping.by_tolerance else 1
        self._first = 0 if stopping.by_tolerance else 2 * stopping.max_steps - 1
        self._count = 0
        self._values: deque[Leaves] = deque(maxlen=self._behind)

    def __call__(self, z: Leaves) -> Leaves:
        if self._as_replayed:
            local = tuple(narrow(x.detach(), s.dtype).requires_grad_() for x, s in zip(z, self._f.z0, strict=True))
            with torch.enable_grad(), own_saved_tensors():
                value = tuple(leaf.detach() for leaf in self._f(local))
        else:
            value = self._f(z)
        self._remember(value)
        return value

    def _remember(self, value: Leaves) -> None:
        if self._count >= self._first:
            self._values.append(value)
        self._count += 1

    def of_y(self) -> Leaves:
        """Return a copy of f(y_N); empty where no step was taken."""
        return () if len(self._values) < self._behind else tuple(leaf.clone() for leaf in self._values[0])


class _LastCompiledValue(_LastValue):
    """The same for a compiled function, whose half steps contain its evaluations."""

    def half_step(self, state: Leaves, at: Leaves, beta: float | torch.Tensor) -> Leaves:
        """Return `(1 - beta) state + beta f(at)`."""
        moved, value = cast("CompiledFunction", self._f).half_step(state, at, beta)
        self._remember(value)
        return moved


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
    outputs: Leaves
    state: Coupled
    repeated: Leaves
    constants: Leaves


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, saved: _Saved, *sources: torch.Tensor) -> Leaves:
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        states, ctx.structure = flatten((saved.state.y, saved.state.z))
        remainders, ctx.tape = flatten([tape.entries() for tape in saved.state.tape])
        tensors = (states, remainders, saved.repeated, saved.constants)
        ctx.groups = [*map(len, tensors), len(plan.f.z0), len(plan.f.arg_tensors), len(plan.f.captured)]
        ctx.save_for_backward(*(tensor for group in tensors for tensor in group), *sources)
        return saved.outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        # Reading the saved tensors raises if one of them was changed in place since the forward pass.
        states, remainders, repeated, _, z0, args, captured = _split(ctx.saved_tensors, ctx.groups)
        lost = [entry for entries in unflatten(remainders, ctx.tape) for entry in entries]
        needed = ctx.needs_input_grad[2:]
        plan: _Plan = ctx.plan
        replay = plan.f.replay(args, needed[len(z0) + len(args) :])
        backward = _Backward(
            plan,
            replay,
            Coupled(*unflatten(states, ctx.structure)),
            lost,
            z0,
            repeated,
            cotangents,
            any(needed[: len(z0)]),
        )
        with torch.no_grad():
            to_start, to_inputs = backward.gradients()
            if plan.adjoint.on_health is not None:
                plan.adjoint.on_health(plan.health)
            start = tuple(g.to(leaf.dtype) for g, leaf in zip(to_start, z0, strict=True))
        ordered = _in_order_of_sources(start, to_inputs, plan.f, needed)
        return (None, None, *refuse_second_derivative(ordered, (*cotangents, *z0, *args, *captured)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        refuse_forward_mode()


class _Backward:
    """One backward pass: the reversal, what it says about itself, and what is done instead where that is not good."""

    def __init__(
        self,
        plan: _Plan,
        replay: Replay,
        end: Coupled,
        lost: Sequence[Entry],
        z0: Leaves,
        repeated: Leaves,
        cotangents: Sequence[torch.Tensor | None],
        of_start: bool,
    ) -> None:
        self._of_start = of_start
        self._plan, self._replay, self._end, self._lost = plan, replay, end, lost
        self._z0, self._repeated, self._cotangents = z0, repeated, cotangents
        outcome = plan.outcome
        self._steps = outcome.num_steps if plan.stopping.by_tolerance else None
        # Fixed steps do not wait for the device here; `_exclude_broken` asks only where numbers are not finite.
        self._last = (
            int(outcome.num_steps.max()) if self._steps is not None and self._steps.numel() else plan.stopping.max_steps
        )

    def gradients(self) -> tuple[Leaves, PartialLeaves]:
        """Return the gradients of z0 and of `Replay.inputs`."""
        plan = self._plan
        if plan.f.capturing:
            raise GradientError(
                "a CUDA graph is being captured, and the reversible backward pass ends by reading what it can be "
                "trusted with, which a capture does not allow; capture the solve alone, or use UnrolledAdjoint."
            )
        excluded = self._steps is not None and self._exclude_broken()
        reversal, verdict = self._reverse()
        if verdict is Verdict.OVERFLOWED and not excluded and self._exclude_broken():
            excluded = True
            reversal, verdict = self._reverse()
        grads = (reversal.start, reversal.inputs)
        if verdict is not Verdict.TRUSTED:
            refuse_or_warn(plan.health, verdict, plan.adjoint.on_untrusted, self._bits_needed())
            if plan.adjoint.on_untrusted == "checkpoint":
                plan.health.fell_back = True
                grads = self._from_checkpoints()
        if excluded and not all(bool(torch.isfinite(g).all()) for g in (*grads[0], *grads[1]) if g is not None):
            raise GradientError(
                "the function is not finite in a sample even at its start, which makes the gradient of what the "
                "samples share NaN; leave that sample (Solution.sample_results) out of the batch."
            )
        return grads

    def _bits_needed(self) -> float:
        return bits_needed(self._plan.adjoint.min_bits, self._z0, self._plan.solver.values(self._end.z))

    def _reverse(self) -> tuple[Reversed, Verdict]:
        plan, values = self._plan, self._plan.solver.values
        count = len(self._z0)
        widened = Cotangents(
            _widened(self._cotangents[:count], values(self._end.y)),
            _widened(self._cotangents[count:], values(self._end.z)),
        )
        end_norms = leaf_norms((*widened.y, *widened.z))  # before they are changed in place
        reversal = reverse(
            plan.solver,
            self._replay,
            self._end,
            self._lost,
            self._z0,
            widened,
            self._repeated,
            self._steps,
            self._last,
        )
        verdict = measure(
            plan.health,
            plan.solver,
            reversal,
            self._end,
            self._z0,
            end_norms,
            self._last,
            self._bits_needed(),
            self._of_start,
        )
        return reversal, verdict

    def _exclude_broken(self) -> bool:
        """Let samples that are not finite take no steps; return whether there are any.

        Raises:
            GradientError: the loss depends on one of them.
        """
        plan = self._plan
        broken = broken_samples(plan.outcome)
        if not bool(broken.any()):
            return False
        refuse_dependence(broken, self._cotangents)
        start = plan.solver.init(self._z0)
        self._end = Coupled(where_active(~broken, self._end.y, start.y), where_active(~broken, self._end.z, start.z))
        self._steps = plan.outcome.num_steps.masked_fill(broken, 0)
        return True

    def _from_checkpoints(self) -> tuple[Leaves, PartialLeaves]:
        """Compute the same gradient from the start state, with segments of steps stored and recomputed."""
        plan, replay = self._plan, self._replay
        with replay.active():
            start = tuple(leaf.detach().requires_grad_() for leaf in self._z0)
            final: Coupled = iterate_in_segments(
                replay.evaluate, plan.solver, start, self._steps, self._last, segment=None
            )
            states = (*plan.solver.values(final.y), *plan.solver.values(final.z))
            outputs = tuple(narrow(leaf, s.dtype) for leaf, s in zip(states, (*start, *start), strict=True))
            found = vjp(outputs, self._cotangents, (*start, *replay.inputs))
        to_start = tuple(
            torch.zeros_like(s) if g is None else g for g, s in zip(found[: len(start)], start, strict=True)
        )
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


def _split(tensors: Sequence[torch.Tensor], counts: Sequence[int]) -> list[Leaves]:
    groups: list[Leaves] = []
    first = 0
    for count in counts:
        groups.append(tuple(tensors[first : first + count]))
        first += count
    return groups


def _widened(cotangents: Sequence[torch.Tensor | None], states: Leaves) -> Leaves:
    """Return copies of the cotangents in the dtypes of the states."""
    return tuple(
        torch.zeros_like(s) if c is None else c.to(s.dtype, copy=True) for c, s in zip(cotangents, states, strict=True)
    )
