"""The exact gradient of the N-step map, obtained by going back through the half steps at what f saw there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from revdeq._errors import GradientError
from revdeq._iterate import Outcome
from revdeq._residual import Stopping
from revdeq._solution import Health
from revdeq._tree import Leaves, flatten, unflatten
from revdeq.adjoint.anchored import Anchored
from revdeq.adjoint.base import (
    Adjoint,
    Attached,
    OnHealth,
    broken_samples,
    evaluations_in_steps,
    final_leaves,
    iterate_without_graph,
    refuse_batched,
    refuse_dependence,
    transformed,
    validated_on_health,
    wants_gradient,
)
from revdeq.adjoint.plain import Plain
from revdeq.adjoint.pullback import Pullback, in_order_of_sources
from revdeq.adjoint.record import Kept, Record, Way
from revdeq.adjoint.second_order import Trajectory, differentiable
from revdeq.adjoint.segments import Segments, fixed_segments, planned_segments
from revdeq.adjoint.stored import Stored
from revdeq.adjoint.taped import Taped
from revdeq.adjoint.transforms import run_transformed
from revdeq.function import Function, Replay
from revdeq.function.linearisation import PartialLeaves
from revdeq.solver.base import Iteration
from revdeq.solver.betas import ConstantBeta, ScheduledBetas
from revdeq.solver.parameters import validated_count
from revdeq.solver.reversible import ReversibleIteration


class ReversibleAdjoint(Adjoint):
    """Go back through the half steps, one evaluation and one VJP each, at the very bits that f saw in the forward pass.

    The gradient is that of the map z0, args, parameters -> (y_N, z_N), and equals to the bit what the same sums give at
    stored states. Where the states are wider than f's dtype (the default for float32, bfloat16 and float16) they are
    undone in segments, from states stored every few steps, and fingerprints of what f sees decide whether a segment
    came back right; one that did not is taken again from its lower end. Where the states are no wider than f (float64,
    or a `state_dtype` of your own), and where it takes no more memory than the states do, what f sees is stored at
    every evaluation and nothing is undone. `Bitwise` arithmetic undoes all steps to the bit by its tape. `Health` says
    what was verified, what was taken again, and how many bytes were kept.

    A function that returns other values in the backward pass than in the forward pass has no such gradient:
    `GradientError` is raised. Where its inputs were stored, values that differ within rounding, as those of kernels
    that sum in another order every time, are accepted, and `Health.replay_error` says by how much they differ.

    The gradient has a derivative of its own, see NOTE [Second derivatives] in `revdeq.adjoint.second_order`; the solve
    may stand inside transforms of torch.func and forward-mode AD, see NOTE [Transforms] in `revdeq.adjoint.transforms`.

    Samples whose result is NONFINITE (possible with `throw=False`) have no gradient. If the loss does not depend on
    them (their cotangents are exactly zero) the others get theirs; else `GradientError` is raised.

    Args:
        segment: steps between stored states, an int >= 1; 1 stores what f sees at every evaluation instead. None plans
            it, see NOTE [Segments] in `revdeq.adjoint.segments`.
        verify: False undoes all steps from the final states alone and compares nothing: memory for one step at any
            depth and dtype, and a gradient that rounding may have spoilt, see `Health.reversal_error`. For studying
            reversal. Where numbers leave the range of their dtypes all steps are taken again, see
            `Health.repeated_segments`.
        on_health: called with the `Health` at the end of every backward pass, for loggers.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917.
    """

    compiles: ClassVar[bool] = True
    saves: ClassVar[bool] = True

    def __init__(
        self,
        *,
        segment: int | None = None,
        verify: bool = True,
        on_health: OnHealth | None = None,
    ) -> None:
        self.segment = None if segment is None else validated_count("segment", segment, example=4)
        if not isinstance(verify, bool):
            raise TypeError(f"verify is {verify!r}; it must be True or False.")
        if segment is not None and not verify:
            raise ValueError(f"segment is {segment} and verify is False, which stores no states; give one of the two.")
        self.verify = verify
        self.on_health = validated_on_health(on_health)

    def __repr__(self) -> str:
        return f"ReversibleAdjoint(segment={self.segment}, verify={self.verify})"

    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate without a graph and attach the way back; see `Adjoint.run`."""
        if not isinstance(solver, ReversibleIteration):
            raise TypeError(
                f"ReversibleAdjoint cannot differentiate {solver!r}, whose steps have no inverse; use it with "
                "Reversible, or use UnrolledAdjoint or ImplicitAdjoint."
            )
        if transformed():
            return run_transformed(self, f, solver, stopping)
        if not torch.is_grad_enabled():
            outcome = iterate_without_graph(f, solver, stopping, of=f)
            y1, z1 = (final_leaves(solver.half_steps.values(s), outcome, f) for s in (outcome.state.y, outcome.state.z))
            aux = f.extras.collected(evaluations_in_steps(outcome, solver))
            saved = tuple(f.border.narrow(leaves) for leaves in outcome.saved)
            return Attached(z1, y1, outcome._replace(state=None, saved=()), Health(), aux, saved)
        record = self._record(f, solver, stopping)
        outcome = iterate_without_graph(record, solver.recording(), stopping, of=f, watch=record)
        end = outcome.state
        solver = solver.repeating(end)
        y1, z1 = (final_leaves(solver.half_steps.values(states), outcome, f) for states in (end.y, end.z))
        saved = [f.border.narrow(leaves) for leaves in outcome.saved]
        outcome = outcome._replace(state=None, saved=())
        health = Health()
        masks = record.of(outcome.loops)
        aux = f.extras.collected(2 * len(masks))
        if wants_gradient(f):
            # Outputs of a node must be tensors of its own.
            states = (*y1, *z1, *(leaf.clone() for leaves in saved for leaf in leaves))
            plan = _Plan(f, solver, outcome, record, masks, stopping.save_at, self.on_health, health)
            kept = _Saved((*states, *aux), record.kept(end, len(masks)), f.constants)
            final = _Reversal.apply(plan, kept, *f.z0, *f.y0, *f.arg_tensors, *f.captured)
            y1, z1, *saved = (final[i : i + len(y1)] for i in range(0, len(states), len(y1)))
            aux = final[len(states) :]
        return Attached(z1, y1, outcome, health, aux, tuple(saved))

    def _record(self, f: Function, solver: ReversibleIteration, stopping: Stopping) -> Record:
        if solver.repeats:
            return Taped(f)
        if not self.verify:
            return Plain(f)
        segments = self._segments(f, solver, stopping)
        return Stored(f) if segments.stored else Anchored(f, segments)

    def _segments(self, f: Function, solver: ReversibleIteration, stopping: Stopping) -> Segments:
        if self.segment is not None:
            return fixed_segments(self.segment, stopping.max_steps)
        betas = solver.betas
        beta = betas.beta if isinstance(betas, ConstantBeta) else None
        beta = betas.schedule if isinstance(betas, ScheduledBetas) else beta
        dtypes = [solver.arithmetic.dtype(leaf) for leaf in f.z0]
        return planned_segments(beta, f.z0, dtypes, stopping.max_steps, by_tolerance=stopping.by_tolerance)


