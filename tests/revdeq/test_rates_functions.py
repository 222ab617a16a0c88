"""The rate functions against independent computations, their limits, and their refusals."""

import math

import mpmath
import pytest
import torch

from revdeq.rates import (
    averaged_eigenvalue,
    averaging_limit,
    balanced_beta,
    ellipse_points,
    ellipse_rate,
    error_floor,
    error_growth,
    forward_backward_rate,
    forward_majorant,
    gradient_growth,
    in_convergence_region,
    monotone_constants,
    optimal_averaging,
    optimal_beta,
    optimal_rate,
    paper_bound,
    peaceman_rachford_rate,
    picard_rate,
    region_semi_axes,
    relaxed_rate,
    reverse_majorant,
    reverse_rate,
    semi_axes,
    spectral_rate,
    step_eigenvalues,
    step_matrix,
    worst_rate,
)


BETAS = torch.tensor([0.05, 0.25, 0.5, 0.8, 0.95, 1.05, 1.2, 1.5, 1.9], dtype=torch.float64)
CONSTANTS = torch.linspace(0, 1.5, 16, dtype=torch.float64)
EIGHT_ULPS = 8 * 2.0**-52


def spectral_radius(matrix):
    return torch.linalg.eigvals(matrix).abs().amax(-1)


def plane():
    real, imaginary = torch.meshgrid(torch.linspace(-1.4, 1.4, 29), torch.linspace(-3, 3, 31), indexing="ij")
    return torch.complex(real.double(), imaginary.double()).reshape(-1)


def test_t1_step_matrix_has_determinant_a_squared():
    for beta in BETAS.tolist():
        determinant = torch.linalg.det(step_matrix(plane(), beta))
        # The two products that cancel are of size beta^2 |kappa|^2.
        scale = (1 + (beta * plane().abs()) ** 2) ** 2
        assert bool(((determinant - (1 - beta) ** 2).abs() <= EIGHT_ULPS * scale).all())


def test_t2_rate_equals_the_spectral_radius_in_fifty_digits():
    context = mpmath.MPContext()
    context.dps = 50
    for beta in (0.25, 0.75, 0.9375, 1.25, 1.875):
        for kappa in (0.9 + 0j, -0.3 + 0j, 0.5 + 1j, 2j, 0j, -0.75 + 0.25j):
            a, w = 1 - context.mpf(beta), context.mpf(beta) * context.mpc(kappa)
            matrix = context.matrix([[a, w], [a * w, a + w * w]])
            expected = max(abs(value) for value in context.eig(matrix, left=False, right=False))
            assert abs(spectral_rate(kappa, beta) / float(expected) - 1) <= EIGHT_ULPS


def test_t2_eigenvalues_have_the_product_a_squared_and_solve_the_relation():
    kappa = plane()
    for beta in BETAS.tolist():
        a = 1 - beta
        larger, smaller = step_eigenvalues(kappa, beta)
        assert bool((larger.abs() >= smaller.abs() * (1 - EIGHT_ULPS)).all())
        assert bool(((larger * smaller - a * a).abs() <= EIGHT_ULPS * a * a).all())
        for value in (larger, smaller):
            left, right = (value - a) ** 2, (beta * kappa) ** 2 * value
            scale = (value.abs() + abs(a)) ** 2 + right.abs()
            assert bool(((left - right).abs() <= EIGHT_ULPS * scale).all())


def test_t2_rate_is_never_below_a():
    # Kahan's bound: the product of the two eigenvalues is a^2.
    for beta in BETAS.tolist():
        assert bool((spectral_rate(plane(), beta) >= abs(1 - beta) * (1 - EIGHT_ULPS)).all())


def test_t3_worst_rate_is_the_majorants_spectral_radius():
    for beta in BETAS.tolist():
        radius = spectral_radius(forward_majorant(beta, CONSTANTS))
        # At k = 0 the eigenvalue is double and splits by the square root of the rounding.
        slack = torch.where(CONSTANTS == 0, 2.0**-24, 2.0**-44)
        assert bool(((worst_rate(beta, CONSTANTS) / radius - 1).abs() <= slack).all())


def test_t3_worst_rate_is_the_largest_spectral_rate_over_the_disc():
    circle = torch.exp(1j * torch.linspace(0, math.pi, 721, dtype=torch.float64))
    for beta in BETAS.tolist():
        for k in (0.1, 0.5, 0.9, 1.3):
            largest = float(spectral_rate(k * circle, beta).max())
            assert abs(worst_rate(beta, k) / largest - 1) <= 1e-9
            assert abs(ellipse_rate(beta, k, k) / largest - 1) <= 1e-9


