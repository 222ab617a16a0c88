"""Gradients that depend on the returned state alone, as if it were the fixed point, and not on how it was reached."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

from revdeq._iterate import Outcome
from revdeq._residual import Stopping
from revdeq._solution import Health
from revdeq._tree import Leaves
from revdeq.adjoint.base import (
    Attached,
    OnHealth,
    broken_samples,
    final_leaves,
    iterate_without_graph,
    not_repeated,
    refuse_dependence,
    refuse_derivative,
    refuse_forward_mode,
    wants_gradient,
)
from revdeq.adjoint.totals import Totals
from revdeq.function import Function, Replay
from revdeq.function.linearisation import PartialLeaves, repeatability
from revdeq.solver.base import Iteration


PullBack: TypeAlias = Callable[[Replay, Leaves, Leaves], PartialLeaves]
"""Takes an active replay, z1 and the cotangent of the fixed point; returns the gradients of `Replay.inputs`."""


def run_for_fixed_point(
    f: Function,
    solver: Iteration,
    stopping: Stopping,
    pull_back: PullBack,
    health: Health,
    on_health: OnHealth | None,
) -> Attached:
    """Iterate without a graph and attach the gradient that `pull_back` computes from z1.

    z1 and y1 both stand for the fixed point, so their cotangents are added; z0 gets no gradient.

    Args:
        f: the user's function, not yet evaluated.
        solver: the iteration.
        stopping: when it ends.
        pull_back: the rule; called with grad mode on, inside the surroundings of the forward pass.
        health: what the backward pass fills in.
        on_health: whom to tell; None for nobody.

    Raises:
        GradientError: called inside torch.func transforms.
    """
    outcome = iterate_without_graph(f, solver, stopping, of=f)
    at = f.border.narrow(solver.estimate(outcome.state))
    coupled = solver.coupled(outcome.state)
    z1 = final_leaves(at, outcome, f)
    y1 = None if coupled is None else final_leaves(coupled, outcome, f)
    outcome = outcome._replace(state=None)
    aux = _aux_at(f, at)
    if wants_gradient(f):
        states = z1 if y1 is None else (*z1, *y1)
        plan = _Plan(f, pull_back, outcome, len(states), health, on_health)
        kept = _Saved((*states, *aux), at, f.constants)
        final = _AtFixedPoint.apply(plan, kept, *f.z0, *f.arg_tensors, *f.captured)
        z1, y1 = final[: len(z1)], None if y1 is None else final[len(z1) : len(states)]
        aux = final[len(states) :]
    return Attached(z1, y1, outcome, health, aux)


def _aux_at(f: Function, z1: Leaves) -> Leaves:
    """Return the auxiliary output of f at the fixed point.

    Raises:
        ValueError: that of all steps was asked for.
    """
    if f.extras.has_aux == "sum":
        raise ValueError(
            "has_aux is 'sum', a sum over steps, and this adjoint differentiates the fixed point; give 'last', the "
            "auxiliary output there, or use ReversibleAdjoint, CheckpointedAdjoint or UnrolledAdjoint."
        )
    if f.extras.has_aux is None:
        return ()
    with torch.no_grad():
        f(tuple(leaf.detach() for leaf in z1))
    return tuple(leaf.detach().clone() for leaf in f.extras.now)


class _Plan(NamedTuple):
    f: Function
    pull_back: PullBack
    outcome: Outcome
    states: int
    health: Health
    on_health: OnHealth | None


class _Saved(NamedTuple):
    outputs: Leaves
    at: Leaves
    constants: Leaves


class _AtFixedPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, saved: _Saved, *sources: torch.Tensor) -> Leaves:
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        count = len(plan.f.z0)
        ctx.save_for_backward(*saved.at, *saved.constants, *sources[count:])
        ctx.first_source = count + len(saved.constants)
        return saved.outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        plan: _Plan = ctx.plan
        f = plan.f
        saved = ctx.saved_tensors
        count = len(f.z0)
        z1, sources = saved[:count], saved[ctx.first_source :]
        args, captured = sources[: len(f.arg_tensors)], sources[len(f.arg_tensors) :]
        needed = ctx.needs_input_grad[2 + count :]
        replay, health = f.replay(args, needed[len(args) :]), plan.health
        health.begin_pass()
        with torch.no_grad():
            if plan.outcome.residual is not None:
                refuse_dependence(broken_samples(plan.outcome), cotangents[: plan.states])
            c = tuple(_sum(cotangents[i : plan.states : count], z) for i, z in enumerate(z1))
            to_aux = cotangents[plan.states :]
            with replay.active():
                health.replay_error = f.difference_of_last(lambda at: replay.linearise(at, f.last_position).value)
                if health.replay_error is not None and not health.replay_error <= repeatability(f.roundoff):
                    raise not_repeated("the last one of the forward pass", replay)
                totals = Totals(len(replay.inputs))
                if any(part is not None for part in to_aux):
                    to_state, to_inputs = replay.linearise(z1).pull_back_aux(to_aux)
                    c = tuple(p if part is None else p + part for p, part in zip(c, to_state, strict=True))
                    totals.add(to_inputs)
                totals.add(plan.pull_back(replay, z1, c))
                inputs = totals.sums()
            replay.refuse_other_derivative()
            health.verified = None if health.replay_error is None else health.replay_error == 0.0
            if plan.on_health is not None:
                plan.on_health(health)
        remaining = iter(inputs)
        from_args = [next(remaining) if required else None for required in f.args_require]
        from_captured = [next(remaining) if need else None for need in needed[len(args) :]]
        grads = tuple(g if need else None for g, need in zip((*from_args, *from_captured), needed, strict=True))
        guarded = refuse_derivative("second", grads, (*cotangents, *args, *captured))
        return (None, None, *(None,) * count, *guarded)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        refuse_forward_mode()


def _sum(cotangents: tuple[torch.Tensor | None, ...], like: torch.Tensor) -> torch.Tensor:
    present = [c for c in cotangents if c is not None]
    return torch.zeros_like(like) if not present else present[0] if len(present) == 1 else present[0] + present[1]
