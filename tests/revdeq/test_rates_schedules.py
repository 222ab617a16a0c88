"""Schedules of beta and averaged maps: what they gain, what they do not, and that they reverse."""

import math

import pytest
import torch

from revdeq import ImplicitAdjoint, Relaxed, Reversible, ReversibleAdjoint, solve
from revdeq._averaging import Averaged
from revdeq._schedule import Schedule, adapted_beta, chebyshev_schedule, constant_schedule, schedule_errors
from revdeq.rates import ellipse_points, error_growth, optimal_averaging, optimal_beta, optimal_rate


def run(schedule: Schedule, kappa: float) -> float:
    y = z = 1.0
    for first, second in schedule:
        y = (1 - first) * y + first * kappa * z
        z = (1 - second) * z + second * kappa * y
    return z


def test_chebyshev_schedule_is_the_chebyshev_polynomial():
    # The error of z after N steps is T_2N(kappa/k) / T_2N(1/k), Golub and Varga.
    k, steps = 0.9, 5
    schedule = chebyshev_schedule(steps, k, first=1.0)
    for kappa in torch.linspace(-k, k, 31, dtype=torch.float64).tolist():
        expected = math.cos(2 * steps * math.acos(kappa / k)) / math.cosh(2 * steps * math.acosh(1 / k))
        assert run(schedule, kappa) == pytest.approx(expected, abs=2.0**-45)


@pytest.mark.parametrize(("k", "steps", "gain"), [(0.9, 4, 5), (0.9, 8, 10), (0.99, 8, 10), (0.99, 16, 20)])
def test_chebyshev_schedule_gains_where_steps_are_few(k, steps, gain):
    kappa = ellipse_points(k, 0.0, 401)
    best = schedule_errors(chebyshev_schedule(steps, k), kappa)
    constant = schedule_errors(constant_schedule(optimal_beta(k, "real"), steps), kappa)
    assert best.solution * gain <= constant.solution
    # Nor does it forget more than a bit beyond the constant one.
    assert best.rounding <= 2 * constant.rounding


def test_chebyshev_schedule_gains_nothing_in_the_end():
    # Both errors fall by the same factor per step at last: the ratio of their rates tends to 1.
    k = 0.9
    kappa = ellipse_points(k, 0.0, 401)
    pairs = [
        [chebyshev_schedule(n, k, first=1.0) for n in (40, 41)],
        [constant_schedule(optimal_beta(k, "real"), n) for n in (40, 41)],
    ]
    rates = [schedule_errors(b, kappa).solution / schedule_errors(a, kappa).solution for a, b in pairs]
    assert rates[0] == pytest.approx(optimal_rate(k, "real"), rel=1e-9)
    # The double eigenvalue of the constant beta: N r^N, whose last ratio is r (1 + 1/N).
    assert rates[1] == pytest.approx(optimal_rate(k, "real") * (1 + 1 / 40), rel=0.01)


def test_chebyshev_schedule_is_near_the_constant_one_for_a_nearly_round_spectrum():
    kappa = ellipse_points(0.6, 0.5, 401)
    best = schedule_errors(chebyshev_schedule(8, 0.6, 0.5), kappa)
    constant = schedule_errors(constant_schedule(optimal_beta(spectrum="ellipse", real=0.6, imaginary=0.5), 8), kappa)
    assert 0.8 * constant.solution <= best.solution <= constant.solution


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.0), (0.0, 2.0), (0.9, 0.3)])
def test_chebyshev_schedule_tends_to_the_optimal_beta_and_never_meets_one(p, q):
    schedule = chebyshev_schedule(60, p, q)
    assert schedule[-1][1] == pytest.approx(optimal_beta(spectrum="ellipse", real=p, imaginary=q), rel=1e-12)
    assert all(0 < beta < 2 and beta != 1 for pair in schedule for beta in pair)


def test_first_half_step_just_off_one_costs_little():
    kappa = ellipse_points(0.9, 0.0, 401)
    ideal, usable = (schedule_errors(chebyshev_schedule(8, 0.9, first=b), kappa).solution for b in (1.0, 1 - 2.0**-6))
    assert usable <= 1.1 * ideal


def test_scheduled_steps_are_undone_by_their_recorded_betas():
    weight = torch.diag(torch.linspace(-0.9, 0.9, 9, dtype=torch.float64))
    z0 = torch.linspace(-1, 1, 9, dtype=torch.float64)
    schedule = chebyshev_schedule(8, 0.9)
    y = z = z0
    for first, second in schedule:
        y = (1 - first) * y + first * torch.tanh(z @ weight + 1)
        z = (1 - second) * z + second * torch.tanh(y @ weight + 1)
    for first, second in reversed(schedule):
        z = (z - second * torch.tanh(y @ weight + 1)) / (1 - second)
        y = (y - first * torch.tanh(z @ weight + 1)) / (1 - first)
    growth = schedule_errors(schedule, ellipse_points(0.9, 0.0, 65)).rounding
    amplification = math.prod(1 / abs((1 - b) * (1 - c)) for b, c in schedule)
    # z0 comes back to what the determinants allow; y0 to 2^6 less, for which f has no use.
    assert growth < 1e4
    assert float((z - z0).norm() / z0.norm()) <= 2.0**-53 * amplification * 2.0**-6


