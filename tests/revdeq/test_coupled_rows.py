"""States whose rows read each other: what is returned as converged is so, and its gradients are right."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import (
    Anderson,
    Broyden,
    CheckpointedAdjoint,
    ImplicitAdjoint,
    PhantomAdjoint,
    Relaxed,
    Result,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)


SOLVERS = [Reversible(0.8), Reversible(0.75, arithmetic="bitwise"), Relaxed(0.9), Anderson(), Broyden()]
TOLERANCE = 1e-6


def graph(nodes: int) -> torch.Tensor:
    """A sparse normalised adjacency matrix in which some nodes lie far from the sources."""
    path = torch.diag(torch.ones(nodes - 1), -1) + torch.diag(torch.ones(nodes - 1), 1) + torch.eye(nodes)
    path[0, nodes // 2] = path[nodes // 2, 0] = 1.0
    degrees = path.sum(1).rsqrt()
    return (degrees[:, None] * path * degrees).double()


class Graph(nn.Module):
    """tanh(A Z W + X): every node reads its neighbours."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.adjacency = graph(nodes)
        self.weight = nn.Parameter(0.9 * torch.eye(4, dtype=torch.float64))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.adjacency @ z @ self.weight + x)


class Chain(nn.Module):
    """A sequence whose first dimension is time: each step reads the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.2 * torch.ones(4, 4, dtype=torch.float64))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        before = torch.cat((torch.zeros_like(z[:1]), z[:-1]))
        return torch.tanh(before @ self.weight + x)


class SetAttention(nn.Module):
    """Rows attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.eye(4, dtype=torch.float64))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.8 * torch.softmax(z @ self.weight @ z.T, dim=-1) @ z + x