def test_t3_worst_rate_is_below_one_exactly_inside_the_region():
    for k in (0.0, 0.3, 0.9, 0.99):
        edge = 2 / (1 + k)
        assert worst_rate(edge * (1 - 1e-9), k) < 1 < worst_rate(edge * (1 + 1e-9), k)
    # Without a contraction no beta is sure to converge: 0 < beta < 2/(1+k) alone is not enough.
    assert bool((worst_rate(BETAS, 1.25) > 1).all())


def test_t3_worst_rate_grows_with_the_contraction_constant():
    for beta in BETAS.tolist():
        rates = worst_rate(beta, torch.linspace(0, 2, 200, dtype=torch.float64))
        assert bool((rates.diff() > 0).all())


def test_t3_worst_rate_has_its_minimum_k_squared_at_beta_one():
    for k in (0.2, 0.5, 0.9):
        assert worst_rate(1.0, k) == pytest.approx(k * k, rel=EIGHT_ULPS)
        left = worst_rate(torch.linspace(0.01, 1, 100, dtype=torch.float64), k)
        right = worst_rate(torch.linspace(1, 1.99, 100, dtype=torch.float64), k)
        assert bool((left.diff() < 0).all())
        assert bool((right.diff() > 0).all())


def test_t3_paper_bound_is_looser_inside_the_region_and_no_bound_outside():
    assert paper_bound(0.5, 0.9) == pytest.approx(0.95, rel=EIGHT_ULPS)
    assert worst_rate(0.5, 0.9) == pytest.approx(0.935168, abs=1e-6)
    for beta in BETAS.tolist():
        inside = paper_bound(beta, CONSTANTS) < 1
        assert bool((worst_rate(beta, CONSTANTS) <= paper_bound(beta, CONSTANTS) * (1 + EIGHT_ULPS))[inside].all())
        outside = paper_bound(beta, CONSTANTS) > 1
        assert bool((worst_rate(beta, CONSTANTS) > paper_bound(beta, CONSTANTS))[outside].all())


def test_t3_square_of_the_paper_bound_is_not_a_bound():
    assert worst_rate(0.5, 0.9) > paper_bound(0.5, 0.9) ** 2


@pytest.mark.parametrize(
    ("p", "q"), [(0.9, 0.0), (0.99, 0.0), (0.9, 0.3), (0.0, 0.5), (0.0, 2.0), (0.5, 1.5), (0.7, 0.7)]
)
def test_t4_optimal_beta_has_the_least_rate_over_the_ellipse(p, q):
    best = optimal_beta(spectrum="ellipse", real=p, imaginary=q)
    rate = optimal_rate(spectrum="ellipse", real=p, imaginary=q)
    # The rate has a square-root cusp at its minimum, and at a double eigenvalue sqrt(u) is what rounding leaves of it.
    assert abs(ellipse_rate(best, p, q) - rate) <= 2.0**-24
    grid = torch.linspace(0.01, 1.99, 397, dtype=torch.float64)
    assert bool((ellipse_rate(grid, p, q) >= rate - 2.0**-40).all())
    boundary = ellipse_points(p, q, 401)
    assert abs(float(spectral_rate(boundary, best).max()) - rate) <= 2.0**-24


def test_t4_real_and_imaginary_optima_are_youngs():
    assert optimal_beta(0.99, "real") == pytest.approx(2 / (1 + math.sqrt(1 - 0.99**2)), rel=EIGHT_ULPS)
    assert optimal_rate(0.99, "real") == pytest.approx(optimal_beta(0.99, "real") - 1, rel=64 * EIGHT_ULPS)
    assert optimal_rate(0.99, "real") == pytest.approx(0.753, abs=5e-4)
    assert optimal_rate(3.0, "imaginary") == pytest.approx(1 - optimal_beta(3.0, "imaginary"), rel=EIGHT_ULPS)
    assert optimal_beta(0.9, "any") == 1.0
    assert optimal_rate(0.9, "any") == pytest.approx(0.81, rel=EIGHT_ULPS)


