"""The linear equation of the implicit gradient: every solver gives the same answer or says that it has none."""

from typing import Any

import pytest
import torch

from revdeq import (
    GMRES,
    Anderson,
    Broyden,
    ForwardBackward,
    GradientError,
    ImplicitAdjoint,
    PeacemanRachford,
    Relaxed,
    Reversible,
    UnrolledAdjoint,
    solve,
)
from revdeq._iterate import iterate
from revdeq._residual import Stopping


LINEAR = [None, Relaxed(0.8), Anderson(), Broyden(), Reversible(0.9), GMRES(), GMRES(2), GMRES(40, per_sample=False)]


def implicit_gradients(weight, x, adjoint, *, forward=None):
    solution = solve(
        lambda z, a: torch.tanh(z @ weight + a),
        torch.zeros_like(x),
        x,
        solver=Anderson() if forward is None else forward,
        adjoint=adjoint,
        max_steps=300,
        rtol=1e-13,
        atol=1e-13,
    )
    weights = torch.linspace(-1.0, 2.0, x.numel(), dtype=x.dtype).reshape(x.shape)
    return torch.autograd.grad((solution.z1 * weights).sum(), (weight, x)), solution


@pytest.mark.parametrize("linear", LINEAR, ids=repr)
def test_every_linear_solver_gives_the_same_implicit_gradient(linear):
    torch.manual_seed(3)
    weight = (0.35 * torch.randn(5, 5, dtype=torch.float64)).requires_grad_()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    adjoint = ImplicitAdjoint(solver=linear, rtol=1e-12)
    got, solution = implicit_gradients(weight, x, adjoint)
    z1 = solution.z1.detach()
    # (I - K)^T v = c by a dense solve, one sample at a time.
    slope = 1 - torch.tanh(z1 @ weight + x) ** 2
    c = torch.linspace(-1.0, 2.0, x.numel(), dtype=x.dtype).reshape(x.shape)
    v = torch.stack(
        [
            torch.linalg.solve(torch.eye(5, dtype=x.dtype) - (weight * s).detach(), ci)
            for s, ci in zip(slope, c, strict=True)
        ]
    )
    by_x = (v * slope).detach()
    torch.testing.assert_close(got[1], by_x, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(got[0], z1.T @ by_x, rtol=1e-9, atol=1e-10)
    assert solution.health is not None
    assert solution.health.adjoint_residual is not None
    assert solution.health.adjoint_residual <= 1e-12 * 20 * float(torch.linalg.vector_norm(v))


def reflecting(x):
    """Return a map with df/dz = -3 I: not a contraction, I - K = 4 I regular."""
    scale = torch.tensor(3.0, dtype=x.dtype, requires_grad=True)

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return a - scale * z

    return scale, function


@pytest.mark.parametrize("linear", [Anderson(), Broyden(), GMRES()], ids=repr)
def test_a_function_that_does_not_contract_is_differentiated(linear):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    scale, function = reflecting(x)
    found = solve(
        function,
        torch.zeros_like(x),
        x,
        solver=Broyden(),
        adjoint=ImplicitAdjoint(solver=linear),
        max_steps=20,
        rtol=1e-13,
        atol=0.0,
    )
    by_scale, by_x = torch.autograd.grad(found.z1.sum(), (scale, x))
    # z* = x / (1 + scale)
    torch.testing.assert_close(by_x, torch.full_like(x, 0.25), rtol=1e-11, atol=0.0)
    torch.testing.assert_close(by_scale, -x.detach().sum() / 16, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("linear", [None, Relaxed(0.9)], ids=repr)
def test_the_plain_iteration_refuses_a_function_that_does_not_contract(linear):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    _, function = reflecting(x)
    found = solve(
        function,
        torch.zeros_like(x),
        x,
        solver=Broyden(),
        adjoint=ImplicitAdjoint(solver=linear, max_steps=50),
        max_steps=20,
        rtol=1e-13,
        atol=0.0,
    )
    with pytest.raises(GradientError, match="another solver such as GMRES"):
        found.z1.sum().backward()


def iterated(matrix: Any, b: Any, solver: GMRES, max_steps: int = 50, rtol: float = 1e-12):
    return iterate(lambda v: (v[0] @ matrix.T + b,), solver, (torch.zeros_like(b),), Stopping(max_steps, rtol, 0.0))


@pytest.mark.parametrize("per_sample", [True, False])
def test_one_cycle_as_long_as_the_dimension_solves(per_sample):
    matrix = 2 * torch.randn(6, 6, dtype=torch.float64)
    b = torch.randn(2, 6, dtype=torch.float64)
    outcome = iterated(matrix, b, GMRES(12, per_sample=per_sample), max_steps=2, rtol=1e-11)
    assert outcome.residual is not None
    assert int(outcome.num_steps.max()) <= 2
    expected = torch.linalg.solve(torch.eye(6, dtype=b.dtype) - matrix, b.T).T
    torch.testing.assert_close(outcome.state[0], expected, rtol=1e-8, atol=1e-8)


def test_a_krylov_space_that_closes_early_is_no_error():
    # Of K = diag(2, 2, 2, 5) and right sides in one or two eigenspaces: the space has one or two dimensions.
    matrix = torch.diag(torch.tensor([2.0, 2.0, 2.0, 5.0], dtype=torch.float64))
    b = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    outcome = iterated(matrix, b, GMRES(4))
    expected = b / (1 - torch.diagonal(matrix))
    torch.testing.assert_close(outcome.state[0], expected, rtol=1e-13, atol=1e-13)
    assert outcome.num_steps.tolist() == [1, 1, 0]


def test_a_singular_equation_ends_with_its_residual():
    matrix = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))
    outcome = iterated(matrix, torch.ones(1, 2, dtype=torch.float64), GMRES(2), max_steps=5)
    assert outcome.residual is not None
    # What no v can remove is the component of the right side in the null space.
    torch.testing.assert_close(outcome.residual, torch.ones(1, dtype=torch.float64), rtol=1e-6, atol=0.0)
    assert bool(torch.isfinite(outcome.state[0]).all())


