"""The reversible gradient is the gradient of the N-step map, leaf by leaf, for every cotangent and step count."""

import itertools

import pytest
import torch

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def affine_tanh(z: torch.Tensor, args: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    weight, x = args
    return torch.tanh(z @ weight + x)


@pytest.mark.parametrize(("steps", "on"), list(itertools.product((0, 1, 2, 3, 6), ("z", "y", "both"))))
def test_gradient_equals_unrolled_for_each_cotangent_and_step_count(agree, problem: Problem, steps: int, on: str):
    z0, weight, x = problem
    agree(affine_tanh, z0, (weight, x), (z0, weight, x), max_steps=steps, on=on)


@pytest.mark.parametrize("beta", [0.25, 0.5, 0.8, 0.95, 1.2, 1.25, 1.5])
def test_gradient_equals_unrolled_for_each_beta(agree, problem: Problem, beta: float):
    z0, weight, x = problem
    agree(affine_tanh, z0, (weight, x), (z0, weight, x), solver=Reversible(beta), max_steps=4)


@pytest.mark.parametrize("spectrum", ["negative", "imaginary", "defective", "expanding"])
def test_gradient_equals_unrolled_for_each_spectrum(agree, problem: Problem, spectrum: str):
    z0, weight, x = problem
    if spectrum == "negative":
        matrix = torch.diag(torch.tensor([-0.9, -0.5, -0.1, -0.7], dtype=torch.float64))
    elif spectrum == "imaginary":
        block = torch.tensor([[0.0, 0.9], [-0.9, 0.0]], dtype=torch.float64)
        matrix = torch.block_diag(block, 0.5 * block)
    elif spectrum == "defective":
        matrix = 0.6 * torch.eye(4, dtype=torch.float64) + torch.diag(torch.ones(3, dtype=torch.float64), 1)
    else:
        matrix = 1.5 * torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    weight = matrix.requires_grad_()
    agree(lambda z, a: z @ a[0] + a[1], z0, (weight, x), (z0, weight, x), max_steps=4)


def test_gradcheck_accepts_the_reversible_gradient(problem: Problem):
    def run(*leaves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z0, weight, x = leaves
        found = solve(affine_tanh, z0, (weight, x), solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=4)
        assert found.y1 is not None
        return found.z1, found.y1

    assert torch.autograd.gradcheck(run, problem)


def test_function_that_ignores_an_input_gives_it_no_gradient(agree, problem: Problem):
    z0, weight, x = problem
    agree(lambda z, a: torch.tanh(z @ a[0]), z0, (weight, x), (z0, weight, x))
    agree(lambda z, a: a[1], z0, (weight, x), (z0, weight, x))
    agree(lambda z, a: z, z0, (weight, x), (z0, weight, x))
    agree(lambda z, a: torch.ones_like(z), z0, (weight, x), (z0, weight, x))


def test_function_that_branches_on_its_state_is_followed(agree, problem: Problem):
    z0, weight, x = problem

    def branching(z: torch.Tensor, args: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.tanh(z @ args[0]) if float(z.detach().abs().sum()) > 3.0 else 0.5 * z + args[1]

    agree(branching, z0, (weight, x), (z0, weight, x), max_steps=5)


def test_function_that_differentiates_inside_gives_the_unrolled_gradient(agree, problem: Problem):
    z0, weight, x = problem

    def energy_step(z: torch.Tensor, args: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            energy = 0.5 * (z * z).sum() + torch.cos(z @ args[0] + args[1]).sum()
            (slope,) = torch.autograd.grad(energy, z, create_graph=True)
        return z - 0.5 * slope

    agree(energy_step, z0, (weight, x), (z0, weight, x))


def test_solution_does_not_change_when_the_gradient_is_taken(problem: Problem):
    z0, weight, x = problem
    found = solve(affine_tanh, z0, (weight, x), solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=4)
    assert found.y1 is not None
    tensors: list[torch.Tensor] = [found.z1, found.y1, z0, weight, x]
    before = [t.detach().clone() for t in tensors]
    found.z1.sum().backward()
    assert all(torch.equal(b, t) for b, t in zip(before, tensors, strict=True))


def test_writing_into_the_result_does_not_disturb_the_gradient(problem: Problem):
    z0, weight, x = problem

    def run(*, write: bool) -> tuple[torch.Tensor, ...]:
        found = solve(affine_tanh, z0, (weight, x), solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=4)
        if write:
            with torch.no_grad():
                found.z1.mul_(3.0)
        return torch.autograd.grad(found.z1.sum(), (z0, weight, x))

    for plain, written in zip(run(write=False), run(write=True), strict=True):
        assert torch.equal(plain, written)


def test_zero_cotangent_gives_exactly_zero(problem: Problem):
    z0, weight, x = problem
    found = solve(affine_tanh, z0, (weight, x), solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=4)
    for gradient in torch.autograd.grad(found.z1, (z0, weight, x), torch.zeros_like(found.z1)):
        assert not bool(gradient.any())


def test_gradient_scales_exactly_with_a_power_of_two(problem: Problem):
    z0, weight, x = problem
    found = solve(affine_tanh, z0, (weight, x), solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=4)
    ones = torch.ones_like(found.z1)
    small = torch.autograd.grad(found.z1, (z0, weight, x), ones, retain_graph=True)
    large = torch.autograd.grad(found.z1, (z0, weight, x), 1024.0 * ones)
    assert all(torch.equal(1024.0 * s, g) for s, g in zip(small, large, strict=True))


def test_two_solves_of_one_graph_add_their_gradients(problem: Problem):
    z0, weight, x = problem

    def chain(adjoint: ReversibleAdjoint | UnrolledAdjoint) -> tuple[torch.Tensor, ...]:
        middle = solve(affine_tanh, z0, (weight, x), solver=Reversible(0.8), adjoint=adjoint, max_steps=3).z1
        end = solve(affine_tanh, middle, (weight, middle), solver=Reversible(0.6), adjoint=adjoint, max_steps=2).z1
        return torch.autograd.grad((end * middle).sum(), (z0, weight, x))

    for got, expected in zip(chain(ReversibleAdjoint()), chain(UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def test_solve_inside_the_function_of_a_solve_gives_the_unrolled_gradient(agree, problem: Problem):
    z0, weight, x = problem
    outside = 1.1 * weight  # a captured tensor that is not a leaf, read in the inner function

    def outer(inner_adjoint: ReversibleAdjoint | UnrolledAdjoint):
        def function(z: torch.Tensor, args: torch.Tensor) -> torch.Tensor:
            def inner(u: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
                return torch.tanh(u @ outside + shift)

            return solve(inner, 0.1 * z, z + args, solver=Reversible(0.6), adjoint=inner_adjoint, max_steps=2).z1

        return function

    got = agree(outer(ReversibleAdjoint()), z0, x, (z0, weight, x), max_steps=2)
    expected = agree(outer(UnrolledAdjoint()), z0, x, (z0, weight, x), max_steps=2)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-11, atol=1e-13)