def test_t4_optimal_rate_is_chebyshevs_per_evaluation():
    # 1/T_n(1/k)^(1/n) tends to k / (1 + sqrt(1-k^2)), the least factor of any polynomial method for [-k, k].
    for k in (0.5, 0.9, 0.99):
        n = 4000
        chebyshev = math.exp(-(n * math.acosh(1 / k) - math.log(2)) / n)
        assert math.sqrt(optimal_rate(k, "real")) == pytest.approx(chebyshev, rel=2 * math.log(2) / n)


def test_t4_general_contraction_diverges_beyond_the_edge():
    k = 0.9
    assert optimal_beta(k, "real") > 2 / (1 + k)
    assert spectral_rate(k * 1j, optimal_beta(k, "real")) > 1


def test_t5_region_is_the_ellipse_of_rates_below_one():
    kappa = plane()
    for beta in BETAS.tolist():
        rates = spectral_rate(kappa, beta)
        decided = (rates - 1).abs() > 1e-9
        assert bool((in_convergence_region(kappa, beta) == (rates < 1))[decided].all())
        real, imaginary = region_semi_axes(beta)
        assert real == pytest.approx(1, rel=EIGHT_ULPS)
        assert imaginary == pytest.approx((2 - beta) / beta, rel=EIGHT_ULPS)


def test_t5_region_tends_to_the_strip_as_beta_vanishes():
    kappa = plane()
    strip = kappa.real.abs() < 1 - 1e-6
    inside = in_convergence_region(kappa, 1e-9)
    assert bool((inside == strip)[(kappa.real.abs() - 1).abs() > 1e-3].all())


def test_t5_level_sets_are_ellipses():
    for beta, rate in ((0.5, 0.7), (0.8, 0.9), (1.3, 0.6)):
        real, imaginary = region_semi_axes(beta, rate)
        # Points well inside the ellipse are faster and outside slower.
        assert bool((spectral_rate(ellipse_points(0.99 * real, 0.99 * imaginary, 91), beta) < rate).all())
        assert bool((spectral_rate(ellipse_points(1.01 * real, 1.01 * imaginary, 91), beta) > rate).all())


def test_t5_no_beta_converges_at_or_below_minus_one_and_averaging_does():
    assert not bool(in_convergence_region(torch.tensor(-1.0), BETAS).any())
    assert not bool(in_convergence_region(torch.tensor(-2.0), BETAS).any())
    for kappa in (-1.0, -3.0, -2 + 1.5j):
        limit = averaging_limit(kappa)
        assert limit == pytest.approx(2 / (1 - complex(kappa).real), rel=EIGHT_ULPS)
        assert in_convergence_region(complex(averaged_eigenvalue(kappa, 0.9 * float(limit))), 1e-3)
        assert not in_convergence_region(complex(averaged_eigenvalue(kappa, 1.1 * float(limit))), 1e-3)


def test_t5_optimal_averaging_beats_every_other_alpha_on_a_real_spectrum():
    low, high = -5.0, 0.8
    best = optimal_averaging(low, high)
    for alpha in torch.linspace(0.02, averaging_limit(low) * 0.999, 60).tolist():
        far = max(abs(1 - alpha + alpha * low), abs(1 - alpha + alpha * high))
        if far < 1:
            assert optimal_rate(far, "real") >= best.rate * (1 - 1e-9)
    kappa = averaged_eigenvalue(torch.linspace(low, high, 99, dtype=torch.float64), best.alpha)
    assert isinstance(kappa, torch.Tensor)
    assert float(spectral_rate(kappa, best.beta).max()) <= best.rate + 2.0**-24


def test_t6_reverse_rate_and_growth_of_the_known_case():
    rate = worst_rate(0.8, 0.9)
    assert reverse_rate(rate, 0.8) == pytest.approx(21.8, abs=0.05)
    assert gradient_growth(rate, 0.8) == pytest.approx((rate / 0.2) ** 2, rel=EIGHT_ULPS)


def test_t6_balance_holds_for_real_spectra_beyond_the_optimum_and_imaginary_ones_below():
    real = torch.linspace(-0.9, 0.9, 51, dtype=torch.float64)
    for beta in (optimal_beta(0.9, "real") + 1e-6, 1.6, 1.9):
        assert float(spectral_rate(real, beta).max()) == pytest.approx(abs(1 - beta), rel=1e-12)
    imaginary = real * 2j
    for beta in (optimal_beta(1.8, "imaginary") - 1e-6, 0.3, 0.1):
        assert float(spectral_rate(imaginary, beta).max()) == pytest.approx(abs(1 - beta), rel=1e-12)


