"""What stays alive between the passes is what is planned: inputs, or two states a segment; after them nothing does."""

import gc
import weakref
from typing import Any

import torch

from revdeq import Reversible, ReversibleAdjoint, Solution, solve


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def live_tensors() -> int:
    gc.collect()
    return sum(1 for item in gc.get_objects() if type(item) is torch.Tensor)


def run(
    problem: Problem, steps: int, *, tolerance: float | None = None, adjoint: ReversibleAdjoint | None = None
) -> Solution:
    z0, weight, x = problem
    return solve(
        lambda z, a: torch.tanh(z @ weight + a),
        z0,
        x,
        solver=Reversible(0.8),
        adjoint=adjoint or ReversibleAdjoint(),
        max_steps=steps,
        rtol=tolerance,
        atol=tolerance,
        throw=False,
    )


def between_the_passes(problem: Problem, steps: int, adjoint: ReversibleAdjoint) -> int:
    run(problem, steps, adjoint=adjoint)  # the weights of fingerprints are made once for every size
    before = live_tensors()
    found = run(problem, steps, adjoint=adjoint)
    count = live_tensors() - before
    del found
    return count


def test_tensors_that_live_between_the_passes_do_not_grow_with_steps(problem: Problem):
    narrow: Any = tuple(t.detach().float().requires_grad_() for t in problem)
    # Undone unchecked, nothing grows; within one segment, nothing either, and each segment adds its two states.
    for adjoint in (ReversibleAdjoint(verify=False), ReversibleAdjoint(segment=40)):
        assert between_the_passes(narrow, 5, adjoint) == between_the_passes(narrow, 30, adjoint)
    ten = ReversibleAdjoint(segment=10)
    few, more, most = (between_the_passes(narrow, steps, ten) for steps in (10, 11, 50))
    assert more - few == 2
    assert most - few == 8


def test_stored_inputs_live_between_the_passes(problem: Problem):
    few, more = (between_the_passes(problem, steps, ReversibleAdjoint()) for steps in (2, 7))
    assert more - few == 2 * 5


def test_values_made_inside_the_function_die(problem: Problem):
    z0, weight, x = problem
    alive: list[weakref.ref[torch.Tensor]] = []

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        value = torch.tanh(z @ weight + a)
        alive.append(weakref.ref(value))
        return value

    found = solve(function, z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=10)
    assert sum(ref() is not None for ref in alive) == 0
    found.z1.sum().backward()
    assert len(alive) == 40
    assert sum(ref() is not None for ref in alive) == 0


class Doubled(torch.autograd.Function):
    """An operation that the watching mode does not see."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        result = 2.0 * z
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return 2.0 * cotangents[0]


def test_values_of_hidden_operations_die(problem: Problem):
    z0, weight, x = problem
    alive: list[weakref.ref[torch.Tensor]] = []

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        hidden = Doubled.apply(z)
        alive.append(weakref.ref(hidden))
        return torch.tanh(0.2 * hidden + a + weight.sum())

    found = solve(function, z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
    assert [ref() for ref in alive] == [None] * 4
    found.z1.sum().backward()


def test_solution_is_freed_without_the_garbage_collector(problem: Problem):
    z0, _, _ = problem
    gc.collect()
    gc.disable()
    try:
        found = run(problem, 3)
        loss = found.z1.sum()
        reference = weakref.ref(found)
        health = weakref.ref(found.health)
        del found
        assert reference() is None
        loss.backward()
        del loss
        assert health() is None
    finally:
        gc.enable()
    assert z0.grad is not None


def test_tensors_do_not_accumulate_over_training_steps(problem: Problem):
    def step() -> None:
        for tolerance in (None, 1e-4):
            run(problem, 4, tolerance=tolerance).z1.sum().backward()

    step()
    before = live_tensors()
    for _ in range(3):
        step()
    assert live_tensors() == before
