"""Measured rates and floors: in balls of high precision, and over the grid of dtypes with the solver's own steps."""

import math
from fractions import Fraction

import flint
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

import rational_iteration as exact
from rate_grid import Grid, rate_table
from rational_maps import Contraction, LinearMap, betas, contractions, linear_maps, vectors
from revdeq.rates import spectral_rate, worst_rate
from verify.problems.families import FIXTURES, batch_of
from verify.regression import fit_rates


EXACT = settings(deadline=None, derandomize=True, max_examples=25)
NORMAL = tuple(fixture for fixture in FIXTURES if fixture.normal)


@pytest.fixture(scope="module")
def grid():
    return rate_table(Grid())


def ball(number: Fraction):
    return flint.arb(exact.rational(number))


def error_curve(linear: LinearMap, beta, num_steps):
    """Norms of (y, z) for f(z) = K z, to 2000 bits, from a start with every eigenvector in it."""
    scalars = [[ball(entry) for entry in row] for row in linear.matrix]
    b = ball(beta)

    def f(v):
        return [sum((a * x for a, x in zip(row, v, strict=True)), flint.arb(0)) for row in scalars]

    y = z = [flint.arb(1) + flint.arb(i * i) / 7 for i in range(linear.dimension)]
    y = [v * (1 - 2 * (i % 2)) for i, v in enumerate(y)]
    for _ in range(num_steps + 1):
        yield float((sum((x * x for x in y + z), flint.arb(0))).log()) / 2
        y, z = exact.step(f, y, z, b)


@given(linear=linear_maps(normal=True), beta=betas(Fraction(1, 8), Fraction(15, 8)))
@EXACT
def test_t2_rate_of_normal_maps_is_the_spectral_rate_in_high_precision(linear: LinearMap, beta):
    # torch would take Python's complex numbers in single precision.
    pairs = [complex(float(x), float(y)) for x, y in linear.eigenvalues]
    kappas = torch.tensor(pairs, dtype=torch.complex128)
    rates = sorted(float(r) for r in spectral_rate(kappas, float(beta)).unique())
    # Two different rates that nearly agree need more steps than are run to be told apart.
    assume(len(rates) < 2 or math.log(rates[-1] / rates[-2]) * 100 > 3 or math.log(rates[-1] / rates[-2]) < 1e-9)
    assume(rates[-1] > 0)
    with flint.ctx.workprec(2000):
        logs = np.array(list(error_curve(linear, beta, 300)))
    # The logarithms are far outside float64's range as numbers, so the linear trend of the prediction is taken out.
    detrended = np.exp(logs - math.log(rates[-1]) * np.arange(301))
    fit = fit_rates(detrended[None, :], np.zeros(1), transient=0.5)
    assert abs(math.log(fit.rate[0])) <= fit.log_uncertainty[0] + 1e-9
    assert abs(math.log(fit.rate[0])) <= 0.02


@given(contraction=contractions(transcendental=True), beta=betas(), data=st.data())
@EXACT
def test_t3_majorant_bounds_tanh_compositions_in_ball_arithmetic(contraction: Contraction, beta, data):
    # A ball comparison is true only where it is proved: no step may be proved to violate the bound.
    starts = [data.draw(vectors(contraction.dimension)) for _ in range(4)]

    def distance(u, v):
        return sum(((p - q) ** 2 for p, q in zip(u, v, strict=True)), flint.arb(0)).sqrt()

    def f(v):
        return contraction(v, ball)

    with flint.ctx.workprec(500):
        b, c = ball(beta), ball(beta * contraction.k)
        a = abs(1 - b)
        y, z, y2, z2 = ([ball(x) for x in start] for start in starts)
        for _ in range(5):
            before = distance(y, y2), distance(z, z2)
            (y, z), (y2, z2) = exact.step(f, y, z, b), exact.step(f, y2, z2, b)
            after = distance(y, y2), distance(z, z2)
            assert not after[0] > a * before[0] + c * before[1]
            assert not after[1] > a * before[1] + c * after[0]


def test_t3_strict_contraction_of_tanh_is_proved_in_ball_arithmetic():
    with flint.ctx.workprec(500):
        b, k = ball(Fraction(4, 5)), ball(Fraction(9, 10))
        y, z = [ball(Fraction(1))], [ball(Fraction(2))]
        for _ in range(8):
            before = abs(y[0]), abs(z[0])
            y, z = exact.step(lambda v: [k * v[0].tanh()], y, z, b)
            assert abs(y[0]) < (1 - b) * before[0] + b * k * before[1]
            assert abs(z[0]) < (1 - b) * before[1] + b * k * abs(y[0])