def test_t7_reverse_majorants_radius_is_the_dual_of_the_worst_rate():
    for beta in BETAS.tolist():
        k = CONSTANTS[1:]
        radius = spectral_radius(reverse_majorant(beta, k))
        assert bool(((reverse_rate(worst_rate(beta, k), beta) / radius - 1).abs() <= 2.0**-40).all())


def test_m1_error_growth_follows_the_powers_of_g_away_from_the_optimum():
    growth = error_growth(0.5, 0.9, 60)
    predicted = gradient_growth(worst_rate(0.5, 0.9), 0.5)
    assert float(growth.rounding[60] / growth.rounding[59]) == pytest.approx(predicted, rel=1e-6)


def test_m1_double_eigenvalue_at_the_optimum_costs_a_power_of_the_steps():
    # There G = 1, and yet the error grows like N^3: ||M^j|| is j rho^j, its square summed.
    growth = error_growth(optimal_beta(0.9, "real"), 0.9, 200).rounding
    order = math.log(float(growth[200] / growth[100])) / math.log(2)
    assert order == pytest.approx(3, abs=0.1)


def test_m1_balanced_growth_is_linear_in_the_steps():
    growth = error_growth(1.6, torch.tensor([0.5 + 0j], dtype=torch.complex128), 200).rounding
    order = math.log(float(growth[200] / growth[100])) / math.log(2)
    assert order == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kappa", [0.9, -0.9, 0.5, 0.6 + 0.5j])
def test_m2_truncation_is_that_of_the_scalar_linear_map(kappa):
    # L = z_N for f(z) = kappa z + x: relative difference of dz_N/dkappa from dz*/dkappa, by autograd.
    beta, steps = 0.7, 12
    k = torch.tensor(kappa, dtype=torch.complex128, requires_grad=True)
    y = z = torch.zeros((), dtype=torch.complex128)
    for _ in range(steps):
        y = (1 - beta) * y + beta * (k * z + 1)
        z = (1 - beta) * z + beta * (k * y + 1)
    (gradient,) = torch.autograd.grad(z, k, grad_outputs=torch.ones((), dtype=torch.complex128))
    exact = (1 / (1 - k.detach()) ** 2).conj()
    difference = float(((gradient - exact) / exact).abs())
    assert difference <= float(error_growth(beta, kappa, steps).truncation[-1]) * (1 + 1e-9)
    if isinstance(kappa, float) and kappa > 0:
        assert difference == pytest.approx(float(error_growth(beta, kappa, steps).truncation[-1]), rel=1e-9)


def test_error_growth_agrees_between_one_beta_and_many():
    kappa = ellipse_points(0.8, 0.4, 17)
    together = error_growth(BETAS, kappa, 9)
    for i, beta in enumerate(BETAS.tolist()):
        alone = error_growth(beta, kappa, 9)
        for name in ("solution", "truncation", "rounding", "residual"):
            assert torch.allclose(getattr(together, name)[:, i], getattr(alone, name), rtol=1e-12, atol=0)


def test_balanced_beta_moves_away_from_one_with_more_steps_and_fewer_digits():
    kappa = ellipse_points(*semi_axes(0.9), 33)
    gaps = [abs(1 - balanced_beta(n, kappa)) for n in (4, 8, 16, 32)]
    assert gaps == sorted(gaps)
    wide, narrow = (balanced_beta(8, kappa, state_dtype=dtype) for dtype in (torch.float64, torch.float32))
    assert abs(1 - narrow) > abs(1 - wide)


def test_balanced_beta_tends_to_the_optimum_where_balance_is_free():
    kappa = ellipse_points(*semi_axes(0.9, "real"), 65)
    # With more steps the error is all rounding, and a beta further from 1 forgets still less.
    assert balanced_beta(32, kappa) == pytest.approx(optimal_beta(0.9, "real"), abs=0.02)


def test_error_floor_bounds_a_constant_disturbance():
    beta, k, local = 0.8, 0.9, 1e-6
    bound = error_floor(beta, k, (local, local))
    y = z = 0.0
    for _ in range(2000):
        y = (1 - beta) * y + beta * k * z + local
        z = (1 - beta) * z + beta * k * y + local
    assert (y, z) == pytest.approx(bound, rel=1e-9)


