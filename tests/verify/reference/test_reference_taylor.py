"""Taylor remainders and fitted orders; float64 differences and their error estimates."""

import math

import numpy as np
import pytest

from verify.problems import get_problem
from verify.reference import (
    TooFewPoints,
    default_direction,
    fitted_order,
    float64_finite_differences,
    loss_along,
    n_step,
    taylor_remainders,
)
from verify.reference.arithmetic import Multiprecision


STEPS = [2.0**-k for k in range(2, 14)]
UNIT_ROUNDOFF = 2.0**-53


def directional(problem, gradient):
    at = Multiprecision(50)
    direction = default_direction(problem)
    return sum(at.sum(at.multiply(gradient[leaf], at.convert(along)))[()] for leaf, along in direction.items())


@pytest.mark.parametrize("target", ["n-step", "fixed-point"])
def test_orders_of_a_right_gradient(target):
    problem = get_problem("kepler")
    from verify.reference import fixed_point

    gradient = n_step(problem, 0.5, 3).gradient if target == "n-step" else fixed_point(problem).gradient
    table = taylor_remainders(
        loss_along(problem, 0.5, 3, target=target), directional(problem, gradient), [h / 64 for h in STEPS]
    )
    first, second = fitted_order(table.h, table.r0, floor=0.0), fitted_order(table.h, table.r1, floor=0.0)
    assert first.order == pytest.approx(1, abs=0.01)
    assert second.order == pytest.approx(2, abs=0.01)
    assert table.h == tuple(sorted(table.h, reverse=True))


def test_order_of_a_wrong_gradient_is_one():
    problem = get_problem("dense-tanh")
    derivative = directional(problem, n_step(problem, 0.5, 3).gradient) * (1 + 2.0**-10)
    table = taylor_remainders(loss_along(problem, 0.5, 3), derivative, [2.0**-k for k in range(16, 26)])
    assert fitted_order(table.h, table.r1, floor=0.0).order == pytest.approx(1, abs=0.02)


def test_second_derivative_gives_order_three():
    table = taylor_remainders(math.exp, 1.0, STEPS, second_derivative=1.0)
    assert table.r2 is not None
    assert fitted_order(table.h, table.r2, floor=2 * UNIT_ROUNDOFF).order == pytest.approx(3, abs=0.02)


def test_remainders_below_the_floor_are_left_out():
    table = taylor_remainders(lambda h: math.sin(1 + h), math.cos(1.0), [2.0**-k for k in range(2, 40)])
    fit = fitted_order(table.h, table.r1, floor=2 * UNIT_ROUNDOFF)
    assert abs(fit.order - 2) <= max(0.02, 3 * fit.uncertainty)
    assert fit.h[0] > math.sqrt(64 * UNIT_ROUNDOFF)
    # Without a floor the smallest steps measure nothing but rounding.
    assert abs(fitted_order(table.h, table.r1, floor=0.0).order - 2) > 0.5


def test_uncertainty_covers_the_order_of_noisy_remainders():
    generator = np.random.default_rng(4)
    h = np.array([2.0**-k for k in range(12)])
    covered = 0
    for _ in range(200):
        noisy = h**2 * np.exp(generator.normal(0, 0.05, h.size))
        fit = fitted_order(h.tolist(), noisy.tolist(), floor=0.0)
        covered += abs(fit.order - 2) <= fit.uncertainty
    # 95 % intervals: 190 of 200 expected, binomial standard deviation 3.1.
    assert 177 <= covered <= 200


@pytest.mark.parametrize(
    "remainders", [[0.0] * 6, [math.nan] * 6, [math.inf] * 6, [1e-20] * 6, [1.0, 0.25, 1 / 16, 1e-18, 1e-18, 1e-18]]
)
def test_too_few_points_raise(remainders):
    with pytest.raises(TooFewPoints, match="round-off floor"):
        fitted_order([2.0**-k for k in range(6)], remainders, floor=1e-16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 0.5], [1.0], 0.0), "one remainder per step"),
        (([1.0], [1.0], -1.0), "floor is"),
        (([1.0], [1.0], math.nan), "floor is"),
    ],
)
def test_impossible_fit_is_refused(arguments, message):
    h, remainders, floor = arguments
    with pytest.raises(ValueError, match=message):
        fitted_order(h, remainders, floor=floor)


@pytest.mark.parametrize("steps", [[], [0.0, 1.0], [-1.0], [math.nan]])
def test_steps_that_are_not_positive_are_refused(steps):
    with pytest.raises(ValueError, match="all positive"):
        taylor_remainders(math.exp, 1.0, steps)


@pytest.mark.parametrize("step", [None, 1e-3, 1e-5])
def test_float64_difference_is_within_its_estimate(step):
    x, direction = np.array([0.3, -1.2, 2.0]), np.array([1.0, -0.5, 0.25])

    def function(values):
        return float(np.sum(np.sin(values) * np.exp(values / 2)))

    exact = float(np.sum(direction * np.exp(x / 2) * (np.cos(x) + np.sin(x) / 2)))
    result = float64_finite_differences(function, x, direction, step=step)
    assert abs(result.value - exact) <= 2 * result.error_estimate
    assert result.error_estimate < 1e-5


@pytest.mark.parametrize(
    ("direction", "step", "message"),
    [
        (np.ones(2), None, "shape of x"),
        (np.zeros(3), None, "positive and finite"),
        (np.full(3, np.nan), None, "positive and finite"),
        (np.ones(3), 0.0, "step is"),
        (np.ones(3), math.nan, "step is"),
    ],
)
def test_impossible_float64_difference_is_refused(direction, step, message):
    with pytest.raises(ValueError, match=message):
        float64_finite_differences(lambda values: 0.0, np.ones(3), direction, step=step)