def test_a_nan_sample_leaves_the_others_solved():
    matrix = 2 * torch.randn(3, 3, dtype=torch.float64)
    b = torch.randn(3, 3, dtype=torch.float64)
    b[1] = torch.nan
    outcome = iterated(matrix, b, GMRES(6))
    assert bool(torch.isfinite(outcome.state[0][[0, 2]]).all())
    assert outcome.residual is not None
    assert bool((outcome.residual[[0, 2]] <= 1e-10).all())


def test_the_whole_batch_is_one_vector_where_samples_are_mixed():
    b = torch.randn(4, 3, dtype=torch.float64)

    def function(v):
        return (b + 0.9 * v[0] - 2.0 * v[0].mean(dim=0, keepdim=True),)

    z0 = (torch.zeros_like(b),)
    outcome = iterate(function, GMRES(6, per_sample=False), z0, Stopping(3, 1e-12, 0.0))
    assert outcome.residual is not None
    assert bool((outcome.residual <= 1e-11).all())


def test_gmres_counts_its_evaluations():
    calls = 0

    def function(v):
        nonlocal calls
        calls += 1
        return (0.5 * v[0] + 1,)

    solver = GMRES(5)
    iterate(function, solver, (torch.zeros(2, 8),), Stopping(3))
    assert calls == 3 * solver.evaluations_per_step == 18


def test_solve_refuses_a_solver_of_affine_equations():
    with pytest.raises(TypeError, match=r"GMRES\(.*solves affine equations alone"):
        solve(lambda z, a: z, torch.zeros(1, 2), solver=GMRES(), adjoint=UnrolledAdjoint(), max_steps=1)


@pytest.mark.parametrize("solver", [PeacemanRachford(), ForwardBackward()], ids=repr)
def test_the_adjoint_equation_has_no_splitting(solver):
    with pytest.raises(TypeError, match="the adjoint equation has none"):
        ImplicitAdjoint(solver=solver)
