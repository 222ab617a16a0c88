"""A fixed number of steps N takes 2N evaluations forward, and 2N evaluations and 2N VJPs backward, no more."""

import itertools
import math
from typing import Any

import pytest
import torch

from revdeq import Relaxed, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def float32(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(t.detach().float().requires_grad_() for t in problem[:2])  # type: ignore[return-value]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
def test_evaluations_and_products_are_exactly_two_a_step(counter, problem: Problem, steps: int):
    z0, weight, _ = problem
    found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=steps)
    assert (counter.evaluations, counter.vjps) == (2 * steps, 0)
    found.z1.sum().backward()
    assert (counter.evaluations, counter.vjps) == (4 * steps, 2 * steps)


@pytest.mark.parametrize("beta", [0.5, 0.8])
@pytest.mark.parametrize("steps", [5, 40])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=3)], ids=repr)
def test_undoing_costs_no_more_where_nothing_is_taken_again(
    counter, problem: Problem, adjoint: ReversibleAdjoint, steps: int, beta: float
):
    z0, weight = float32(problem)
    found = solve(counter, z0, weight, solver=Reversible(beta), adjoint=adjoint, max_steps=steps)
    assert (counter.evaluations, counter.vjps) == (2 * steps, 0)
    found.z1.sum().backward()
    assert found.health is not None
    assert found.health.segments > 0
    assert found.health.repeated_segments == 0
    assert (counter.evaluations, counter.vjps) == (4 * steps, 2 * steps)