class Lyapunov(nn.Module):
    """The matrix equation Z = W Z W^T + X."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.3, 0.35, 36, dtype=torch.float64).reshape(6, 6))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.weight @ z @ self.weight.T + x


def source(rows: int, columns: int = 4) -> torch.Tensor:
    """Only the first rows are driven, so that the others are at rest, and stopped, when the wave reaches them."""
    x = torch.zeros(rows, columns, dtype=torch.float64)
    x[:2] = torch.linspace(0.25, 1.0, 2 * columns, dtype=torch.float64).reshape(2, columns)
    return x


PROBLEMS: dict[str, Any] = {
    "graph": lambda: (Graph(16), source(16)),
    "chain": lambda: (Chain(), source(12)),
    "attention": lambda: (SetAttention(), source(8)),
    "matrix": lambda: (Lyapunov(), source(6, 6)),
}


def run(problem: str, solver: Any, adjoint: Any, **options: Any) -> tuple[Any, nn.Module, torch.Tensor]:
    f, x = PROBLEMS[problem]()
    settings: Any = {"max_steps": 400, "rtol": TOLERANCE, "atol": TOLERANCE, **options}
    return solve(f, torch.zeros_like(x), x.requires_grad_(), solver=solver, adjoint=adjoint, **settings), f, x


# Those that mix states of the past do so row by row, which rows that read each other may not bear: then they say so.
MIXING = (Anderson, Broyden)


@pytest.mark.parametrize("adjoint", [UnrolledAdjoint(), ImplicitAdjoint(throw=False)], ids=["unrolled", "implicit"])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_converged_is_true_of_every_row_of_the_state_returned(problem, solver, adjoint):
    found, f, x = run(problem, solver, adjoint, throw=False)
    with torch.no_grad():
        value = f(found.z1, x)
        residual = (value - found.z1).norm(dim=1)
    assert isinstance(solver, MIXING) or found.result is Result.CONVERGED
    converged = found.sample_results == Result.CONVERGED.code
    assert torch.equal(converged, residual <= TOLERANCE * (1 + value.norm(dim=1)))
    torch.testing.assert_close(found.residual, residual, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_solver_converges_where_the_rows_are_one_sample(problem, solver):
    found, f, x = run(problem, solver, UnrolledAdjoint(), batch_dims=0)
    with torch.no_grad():
        value = f(found.z1, x)
        assert bool((value - found.z1).norm() <= TOLERANCE * (1 + value.norm()))


@pytest.mark.parametrize("solver", [Reversible(0.8), Relaxed(0.9), Anderson()], ids=repr)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_implicit_gradients_are_those_of_the_fixed_point_of_all_rows(problem, solver):
    tight: Any = {"rtol": 1e-11, "atol": 1e-12, "batch_dims": 0 if isinstance(solver, MIXING) else None}
    found, f, x = run(problem, solver, ImplicitAdjoint(rtol=1e-10), **tight)
    # One row alone: what reaches the other rows comes through their coupling.
    got = torch.autograd.grad(found.z1[-1].sum(), (x, *f.parameters()))

    def residual(z: torch.Tensor) -> torch.Tensor:
        return z - f(z, x)

    z1 = found.z1.detach().requires_grad_()
    size = z1.numel()
    jacobian: Any = torch.autograd.functional.jacobian(residual, z1)
    cotangent = torch.zeros_like(z1)
    cotangent[-1] = 1.0
    pulled = torch.linalg.solve(jacobian.reshape(size, size).T, cotangent.reshape(-1)).reshape_as(z1)
    want = torch.autograd.grad(f(z1, x), (x, *f.parameters()), pulled)
    for g, w in zip(got, want, strict=True):
        assert float((g - w).norm() / w.norm()) <= 1e-8


@pytest.mark.parametrize("batch_dims", [None, 0], ids=["rows as samples", "one sample"])
@pytest.mark.parametrize(
    "adjoint",
    [ReversibleAdjoint(), ReversibleAdjoint(segment=4), CheckpointedAdjoint(3)],
    ids=repr,
)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_rows_that_are_taken_up_again_have_the_unrolled_gradient(problem, adjoint, batch_dims):
    gradients = []
    for chosen in (adjoint, UnrolledAdjoint()):
        found, f, x = run(problem, Reversible(0.8), chosen, batch_dims=batch_dims)
        gradients.append(torch.autograd.grad(found.z1[-1].sum() + found.y1.sum(), (x, *f.parameters())))
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_some_row_is_taken_up_again():
    found, _, _ = run("chain", Relaxed(0.9), UnrolledAdjoint())
    # A row at rest from the start stops before it takes a step, and starts when the wave reaches it.
    steps = found.num_steps.tolist()
    assert steps[-1] > 0
    assert len(set(steps)) > 2


def test_the_phantom_gradient_of_coupled_rows_is_that_of_its_steps():
    found, f, x = run("graph", Reversible(0.8), PhantomAdjoint(3, 0.5))
    got = torch.autograd.grad(found.z1[-1].sum(), x)[0]
    z = found.z1.detach()
    for _ in range(3):
        z = 0.5 * z + 0.5 * f(z, x)
    torch.testing.assert_close(got, torch.autograd.grad(z[-1].sum(), x)[0], rtol=1e-12, atol=1e-15)


def test_one_sample_is_one_number_of_steps():
    found, _, _ = run("chain", Reversible(0.8), ReversibleAdjoint(), batch_dims=0)
    assert found.num_steps.shape == found.residual.shape == found.sample_results.shape == ()
    assert found.result is Result.CONVERGED


def test_values_that_differ_by_rounding_are_told_from_rows_that_were_taken_up_again():
    f, x = PROBLEMS["chain"]()
    calls: list[int] = []

    def wandering(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return f(z, a) + 1e-14 * (len(calls) % 7)

    gradients: list[Any] = []
    for function, adjoint in ((wandering, ReversibleAdjoint(segment=1)), (f, UnrolledAdjoint())):
        found: Any = solve(
            function,
            torch.zeros_like(x),
            x.requires_grad_(),
            solver=Reversible(0.8),
            adjoint=adjoint,
            max_steps=400,
            rtol=TOLERANCE,
            atol=TOLERANCE,
        )
        gradients.append(torch.autograd.grad(found.z1[-1].sum(), x)[0])
        if found.health is not None:
            assert found.health.verified is False
            assert found.health.replay_error < 1e-10
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
