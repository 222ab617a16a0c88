"""Gradients that depend on the returned state alone, as if it were the fixed point, and not on how it was reached."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch

from revdeq.adjoint.base import (
    Attached,
    broken_samples,
    final_leaves,
    iterate_without_graph,
    not_repeated,
    refuse_dependence,
    refuse_forward_mode,
    refuse_second_derivative,
    wants_gradient,
)
from revdeq.function import Function, Replay
from revdeq.function.linearisation import PartialLeaves
from revdeq.iterate import Outcome
from revdeq.residual import Stopping
from revdeq.solution import Health
from revdeq.solver.base import Solver
from revdeq.tree import Leaves


PullBack: TypeAlias = Callable[[Replay, Leaves, Leaves], PartialLeaves]
"""Takes an active replay, z1 and the cotangent of the fixed point; returns the gradients of `Replay.inputs`."""


def run_for_fixed_point(
    f: Function, solver: Solver, stopping: Stopping, pull_back: PullBack, health: Health | None
) -> Attached:
    """Iterate without a graph and attach the gradient that `pull_back` computes from z1.

    z1 and y1 both stand for the fixed point, so their cotangents are added; z0 gets no gradient.

    Args:
        f: the user's function, not yet evaluated.
        solver: the iteration.
        stopping: when it ends.
        pull_back: the rule; called with grad mode on, inside the surroundings of the forward pass.
        health: what the backward pass fills in, if anything.

    Raises:
        GradientError: called inside torch.func transforms.
    """
    outcome = iterate_without_graph(f, solver, stopping, of=f)
    at = f.border.narrow(solver.estimate(outcome.state))
    coupled = solver.coupled(outcome.state)
    z1 = final_leaves(at, outcome, f)
    y1 = None if coupled is None else final_leaves(coupled, outcome, f)
    outcome = outcome._replace(state=None)
    if wants_gradient(f):
        saved = _Saved(z1 if y1 is None else (*z1, *y1), at, f.constants)
        final = _AtFixedPoint.apply(_Plan(f, pull_back, outcome), saved, *f.z0, *f.arg_tensors, *f.captured)
        z1, y1 = final[: len(z1)], None if y1 is None else final[len(z1) :]
    return Attached(z1, y1, outcome, health)


class _Plan(NamedTuple):
    f: Function
    pull_back: PullBack
    outcome: Outcome


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
        replay = f.replay(args, needed[len(args) :])
        with torch.no_grad():
            if plan.outcome.residual is not None:
                refuse_dependence(broken_samples(plan.outcome), cotangents)
            c = tuple(_sum(cotangents[i::count], z) for i, z in enumerate(z1))
            with replay.active():
                if not f.last_repeats(replay.evaluate):
                    raise not_repeated("the last one of the forward pass")
                inputs = plan.pull_back(replay, z1, c)
        remaining = iter(inputs)
        from_args = [next(remaining) if required else None for required in f.args_require]
        from_captured = [next(remaining) if need else None for need in needed[len(args) :]]
        grads = tuple(g if need else None for g, need in zip((*from_args, *from_captured), needed, strict=True))
        guarded = refuse_second_derivative(grads, (*cotangents, *args, *captured))
        return (None, None, *(None,) * count, *guarded)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        refuse_forward_mode()


def _sum(cotangents: tuple[torch.Tensor | None, ...], like: torch.Tensor) -> torch.Tensor:
    present = [c for c in cotangents if c is not None]
    return torch.zeros_like(like) if not present else present[0] if len(present) == 1 else present[0] + present[1]