@dataclass(frozen=True)
class _Plan:
    """What the backward pass needs besides tensors that autograd saves."""

    f: Function
    solver: ReversibleIteration
    outcome: Outcome
    record: Record
    masks: list[torch.Tensor | None]
    save_at: tuple[int, ...]
    on_health: OnHealth | None
    health: Health

    def trajectory(self) -> Trajectory:
        """Return the steps that samples with a gradient took."""
        broken = broken_samples(self.outcome)
        if not bool(broken.any()):
            return Trajectory(self.f, self.solver, self.masks, self.save_at, None, not isinstance(self.record, Plain))
        masks = [~broken if mask is None else mask & ~broken for mask in self.masks]
        return Trajectory(self.f, self.solver, masks, self.save_at, broken, True)


class _Saved(NamedTuple):
    outputs: Leaves
    kept: Kept
    constants: Leaves


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, saved: _Saved, *sources: torch.Tensor) -> Leaves:
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        kept, ctx.structure = flatten(saved.kept)
        groups = (kept, saved.constants, plan.f.z0, plan.f.y0, plan.f.arg_tensors, plan.f.captured)
        ctx.counts = [len(group) for group in groups]
        ctx.save_for_backward(*kept, *saved.constants, *sources)
        plan.health.stored_bytes = sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))
        return saved.outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        refuse_batched("a solve", cotangents)
        # Reading the saved tensors raises if one of them was changed in place since the forward pass.
        kept, _, z0, y0, args, captured = _split(ctx.saved_tensors, ctx.counts)
        needed = ctx.needs_input_grad[2:]
        plan: _Plan = ctx.plan
        replay = plan.f.replay(args, needed[len(z0) + len(y0) + len(args) :])
        with torch.no_grad():
            to_start, to_inputs = _gradients(plan, replay, unflatten(kept, ctx.structure), z0, y0, cotangents)
            if plan.on_health is not None:
                plan.on_health(plan.health)
            start = tuple(g.to(leaf.dtype) for g, leaf in zip(to_start, (*z0, *y0), strict=True))
        grads = in_order_of_sources(start, to_inputs, plan.f, needed)
        if torch.is_grad_enabled():
            grads = differentiable(grads, plan.trajectory(), cotangents, (*z0, *y0, *args, *captured))
        return (None, None, *grads)