def test_grid_covers_two_thousand_cells_and_several_dtypes(grid):
    assert len(grid) == Grid().cells >= 2000
    assert set(grid["dtype"]) == {"float64", "float32", "bfloat16"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_t2_measured_rate_is_the_predicted_one_on_normal_linear_maps(grid, dtype):
    cells = grid[(grid.N == 64) & (grid["dtype"] == dtype) & grid.normal & grid.linear & (grid.log_uncertainty <= 0.02)]
    assert len(cells) >= (20 if dtype == "bfloat16" else 100)
    ratio = np.abs(np.log(cells.rate_measured / cells.rate_predicted))
    assert (ratio <= 0.02 + cells.log_uncertainty).all()
    assert (ratio <= 0.02).mean() >= 0.99


def test_t2_measured_rate_of_tanh_maps_is_that_of_their_jacobian_at_the_fixed_point(grid):
    # Where the fixed point repels, tanh saturates and the run never leaves a bounded set: no rate to compare.
    cells = grid[
        (grid.N == 64) & (grid["dtype"] == "float64") & ~grid.linear & (grid.rate_predicted < 1)
        & (grid.log_uncertainty <= 0.02)
    ]  # fmt: skip
    assert len(cells) >= 60
    ratio = np.abs(np.log(cells.rate_measured / cells.rate_predicted))
    assert (ratio <= 0.02 + cells.log_uncertainty).all()


def test_t3_no_cell_decays_slower_than_the_worst_case(grid):
    # The majorant bounds the norm of (|y|, |z|) by that of F^N (1, 1), for every N, up to the floor.
    cells = grid[grid.rate_worst < 1]
    assert len(cells) > 2000
    bound = np.empty(len(cells))
    for row, (beta, k, n) in enumerate(zip(cells.beta, cells.k, cells.N, strict=True)):
        a, c = abs(1 - beta), beta * k * (1 + 2.0**-8)
        majorant = np.array([[a, c], [c * a, a + c * c]])
        bound[row] = np.linalg.norm(np.linalg.matrix_power(majorant, n), 2)
    sure = cells.problem.isin([f.name for f in NORMAL]).to_numpy()
    assert (cells.error.to_numpy() <= bound + cells.floor.to_numpy())[sure].all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_error_goes_down_to_the_predicted_floor_and_stays_there(grid, dtype):
    cells = grid[(grid.N == 64) & (grid["dtype"] == dtype) & grid.normal & (grid.rate_worst**64 < 1e-3 * grid.floor)]
    assert len(cells) >= 40
    assert (cells.error <= cells.floor).all()


def test_t6_reconstruction_grows_no_faster_than_the_reverse_majorant(grid):
    # Beyond 1e30 the rebuilt states leave the range of float32 and bfloat16.
    cells = grid[(grid.rate_worst < 1) & grid.normal & (grid.reconstruction_estimate < 1e30)]
    assert len(cells) > 2000
    assert (cells.reconstruction <= cells.reconstruction_estimate).all()


@pytest.mark.parametrize("beta", [0.3, 0.5, 0.8, 1.2, 1.5])
def test_t6_reversed_steps_grow_at_the_dual_rate(beta):
    # A state off the fixed point is carried back; its slowest mode grows by rho / a^2 a step, whatever the others do.
    linear = [fixture for fixture in NORMAL if fixture.linear]
    batch = batch_of(linear, (0.5, 0.9))
    function = batch.function(torch.float64)
    y, z = batch.fixed_point + 1e-6, batch.fixed_point.clone()
    a, distances = 1 - beta, []
    for _ in range(61):
        distances.append(torch.hypot((y - batch.fixed_point).norm(dim=1), (z - batch.fixed_point).norm(dim=1)))
        z = (z - beta * function(y)) / a
        y = (y - beta * function(z)) / a
    fit = fit_rates(torch.stack(distances, dim=1).numpy(), np.zeros(len(batch.names)), transient=0.5)
    dual = spectral_rate(batch.eigenvalues, beta).amax(dim=1).numpy() / a**2
    assert (np.abs(np.log(fit.rate / dual)) <= 0.02 + fit.log_uncertainty).all()
    assert (np.abs(np.log(fit.rate) / np.log(dual) - 1) <= 0.05).all()


def test_regression_recovers_a_planted_rate_above_its_floor():
    n = np.arange(60)
    errors = np.stack([0.8**n + 1e-4, 1.1**n, 0.5**n * (2 + np.cos(n))])
    fit = fit_rates(errors.astype(np.float64), np.array([1e-3, 0.0, 1e-12]))
    assert np.abs(np.log(fit.rate / [0.8, 1.1, 0.5])).max() <= 0.02
    assert (np.abs(np.log(fit.rate / [0.8, 1.1, 0.5])) <= fit.log_uncertainty + 1e-12).all()


def test_regression_gives_no_rate_for_too_few_points():
    fit = fit_rates(np.array([[1.0, 0.1, 0.01, 0.001, 1e-4, 1e-5]]), np.array([1e-2]))
    assert np.isnan(fit.rate[0])
    assert np.isnan(fit.log_uncertainty[0])


@pytest.mark.parametrize("floors", [np.array([np.nan]), np.array([-1.0]), np.zeros(2)])
def test_regression_refuses_impossible_floors(floors):
    with pytest.raises(ValueError, match="floors"):
        fit_rates(np.ones((1, 8)), floors)


def test_batch_fixed_points_are_fixed_to_rounding():
    batch = batch_of(FIXTURES, (0.5, 0.9))
    residual = (batch.function(torch.float64)(batch.fixed_point) - batch.fixed_point).norm(dim=1)
    assert float((residual / batch.fixed_point.norm(dim=1)).max()) <= 64 * 2.0**-53


@pytest.mark.parametrize(("arguments", "message"), [(((), (0.5,)), "at least one"), ((FIXTURES, (0.5,), 3), "even")])
def test_batch_refuses_what_it_cannot_build(arguments, message):
    with pytest.raises(ValueError, match=message):
        batch_of(*arguments)


def test_t3_worst_rate_is_reached_within_a_percent_by_the_witnesses(grid):
    for name, side in (("witness", grid.beta < 1), ("quarter-turn", grid.beta > 1)):
        cells = grid[(grid.problem == name) & side & (grid.N == 64)]
        assert len(cells) > 50
        assert np.abs(cells.rate_predicted / cells.rate_worst - 1).max() <= 1e-9
    assert worst_rate(0.5, 0.9) == pytest.approx(0.9351684967922562, rel=1e-14)
