"""Phantom gradients: what they are made of, what they tend to, and what they cost."""

import math
from typing import Any

import pytest
import torch

from revdeq import Adjoint, Anderson, GradientError, ImplicitAdjoint, PhantomAdjoint, Relaxed, Reversible, solve


def run(problem: Any, adjoint: Adjoint, **options: Any) -> Any:
    z0, weight, x = problem
    chosen: dict[str, Any] = {"solver": Anderson(), "max_steps": 60, "rtol": 1e-12, "atol": 1e-13} | options
    return solve(
        lambda z, a: torch.tanh(z @ weight + a),
        z0,
        x,
        adjoint=adjoint,
        **chosen,
    )


@pytest.mark.parametrize(("steps", "beta"), [(1, 1.0), (1, 0.5), (4, 0.5), (3, 1.2)])
def test_gradient_is_that_of_the_relaxed_steps_from_the_constant_z1(problem, steps, beta):
    _, weight, x = problem
    found = run(problem, PhantomAdjoint(steps, beta))
    got = torch.autograd.grad(found.z1.square().sum(), (weight, x))
    z = z1 = found.z1.detach()
    for _ in range(steps):
        z = (1 - beta) * z + beta * torch.tanh(z @ weight + x)
    expected = torch.autograd.grad(z, (weight, x), 2 * z1)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-12, atol=1e-14)


def test_one_plain_step_takes_the_inverse_of_the_jacobian_for_the_identity(problem):
    _, weight, x = problem
    found = run(problem, PhantomAdjoint(steps=1, beta=1.0))
    (by_x,) = torch.autograd.grad(found.z1.sum(), x)
    slope = 1 - torch.tanh(found.z1.detach() @ weight + x) ** 2
    torch.testing.assert_close(by_x, slope.detach(), rtol=1e-13, atol=0.0)


def test_many_steps_tend_to_the_implicit_gradient(problem):
    _, weight, x = problem
    expected = torch.autograd.grad(run(problem, ImplicitAdjoint(rtol=1e-13)).z1.sum(), (weight, x))
    errors = []
    for steps in (1, 4, 16, 64):
        got = torch.autograd.grad(run(problem, PhantomAdjoint(steps, 0.8)).z1.sum(), (weight, x))
        errors.append(max(float((g - e).norm() / e.norm()) for g, e in zip(got, expected, strict=True)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1e-10


def test_the_value_is_that_of_the_solver(problem):
    assert torch.equal(run(problem, PhantomAdjoint()).z1, run(problem, ImplicitAdjoint()).z1)


def test_cotangents_of_both_states_are_added(problem):
    _, weight, x = problem
    found = run(problem, PhantomAdjoint(2, 0.7), solver=Reversible(0.8))
    both = torch.autograd.grad(found.z1.sum() + 2 * found.y1.sum(), (weight, x), retain_graph=True)
    thrice = torch.autograd.grad(3 * found.z1.sum(), (weight, x))
    for b, t in zip(both, thrice, strict=True):
        torch.testing.assert_close(b, t, rtol=1e-13, atol=0.0)


def test_backward_takes_one_evaluation_and_one_vjp_a_step_and_looks_once_whether_f_repeats(counter):
    weight = (0.1 * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    z0 = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    found = solve(counter, z0, weight, solver=Relaxed(1.0), adjoint=PhantomAdjoint(3, 0.5), max_steps=6)
    assert counter.evaluations == 6
    by_z0, by_weight = torch.autograd.grad(found.z1.sum(), (z0, weight), allow_unused=True)
    assert (counter.evaluations, counter.vjps) == (10, 3)
    assert by_z0 is None
    assert bool(by_weight.any())


def test_second_derivatives_are_refused(problem):
    _, weight, x = problem
    (first,) = torch.autograd.grad(run(problem, PhantomAdjoint()).z1.sum(), x, create_graph=True)
    with pytest.raises(GradientError, match="second derivatives"):
        torch.autograd.grad(first.sum(), weight)


def untyped(kind: Any) -> Any:
    """Return `kind`, to be called as somebody without a type checker would."""
    return kind


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: untyped(PhantomAdjoint)(0), ValueError, "steps is 0; it must be an int >= 1"),
        (lambda: untyped(PhantomAdjoint)(1.0), TypeError, "steps is 1.0"),
        (lambda: untyped(PhantomAdjoint)(True), TypeError, "steps is True"),
        (lambda: untyped(PhantomAdjoint)(1, 0.0), ValueError, "0 < beta < 2"),
        (lambda: untyped(PhantomAdjoint)(1, math.nan), ValueError, "beta is nan"),
        (lambda: untyped(PhantomAdjoint)(1, None), TypeError, "beta is None"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert str(caught.value).endswith(".")