def test_other_methods_have_their_textbook_rates():
    assert picard_rate(-0.5 + 0j) == 0.5
    assert relaxed_rate(-0.5 + 0j, 0.5) == 0.25
    assert forward_backward_rate(0.1, 1.9) == pytest.approx(math.sqrt(1 - (0.1 / 1.9) ** 2), rel=1e-12)
    assert peaceman_rachford_rate(0.1, 1.9) == pytest.approx(math.sqrt(1.8 / 2.0), rel=1e-12)


def test_splitting_rates_bound_the_measured_ones():
    skew = torch.tensor([[0.3, -0.8, 0.1], [0.8, 0.2, 0.4], [-0.1, -0.4, 0.5]], dtype=torch.float64)
    m, bound = monotone_constants(skew)
    operator = torch.eye(3, dtype=torch.float64) - skew
    for step in (0.1, 0.3, m / bound**2, 1 / bound):
        resolvent = torch.linalg.inv(torch.eye(3, dtype=torch.float64) + step * operator)
        reflected = 2 * resolvent - torch.eye(3, dtype=torch.float64)
        assert float(torch.linalg.matrix_norm(reflected, 2)) <= peaceman_rachford_rate(m, bound, step) * (1 + 1e-12)
        if step < 2 * m / bound**2:
            explicit = torch.eye(3, dtype=torch.float64) - step * operator
            assert float(torch.linalg.matrix_norm(explicit, 2)) <= forward_backward_rate(m, bound, step) * (1 + 1e-12)


def test_numbers_give_numbers_and_tensors_give_tensors_of_the_broadcast_shape():
    assert isinstance(worst_rate(0.5, 0.9), float)
    assert isinstance(in_convergence_region(0.5, 0.9), bool)
    assert worst_rate(BETAS[:, None], CONSTANTS[None, :]).shape == (9, 16)
    assert spectral_rate(torch.tensor([0.5, 0.9], dtype=torch.float32), 0.5).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: worst_rate(0.0, 0.5), "beta is .*; it must be positive"),
        (lambda: worst_rate(math.nan, 0.5), "beta is .*; it must be positive"),
        (lambda: worst_rate(0.5, -0.1), "contraction_constant is -0.1; it must be finite and not negative"),
        (lambda: worst_rate(0.5, math.inf), "contraction_constant"),
        (lambda: worst_rate(torch.tensor([0.5, math.nan]), 0.5), "beta"),
        (lambda: spectral_rate(torch.zeros(0), 0.5), "empty spectrum"),
        (lambda: spectral_rate(complex(math.nan, 0), 0.5), "kappa is .*; it must be finite"),
        (lambda: optimal_beta(1.0), "less than 1"),
        (lambda: optimal_beta(math.nan, "real"), "less than 1"),
        (lambda: optimal_beta(1.2, "real"), "less than 1"),
        (lambda: optimal_beta(), "takes a contraction_constant"),
        (lambda: optimal_beta(0.5, "ellipse"), "takes real= and imaginary="),
        (lambda: optimal_beta(spectrum="ellipse", real=1.0, imaginary=0.0), "real is .*; it must be at least 0"),
        (lambda: reverse_rate(0.9, 1.0), "different from 1"),
        (lambda: gradient_growth(0.1, 0.5), "at least"),
        (lambda: region_semi_axes(2.0), "between 0 and 2"),
        (lambda: region_semi_axes(0.5, 0.4), "at least"),
        (lambda: optimal_averaging(-2.0, 1.0), "less than 1"),
        (lambda: averaging_limit(1.0), "less than 1"),
        (lambda: balanced_beta(0, 0.5), "num_steps is .*; it must be at least 1"),
        (lambda: balanced_beta(4, -1.5), "no beta converges"),
        (lambda: error_growth(0.5, 0.5, -1), "num_steps"),
        (lambda: error_floor(1.5, 0.9, (0.0, 0.0)), "not sure to converge"),
        (lambda: forward_backward_rate(0.1, 1.0, 0.3), "between 0 and"),
        (lambda: peaceman_rachford_rate(-0.1, 1.0), "positive"),
        (lambda: monotone_constants(torch.zeros(2, 3)), "square"),
        (lambda: ellipse_points(0.5, 0.5, 1), "at least 2"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("beta", ["0.5", None, True, 0.5 + 0j])
def test_what_is_not_a_real_number_is_refused(beta):
    with pytest.raises(TypeError, match=r"beta is .*; it must be"):
        worst_rate(beta, 0.5)