def test_schedule_errors_of_a_constant_schedule_are_error_growth():
    kappa = ellipse_points(0.8, 0.3, 33)
    growth = error_growth(0.7, kappa, 6)
    errors = schedule_errors(constant_schedule(0.7, 6), kappa)
    assert errors.solution == pytest.approx(float(growth.solution[-1]), rel=1e-12)
    assert errors.rounding == pytest.approx(float(growth.rounding[-1]), rel=1e-9)


@pytest.mark.parametrize("k", [0.6, 0.9, 0.99])
def test_adapted_beta_finds_youngs_optimum_from_one_ratio(k):
    beta = 0.8
    rate = ((beta * k + math.sqrt((beta * k) ** 2 + 4 * (1 - beta))) / 2) ** 2
    assert adapted_beta(beta, rate) == pytest.approx(optimal_beta(k, "real"), rel=1e-9)


def test_adapted_beta_stays_at_the_optimum_and_retreats_from_divergence():
    best = optimal_beta(0.9, "real")
    assert adapted_beta(best, best - 1) == best
    assert adapted_beta(1.6, 1.2) == 0.5
    assert adapted_beta(0.3, 1.2) == 0.3
    assert adapted_beta(0.8, 0.9999999) == 1.95


def test_adaptive_run_needs_fewer_steps_than_the_customary_betas():
    eigenvalues = torch.linspace(0, 0.97, 40, dtype=torch.float64)

    def steps(adapt: bool, beta: float) -> int:
        y = z = torch.zeros(40, dtype=torch.float64)
        last = math.inf
        for n in range(1000):
            residual = float((eigenvalues * z + 1 - z).norm())
            if residual <= 1e-8:
                return n
            if adapt and n >= 3:
                beta = adapted_beta(beta, residual / last)
            last = residual
            y = (1 - beta) * y + beta * (eigenvalues * z + 1)
            z = (1 - beta) * z + beta * (eigenvalues * y + 1)
        raise AssertionError("no convergence in 1000 steps")

    adaptive = steps(True, 0.8)
    assert 3 * adaptive <= steps(False, 0.8) <= steps(False, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chebyshev_schedule(4, 0.5, 0.5), "every Chebyshev beta is 1"),
        (lambda: chebyshev_schedule(4, 1.0), "less than 1"),
        (lambda: chebyshev_schedule(-1, 0.5), "num_steps is .*; it must be at least 0"),
        (lambda: chebyshev_schedule(4, 0.5, first=2.0), "between 0 and 2"),
        (lambda: constant_schedule(1.0, 4), "different from 1"),
        (lambda: adapted_beta(1.0, 0.5), "different from 1"),
        (lambda: adapted_beta(0.5, math.nan), "finite and not negative"),
        (lambda: schedule_errors(((0.5, 0.5), (1.0, 0.5)), 0.5), "exactly 1"),
        (lambda: schedule_errors(((0.5, 0.5),), torch.zeros(0)), "empty"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def non_contraction():
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))[0]
    return basis @ torch.diag(torch.linspace(-6, 0.8, 10, dtype=torch.float64)) @ basis.T


def test_averaged_map_converges_where_no_beta_does():
    weight = non_contraction()
    inputs = torch.ones(10, dtype=torch.float64)

    def function(z, args):
        return z @ args + inputs

    best = optimal_averaging(-6.0, 0.8)
    exact = torch.linalg.solve(torch.eye(10, dtype=torch.float64) - weight, inputs)
    zero = torch.zeros(10, dtype=torch.float64)
    plain = solve(
        function, zero, weight, solver=Reversible(0.05), adjoint=ReversibleAdjoint(), max_steps=400, throw=False
    )
    assert not float((plain.z1 - exact).norm()) < 1
    averaged = solve(
        Averaged(function, best.alpha),
        zero,
        weight,
        solver=Reversible(best.beta),
        adjoint=ReversibleAdjoint(),
        max_steps=60,
    )
    assert float((averaged.z1 - exact).norm() / exact.norm()) <= 100 * best.rate**60 * 60


def test_averaged_map_has_the_implicit_gradient_of_the_map():
    weight = (0.1 * non_contraction()).requires_grad_()
    module = torch.nn.Linear(10, 10, dtype=torch.float64)
    gradients = []
    for alpha in (1.0, 0.4):
        module.weight = torch.nn.Parameter(weight.detach().clone())
        solution = solve(
            Averaged(lambda z, args: torch.tanh(module(z)), alpha),
            torch.zeros(10, dtype=torch.float64),
            solver=Relaxed(1.0),
            adjoint=ImplicitAdjoint(rtol=1e-13, atol=1e-13, max_steps=2000),
            max_steps=2000,
            rtol=1e-14,
            atol=1e-14,
        )
        gradients.append(torch.autograd.grad(solution.z1.sum(), module.weight)[0])
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_averaged_module_keeps_its_parameters():
    module = torch.nn.Linear(3, 3)
    assert {id(p) for p in Averaged(lambda z, args: module(z), 0.5).parameters()} == set()
    assert len(list(Averaged(module, 0.5).parameters())) == 2


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_impossible_averaging_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha is .*; it must be positive"):
        Averaged(lambda z, args: z, alpha)
