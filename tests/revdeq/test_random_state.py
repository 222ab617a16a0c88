"""Random numbers: one draw a solve, replayed in backward, and generators that end where one evaluation leaves them."""

import random
from typing import Any

import pytest
import torch
from torch import nn

from revdeq import GradientError, ImplicitAdjoint, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def dropping(problem: Problem):
    _, weight, _ = problem

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(nn.functional.dropout(z, 0.5) @ weight + nn.functional.dropout(a, 0.3))

    return function


def test_gradient_with_dropout_equals_that_of_the_fixed_mask(problem: Problem):
    z0, weight, x = problem
    state = torch.get_rng_state()
    mask_z, mask_x = nn.functional.dropout(torch.ones_like(z0), 0.5), nn.functional.dropout(torch.ones_like(x), 0.3)

    def masked(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh((z * mask_z) @ weight + a * mask_x)

    def gradients(function, adjoint) -> tuple[torch.Tensor, ...]:
        torch.set_rng_state(state)
        found: Any = solve(function, z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=4)
        torch.rand(3)  # the generator moves on before backward
        return torch.autograd.grad(found.z1.sum() + found.y1.square().sum(), (z0, weight, x))

    expected = gradients(masked, UnrolledAdjoint())
    for adjoint in (ReversibleAdjoint(), UnrolledAdjoint()):
        for got, want in zip(gradients(dropping(problem), adjoint), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint(), ImplicitAdjoint()], ids=repr)
def test_generator_ends_where_one_evaluation_leaves_it(problem: Problem, adjoint):
    z0, _, x = problem
    state = torch.get_rng_state()
    with torch.no_grad():
        dropping(problem)(z0, x)
    expected = torch.get_rng_state()
    torch.set_rng_state(state)
    found = solve(dropping(problem), z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=40)
    assert torch.equal(torch.get_rng_state(), expected)
    found.z1.sum().backward()
    assert torch.equal(torch.get_rng_state(), expected)


def test_two_solves_draw_different_masks(problem: Problem):
    z0, _, x = problem
    with torch.no_grad():
        first, second = (
            solve(dropping(problem), z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
            for _ in range(2)
        )
    assert not torch.equal(first.z1, second.z1)


def test_two_solves_before_one_backward_keep_their_masks(problem: Problem):
    z0, weight, x = problem
    state = torch.get_rng_state()

    def gradients(adjoint) -> tuple[torch.Tensor, ...]:
        torch.set_rng_state(state)
        first = solve(dropping(problem), z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=3)
        second = solve(dropping(problem), first.z1, x, solver=Reversible(0.6), adjoint=adjoint, max_steps=3)
        return torch.autograd.grad(second.z1.sum(), (z0, weight, x))

    for got, want in zip(gradients(ReversibleAdjoint()), gradients(UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint()], ids=repr)
def test_generator_given_to_an_operation_is_replayed_too(problem: Problem, adjoint):
    z0, weight, x = problem
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    after = generator.get_state()
    generator.manual_seed(7)

    def noisy(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ weight + a + torch.rand(a.shape, generator=generator, dtype=a.dtype))

    def fixed(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ weight + a + noise)

    found = solve(noisy, z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=3)
    assert torch.equal(generator.get_state(), after)
    generator.manual_seed(11)
    before_backward = generator.get_state()
    got = torch.autograd.grad(found.z1.sum(), (z0, weight, x))
    assert torch.equal(generator.get_state(), before_backward)
    plain = solve(fixed, z0, x, solver=Reversible(0.8), adjoint=UnrolledAdjoint(), max_steps=3)
    torch.testing.assert_close(found.z1, plain.z1, rtol=0.0, atol=0.0)
    for g, e in zip(got, torch.autograd.grad(plain.z1.sum(), (z0, weight, x)), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint()], ids=repr)
def test_function_that_draws_only_in_later_evaluations_raises(problem: Problem, adjoint):
    z0, _, x = problem
    calls: list[int] = []

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 0.5 * torch.tanh(z + (torch.rand_like(a) if len(calls) > 2 else a))

    with pytest.raises(GradientError, match="drew other random numbers in a later evaluation"):
        solve(function, z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=3)


def test_function_that_draws_more_in_later_evaluations_raises(problem: Problem):
    z0, _, x = problem
    calls: list[int] = []

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        for _ in range(len(calls)):
            a = a + torch.rand_like(a)
        return 0.5 * torch.tanh(z + a)

    with pytest.raises(GradientError, match="drew other random numbers in a later evaluation"):
        solve(function, z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=1), ReversibleAdjoint(segment=3)])
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_function_that_draws_from_elsewhere_is_detected_on_replay(
    problem: Problem, tolerance: float | None, adjoint: ReversibleAdjoint
):
    z0, _, x = problem
    draws = random.Random(5)

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return 0.1 * torch.tanh(z + draws.choice((0.0, 0.01)) + draws.random() * 1e-3 * a)

    found = solve(
        function,
        z0,
        x,
        solver=Reversible(0.8),
        adjoint=adjoint,
        max_steps=6,
        rtol=tolerance,
        atol=tolerance,
        throw=False,
    )
    with pytest.raises(GradientError, match=r"function does not repeat: .* make every evaluation the same"):
        found.z1.sum().backward()
    assert found.health is not None
    assert not found.health.verified


def wandering(size: float):
    """A map whose values differ in a small number from call to call, as those of kernels with atomics do."""
    calls: list[int] = []

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return 0.5 * torch.tanh(z + a) + 0.25 * size * (len(calls) % 7)

    return function


def test_rounding_differences_of_a_replay_are_measured_where_inputs_were_stored(problem: Problem):
    z0, _, x = problem
    adjoint = ReversibleAdjoint(segment=1)
    found: Any = solve(wandering(1e-14), z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=4)
    got = torch.autograd.grad(found.z1.sum(), (z0, x))
    assert found.health.verified is False
    assert 0.0 < found.health.replay_error < 1e-13
    plain = solve(wandering(0.0), z0, x, solver=Reversible(0.8), adjoint=UnrolledAdjoint(), max_steps=4)
    for g, w in zip(got, torch.autograd.grad(plain.z1.sum(), (z0, x)), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)


def test_rounding_differences_of_a_replay_are_refused_where_steps_were_undone(problem: Problem):
    z0, _, x = problem
    adjoint = ReversibleAdjoint(segment=4)
    found = solve(wandering(1e-12), z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=4)
    with pytest.raises(GradientError, match="function does not repeat"):
        found.z1.sum().backward()


def test_function_that_repeats_has_exactly_no_replay_error(problem: Problem):
    z0, _, x = problem
    for tolerance in (None, 1e-6):
        found = solve(
            dropping(problem),
            z0,
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=40 if tolerance else 4,
            rtol=tolerance,
            atol=tolerance,
        )
        found.z1.sum().backward()
        assert found.health is not None
        assert found.health.replay_error == 0.0