def _gradients(
    plan: _Plan,
    replay: Replay,
    kept: Kept,
    z0: Leaves,
    y0: Leaves,
    cotangents: Sequence[torch.Tensor | None],
) -> tuple[Leaves, PartialLeaves]:
    """Return the gradients of z0 and y0, one after the other, and of `Replay.inputs`."""
    if plan.f.capturing:
        raise GradientError(
            "a CUDA graph is being captured, and the reversible backward pass reads whether it went right, which a "
            "capture does not allow; capture the solve alone, or use UnrolledAdjoint."
        )
    plan.health.begin_pass()
    broken = broken_samples(plan.outcome)
    exclude = bool(broken.any())
    if exclude:
        refuse_dependence(broken, cotangents[: 2 * len(z0)])
    pullback = Pullback.of_results(plan.f, plan.solver, replay, z0, plan.save_at, len(plan.masks), cotangents)
    with replay.active(), torch.no_grad():
        way = Way(pullback, replay, plan.solver.starting(y0), z0, y0, plan.masks, plan.health)
        if exclude:
            _go_back_without(way._replace(masks=plan.trajectory().masks))
        else:
            plan.record.go_back(kept, way)
    grads = (pullback.to_start(together=not y0), pullback.inputs())
    if plan.masks:
        replay.refuse_other_derivative()
    if exclude and not all(bool(torch.isfinite(g).all()) for g in (*grads[0], *grads[1]) if g is not None):
        raise GradientError(
            "the function is not finite in a sample even at its start, which makes the gradient of what the "
            "samples share NaN; leave that sample (Solution.sample_results) out of the batch."
        )
    return grads


def _go_back_without(way: Way) -> None:
    """Go back through the steps that the samples take where those that are not finite stay at their start."""
    steps, noted = range(len(way.masks)), way.replay.mark()
    seen, _ = way.repeated(way.solver.init(way.z0), steps, way.masks)
    for _ in way.back_through(steps, seen):
        pass
    way.replay.return_to(noted)  # f may have taken another branch where those samples were others
    way.health.verified = False


def _split(tensors: Sequence[torch.Tensor], counts: Sequence[int]) -> list[Leaves]:
    groups: list[Leaves] = []
    first = 0
    for count in counts:
        groups.append(tuple(tensors[first : first + count]))
        first += count
    return groups
