"""Estimates of Lipschitz constant and eigenvalues against dense linear algebra, and their refusals."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from revdeq._estimate import EstimateError, Jacobian, extreme_eigenvalues, lipschitz_constant


def cell(dimension: int, batch: int = 3, gain: float = 0.8) -> Callable[[Any, Any], Any]:
    generator = torch.Generator().manual_seed(dimension)
    weight = gain * torch.randn(dimension, dimension, generator=generator, dtype=torch.float64) / dimension**0.5
    inputs = torch.randn(batch, dimension, generator=generator, dtype=torch.float64)
    return lambda z, args: torch.tanh(z @ weight.T + inputs)


def dense(function, z):
    return torch.func.jacrev(function)(z, ()).reshape(z.numel(), z.numel())


@pytest.mark.parametrize("dimension", [1, 2, 7, 40])
def test_lipschitz_estimate_approaches_the_largest_singular_value_from_below(dimension):
    function, z = cell(dimension), torch.zeros(3, dimension, dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(dense(function, z), 2))
    estimate = lipschitz_constant(function, z, rtol=1e-3, max_iterations=5000)
    assert estimate.residual <= 1e-3
    assert exact * (1 - 1e-3) <= estimate.value <= exact * (1 + 1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 7, 40])
def test_outer_ritz_values_are_the_outer_eigenvalues(dimension):
    function, z = cell(dimension), torch.zeros(3, dimension, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvals(dense(function, z))
    estimate = extreme_eigenvalues(function, z, rtol=1e-6, max_products=120)
    radius = float(eigenvalues.abs().max())
    assert estimate.residual <= 1e-6
    assert estimate.radius == pytest.approx(radius, rel=1e-4)
    assert estimate.real_max == pytest.approx(float(eigenvalues.real.max()), abs=1e-4 * radius)
    assert estimate.real_min == pytest.approx(float(eigenvalues.real.min()), abs=1e-4 * radius)
    assert estimate.imaginary_max == pytest.approx(float(eigenvalues.imag.max()), abs=1e-4 * radius)


def test_spectrum_of_a_symmetric_function_is_real():
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))[0]
    weight = basis @ torch.diag(torch.linspace(-0.9, 0.7, 30, dtype=torch.float64)) @ basis.T

    def function(z, args):
        return z @ weight

    estimate = extreme_eigenvalues(function, torch.zeros(30, dtype=torch.float64), rtol=1e-8)
    assert estimate.imaginary_max <= 1e-12
    assert (estimate.real_min, estimate.real_max) == pytest.approx((-0.9, 0.7), abs=1e-8)


def test_products_are_those_of_the_dense_jacobian_for_a_tree_with_unused_and_constant_leaves():
    def function(z, args):
        return {"a": 0.5 * z["a"] * z["b"].sum(), "b": torch.ones(2, dtype=torch.float64), "c": z["a"][:1].sin()}

    z = {
        "a": torch.tensor([1.0, 2.0], dtype=torch.float64),
        "b": torch.tensor([0.3, 0.4], dtype=torch.float64),
        "c": torch.zeros(1, dtype=torch.float64),
    }
    jacobian = Jacobian(function, z)
    columns = torch.stack([jacobian.times(e) for e in torch.eye(5, dtype=torch.float64)], dim=1)
    rows = torch.stack([jacobian.transposed(e) for e in torch.eye(5, dtype=torch.float64)])
    assert torch.equal(columns, rows)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[0] = torch.tensor([0.35, 0, 0.5, 0.5, 0], dtype=torch.float64)
    expected[1] = torch.tensor([0, 0.35, 1.0, 1.0, 0], dtype=torch.float64)
    expected[4, 0] = math.cos(1)
    assert torch.allclose(rows, expected, rtol=4 * 2.0**-53, atol=0)


def test_zero_jacobian_has_zero_estimates():
    z = torch.zeros(4)
    assert lipschitz_constant(lambda z, args: torch.ones(4), z).value == 0
    assert extreme_eigenvalues(lambda z, args: torch.ones(4), z).radius == 0


def test_estimates_use_one_evaluation_and_leave_the_random_state_alone():
    calls = 0

    def function(z, args):
        nonlocal calls
        calls += 1
        return torch.nn.functional.dropout(torch.tanh(z), 0.5)

    state = torch.random.get_rng_state()
    extreme_eigenvalues(function, torch.ones(6))
    lipschitz_constant(function, torch.ones(6))
    assert calls == 2
    assert torch.equal(state, torch.random.get_rng_state())


def test_estimator_that_does_not_converge_raises():
    function, z = cell(40), torch.zeros(3, 40, dtype=torch.float64)
    with pytest.raises(EstimateError, match="raise max_iterations or rtol"):
        lipschitz_constant(function, z, rtol=1e-10, max_iterations=3)
    with pytest.raises(EstimateError, match="raise max_products or rtol"):
        extreme_eigenvalues(function, z, rtol=1e-10, max_products=3)


IMPOSSIBLE_POINTS: list[tuple[Callable[[Any, Any], Any], torch.Tensor, type[Exception], str]] = [
    (lambda z, args: z, torch.zeros(0), ValueError, "empty"),
    (lambda z, args: z[:1], torch.zeros(3), ValueError, "must return the shape of z0"),
    (lambda z, args: z / 0, torch.zeros(3), EstimateError, "not finite at this z"),
    (lambda z, args: z.sqrt(), torch.zeros(3), EstimateError, "product with df/dz is not finite"),
]


@pytest.mark.parametrize(("function", "z", "error", "message"), IMPOSSIBLE_POINTS)
def test_impossible_points_are_refused(function, z, error, message):
    with pytest.raises(error, match=message):
        extreme_eigenvalues(function, z)


@pytest.mark.parametrize("budget", [{"rtol": 0.0}, {"rtol": math.nan}, {"max_products": 0}])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(ValueError, match="must be"):
        extreme_eigenvalues(lambda z, args: z / 2, torch.zeros(3), **budget)
