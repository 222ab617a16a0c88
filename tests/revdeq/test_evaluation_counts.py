"""A fixed number of steps N takes 2N evaluations forward, and 2N evaluations and 2N VJPs backward, no more."""

from typing import Any

import pytest
import torch

from revdeq import Relaxed, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
def test_evaluations_and_products_are_exactly_two_a_step(counter, problem: Problem, steps: int):
    z0, weight, _ = problem
    found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=steps)
    assert (counter.evaluations, counter.vjps) == (2 * steps, 0)
    found.z1.sum().backward()
    assert (counter.evaluations, counter.vjps) == (4 * steps, 2 * steps)


def test_cotangent_on_one_state_costs_no_more(counter, problem: Problem):
    z0, weight, _ = problem
    found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)
    assert found.y1 is not None
    found.y1.sum().backward()
    assert (counter.evaluations, counter.vjps) == (12, 6)


def test_nothing_is_evaluated_again_without_gradient(counter, problem: Problem):
    z0, weight, _ = problem
    with torch.no_grad():
        found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)
    assert counter.evaluations == 6
    assert not found.z1.requires_grad


def test_reading_the_residual_costs_one_evaluation_once(counter, problem: Problem):
    z0, weight, _ = problem
    found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)
    first, second = found.residual, found.residual
    assert counter.evaluations == 7
    assert torch.equal(first, second)
    expected = torch.linalg.vector_norm(torch.tanh(found.z1 @ weight) - found.z1, dim=1)
    torch.testing.assert_close(first, expected.detach(), rtol=1e-12, atol=0.0)


def test_tolerances_cost_one_evaluation_more_than_the_steps(counter, problem: Problem):
    z0, weight, _ = problem
    found = solve(
        counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=99, rtol=1e-6, atol=1e-6
    )
    steps = int(found.num_steps.max())
    assert counter.evaluations == 2 * steps + 1
    found.z1.sum().backward()
    assert (counter.evaluations, counter.vjps) == (4 * steps + 1, 2 * steps)


def test_other_solvers_and_adjoints_cost_what_they_say(counter, problem: Problem):
    z0, weight, _ = problem
    solve(counter, z0, weight, solver=Relaxed(0.8), adjoint=UnrolledAdjoint(), max_steps=5).z1.sum().backward()
    assert (counter.evaluations, counter.vjps) == (5, 5)


def test_fallback_costs_what_it_says(counter, problem: Problem):
    z0, weight, _ = problem
    steps, segment = 9, 3
    adjoint = ReversibleAdjoint(min_bits=100)
    found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=adjoint, max_steps=steps)
    found.z1.sum().backward()
    assert found.health is not None
    assert found.health.fell_back
    # The reversal, then a pass that stores one state a segment, then each segment once more; two evaluations a step.
    assert counter.evaluations <= 2 * steps * 4
    assert counter.evaluations > 2 * steps * 3
    assert counter.vjps == 2 * steps * 2
    assert segment * segment == steps


def saved_bytes(run: Any) -> int:
    """Return the bytes of the distinct tensors that autograd saves while `run` computes a solution."""
    sizes: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def test_saved_bytes_do_not_depend_on_the_number_of_steps(problem: Problem):
    z0, weight, x = problem

    def saved(adjoint: ReversibleAdjoint | UnrolledAdjoint, steps: int) -> int:
        return saved_bytes(
            lambda: solve(
                lambda z, a: torch.tanh(z @ weight + a),
                z0,
                x,
                solver=Reversible(0.8),
                adjoint=adjoint,
                max_steps=steps,
            )
        )

    assert saved(ReversibleAdjoint(), 2) == saved(ReversibleAdjoint(), 5) == saved(ReversibleAdjoint(), 40)
    assert saved(UnrolledAdjoint(), 5) > saved(UnrolledAdjoint(), 2)


def test_saved_bytes_are_states_inputs_and_one_value(problem: Problem):
    z0, weight, x = problem
    found = saved_bytes(
        lambda: solve(
            lambda z, a: torch.tanh(z @ weight + a),
            z0,
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=4,
        )
    )
    state = z0.numel() * 8
    assert found == 2 * state + state + state + x.numel() * 8 + weight.numel() * 8  # y, z, f(y_N), z0, args, captured
