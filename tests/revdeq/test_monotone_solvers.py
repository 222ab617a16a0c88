"""Operator splitting: the resolvent, convergence without a contraction, and gradients through the splitting."""

import math
from typing import Any

import pytest
import torch

from revdeq import (
    ForwardBackward,
    ImplicitAdjoint,
    PeacemanRachford,
    Relaxed,
    SolveError,
    UnrolledAdjoint,
    solve,
)
from revdeq.nn import Monotone, MonotoneDEQ
from revdeq.nn.monotone import MonotoneSplitting
from revdeq.solver import Splittable


def rotating(width: int = 6, size: float = 4.0) -> Monotone:
    """Return a cell whose W has large imaginary eigenvalues: f is far from a contraction."""
    cell = Monotone(width, 3, margin=0.5, dtype=torch.float64)
    with torch.no_grad():
        cell.B.mul_(size / torch.linalg.matrix_norm(cell.B - cell.B.mT, 2))
    return cell


def weight_of(cell: Monotone) -> torch.Tensor:
    identity = torch.eye(cell.width, dtype=cell.A.dtype)
    return ((1 - cell.margin) * identity - cell.A.mT @ cell.A + cell.B - cell.B.mT).detach()


@pytest.mark.parametrize("alpha", [0.1, 1.0, 7.0])
def test_resolvent_and_affine_part_satisfy_their_equations(alpha):
    cell = rotating()
    x, u = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    splitting = cell.split(x, alpha)
    assert isinstance(splitting, MonotoneSplitting)
    weight, c = weight_of(cell), cell.input(x)
    r = splitting.resolvent(u)
    torch.testing.assert_close(r + alpha * (r - r @ weight.mT), u + alpha * c, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(splitting.affine(u), u @ weight.mT + c, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cell(u, x), splitting.prox(splitting.affine(u)), rtol=1e-12, atol=1e-12)


def test_the_cell_is_strongly_monotone_with_its_margin():
    cell = rotating()
    symmetric = torch.eye(6, dtype=torch.float64) - (weight_of(cell) + weight_of(cell).mT) / 2
    assert float(torch.linalg.eigvalsh(symmetric).min()) >= 0.5 - 1e-12


@pytest.mark.parametrize("solver", [PeacemanRachford(0.2), PeacemanRachford(1.0), PeacemanRachford(2.0)], ids=repr)
def test_peaceman_rachford_converges_for_every_step_size_without_a_contraction(solver):
    cell = rotating()
    x = torch.randn(4, 3, dtype=torch.float64)
    start: dict[str, Any] = {"z0": cell.start(x), "args": x}
    options: dict[str, Any] = {"adjoint": UnrolledAdjoint(), "max_steps": 800, "rtol": 1e-9, "atol": 0.0}
    found = solve(cell, **start, solver=solver, **options)
    torch.testing.assert_close(cell(found.z1, x), found.z1, rtol=1e-7, atol=1e-8)
    with pytest.raises(SolveError):
        solve(cell, **start, solver=Relaxed(1.0), **options)


def test_forward_backward_converges_below_its_bound_and_is_plain_at_one():
    cell = rotating(size=1.0)
    x = torch.randn(4, 3, dtype=torch.float64)
    lipschitz = float(torch.linalg.matrix_norm(torch.eye(6, dtype=torch.float64) - weight_of(cell), 2))
    alpha = 0.9 * 2 * 0.5 / lipschitz**2
    options: dict[str, Any] = {"args": x, "adjoint": UnrolledAdjoint()}
    found = solve(cell, cell.start(x), solver=ForwardBackward(alpha), max_steps=4000, rtol=1e-11, atol=0.0, **options)
    other = solve(cell, cell.start(x), solver=PeacemanRachford(), max_steps=400, rtol=1e-12, atol=0.0, **options)
    torch.testing.assert_close(found.z1, other.z1, rtol=1e-8, atol=1e-9)
    plain = solve(cell, cell.start(x), solver=Relaxed(1.0), max_steps=5, **options)
    forward = solve(cell, cell.start(x), solver=ForwardBackward(1.0), max_steps=5, **options)
    torch.testing.assert_close(forward.z1, plain.z1, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("solver", [PeacemanRachford(0.7), ForwardBackward(0.4)], ids=repr)
def test_gradient_through_the_splitting_is_right(solver):
    cell = rotating(size=1.0)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    z0 = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in cell.named_parameters()]

    def run(z0, x, *parameters):
        for name, value in zip(names, parameters, strict=True):
            owner = cell.get_submodule(name.rpartition(".")[0])
            del owner._parameters[name.rpartition(".")[2]]  # pyright: ignore[reportPrivateUsage]
            setattr(owner, name.rpartition(".")[2], value)
            owner._parameters[name.rpartition(".")[2]] = value  # pyright: ignore[reportPrivateUsage]
        return solve(cell, z0, x, solver=solver, adjoint=UnrolledAdjoint(), max_steps=3).z1

    parameters = [p.detach().clone().requires_grad_() for p in cell.parameters()]
    assert torch.autograd.gradcheck(run, (z0, x, *parameters))


def test_the_layer_solves_and_differentiates_where_f_does_not_contract():
    layer = MonotoneDEQ(6, 3, dtype=torch.float64, rtol=1e-11)
    layer.function = rotating()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-6)


def test_a_solver_is_not_changed_by_the_function_that_it_solved():
    solver = PeacemanRachford()
    cell = rotating()
    x = torch.randn(1, 3, dtype=torch.float64)
    solve(cell, cell.start(x), x, solver=solver, adjoint=UnrolledAdjoint(), max_steps=2)
    with pytest.raises(TypeError, match="is not bound to a function"):
        _ = solver.parts
    assert isinstance(cell, Splittable)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes_are_kept_and_autocast_does_not_reach_the_factorisation(dtype):
    cell = Monotone(6, 3, dtype=dtype)
    x = torch.randn(4, 3, dtype=dtype)
    found = solve(cell, cell.start(x), x, solver=PeacemanRachford(), adjoint=UnrolledAdjoint(), max_steps=20)
    assert found.z1.dtype == dtype
    cell, x = cell.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = solve(cell, cell.start(x), x, solver=PeacemanRachford(), adjoint=ImplicitAdjoint(), max_steps=20)
    assert found.z1.dtype == torch.float32
    torch.testing.assert_close(cell(found.z1, x), found.z1, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", [PeacemanRachford, ForwardBackward])
@pytest.mark.parametrize(
    ("step_size", "error"),
    [(0.0, ValueError), (-1.0, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError)],
)
def test_bad_step_sizes_are_refused_with_a_sentence(kind, step_size, error):
    with pytest.raises(error, match=r"step_size is .*; it must be a number with 0 < step_size < inf, such as 1\."):
        kind(step_size)