@pytest.mark.parametrize("options", [{}, {"rtol": 1e-6, "atol": 1e-6}], ids=["fixed", "tolerance"])
@pytest.mark.parametrize("segment", [2, 3, 100])
def test_a_segment_that_is_taken_again_costs_its_evaluations_twice_more(counter, problem: Problem, segment, options):
    z0, weight, _ = problem
    adjoint = ReversibleAdjoint(segment=segment)
    found: Any = solve(
        counter, z0, weight, solver=Reversible(0.8), adjoint=adjoint, max_steps=8, throw=False, **options
    )
    steps, forward = int(found.num_steps.max()), counter.evaluations
    assert forward == 2 * steps + bool(options)
    found.z1.sum().backward()
    health = found.health
    assert health.segments == -(-steps // segment)
    assert health.repeated_segments == health.segments  # float64 hardly ever comes back to the bit
    # Undone in vain, then forwards without a graph, then back with the products.
    assert counter.evaluations == forward + 2 * steps + 4 * steps
    assert counter.vjps == 2 * steps + 2 * steps
    assert health.repeated_evaluations == 4 * steps


def test_values_that_repeat_within_rounding_cost_the_backward_pass_once_more(problem: Problem):
    z0, weight, _ = problem
    calls: list[int] = []

    def wandering(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return torch.tanh(z @ a) + 2.0**-50 * len(calls)

    found: Any = solve(wandering, z0, weight, adjoint=ReversibleAdjoint(segment=1), max_steps=4)
    found.z1.sum().backward()
    assert len(calls) == 8 + 8 + 8
    assert found.health.repeated_evaluations == 8


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


def test_reading_the_residual_costs_two_evaluations_once(counter, problem: Problem):
    z0, weight, _ = problem
    found = solve(counter, z0, weight, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)
    first, second = found.residual, found.residual
    assert counter.evaluations == 8  # one to see that f is what it was
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


def kept(dtype: torch.dtype, beta: float, steps: int, adjoint: ReversibleAdjoint, **options: Any) -> tuple[int, Any]:
    """Return what autograd saves beside what f reads and z0, and the solution, of a state of 12 components."""
    torch.manual_seed(1)
    z0, x = torch.randn(3, 4, dtype=dtype), torch.randn(3, 4, dtype=dtype)
    weight = (0.2 * torch.randn(4, 4, dtype=dtype)).requires_grad_()
    found: list[Any] = []

    def run() -> None:
        solver = Reversible(beta)
        found.append(
            solve(
                lambda z, a: torch.tanh(z @ weight + a),
                z0,
                x,
                solver=solver,
                adjoint=adjoint,
                max_steps=steps,
                throw=False,
                **options,
            )
        )

    saved = saved_bytes(run)
    return saved - (z0.numel() + x.numel() + weight.numel()) * dtype.itemsize, found[0]


COMPONENTS = 12
WIDE = COMPONENTS * 8
A_PRINT = 8


def planned_length(beta: float, bits: int) -> int:
    """The greatest number of steps whose loss leaves room for every component, of float64 states and f of `bits`."""
    return math.floor((53 - bits - math.log2(COMPONENTS) - 3) / -math.log2(abs(1.0 - beta)))


@pytest.mark.parametrize(("dtype", "segment", "steps"), [(torch.float64, None, 7), (torch.float32, 1, 30)])
def test_stored_inputs_take_a_state_of_f_and_a_print_an_evaluation(dtype: torch.dtype, segment: Any, steps: int):
    saved, found = kept(dtype, 0.8, steps, ReversibleAdjoint(segment=segment))
    narrow = COMPONENTS * dtype.itemsize
    assert found.health.stored_bytes == 2 * steps * (narrow + A_PRINT) + narrow
    assert saved == found.health.stored_bytes - (narrow if dtype == torch.float64 else 0)  # the first input is z0
    found.z1.sum().backward()
    assert found.health.segments == 0


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)])
@pytest.mark.parametrize("beta", [0.5, 0.8, 1.25, 0.1])
@pytest.mark.parametrize("steps", [9, 60])
def test_anchors_take_two_states_a_planned_segment_and_a_print_an_evaluation(dtype, bits, beta, steps):
    saved, found = kept(dtype, beta, steps, ReversibleAdjoint())
    length = planned_length(beta, bits)
    segments = -(-steps // length)
    assert found.health.stored_bytes == segments * 2 * WIDE + 2 * steps * A_PRINT
    # Below two components a step where beta is 1/2, which loses one bit a step.
    assert beta != 0.5 or steps < 60 or found.health.stored_bytes < 2 * steps * COMPONENTS * 2
    assert saved == found.health.stored_bytes
    found.z1.sum().backward()
    assert found.health.segments == segments


def test_kept_bytes_grow_by_the_planned_anchors_and_prints_alone():
    length = planned_length(0.5, 24)
    sizes = [kept(torch.float32, 0.5, steps, ReversibleAdjoint())[0] for steps in range(length, 3 * length + 2)]
    steps = [after - before for before, after in itertools.pairwise(sizes)]
    assert steps == [2 * A_PRINT + (2 * WIDE if n % length == 0 else 0) for n in range(length, 3 * length + 1)]


@pytest.mark.parametrize("segment", [2, 5, 17, 200])
def test_segments_of_a_given_length_take_two_states_each(segment: int):
    saved, found = kept(torch.float64, 0.8, 17, ReversibleAdjoint(segment=segment))
    assert found.health.stored_bytes == -(-17 // segment) * 2 * WIDE + 2 * 17 * A_PRINT
    assert saved == found.health.stored_bytes


def test_plain_reversal_takes_the_final_states_whatever_the_number_of_steps():
    for steps in (1, 2, 40):
        saved, found = kept(torch.float32, 0.8, steps, ReversibleAdjoint(verify=False))
        assert saved == found.health.stored_bytes == 2 * WIDE


def test_few_steps_store_inputs_where_these_take_no_more_than_the_states():
    # 2N inputs of 4 bytes against y, z and two cotangents of 8 bytes.
    for steps in (1, 4, 5):
        _, found = kept(torch.float32, 0.5, steps, ReversibleAdjoint())
        assert (found.health.stored_bytes == 2 * steps * (WIDE // 2 + A_PRINT) + WIDE // 2) == (steps <= 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tolerances_keep_what_the_steps_taken_need(dtype: torch.dtype):
    saved, found = kept(dtype, 0.5, 200, ReversibleAdjoint(), rtol=1e-4, atol=1e-4)
    steps, narrow = int(found.num_steps.max()), COMPONENTS * dtype.itemsize
    assert 8 < steps < 40
    # A mask a step is kept beside what autograd saves: one byte a sample.
    stored = 2 * steps * (narrow + A_PRINT) + narrow
    anchored = -(-steps // planned_length(0.5, 24)) * 2 * WIDE + 2 * steps * A_PRINT
    assert found.health.stored_bytes == (stored if dtype == torch.float64 else anchored)
    assert saved == found.health.stored_bytes - (narrow if dtype == torch.float64 else 0)
