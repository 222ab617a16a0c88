"""The theorems on convergence and forgetting, in exact rational arithmetic: no comparison here has a tolerance."""

from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st, target

import rational_iteration as exact
from rational_maps import (
    Contraction,
    LinearMap,
    betas,
    constants,
    contractions,
    converging_pairs,
    diverging_pairs,
    linear_maps,
    vectors,
)


EXACT = settings(deadline=None, derandomize=True, max_examples=60)
NORMS = ("2", "inf")


def rationals(numbers):
    return [exact.rational(number) for number in numbers]


def difference(left, right):
    return [a - b for a, b in zip(left, right, strict=True)]


def square(vector):
    return sum((x * x for x in vector), exact.rational(Fraction(0)))


def sum_dominates(total, parts):
    """Whether sqrt(total) <= sum of weight * sqrt(part), for two parts of (weight >= 0, part), decided exactly."""
    (w1, s1), (w2, s2) = parts
    rest = total - w1 * w1 * s1 - w2 * w2 * s2
    return rest <= 0 or rest * rest <= 4 * w1 * w1 * w2 * w2 * s1 * s2


def largest(vector):
    return float(max(abs(x) for x in vector))


def bounded(norm, new, old, coupled, a, c):
    """Whether |new| <= |a| |old| + c |coupled| in the norm, decided exactly."""
    if norm == "inf":
        n, o, p = (max(abs(x) for x in vector) for vector in (new, old, coupled))
        return n <= a * o + c * p
    return sum_dominates(square(new), [(a, square(old)), (c, square(coupled))])


@given(first=linear_maps(), beta=betas(), data=st.data())
@EXACT
def test_t1_determinant_of_a_step_does_not_depend_on_f(first: LinearMap, beta, data):
    dimension = first.dimension
    second = data.draw(st.lists(vectors(dimension), min_size=dimension, max_size=dimension), label="Jacobian at y'")
    b = exact.rational(beta)
    jacobian = exact.step_jacobian(exact.matrix(first.matrix), exact.matrix(second), b)
    assert jacobian.det() == (1 - b) ** (2 * dimension)


@given(linear=linear_maps(), beta=betas())
@EXACT
def test_t2_step_has_the_spectrum_of_over_relaxation(linear: LinearMap, beta):
    # Two polynomials of degree 2d that agree at 2d + 1 points are equal.
    b, k = exact.rational(beta), exact.matrix(linear.matrix)
    a, unit = 1 - b, exact.identity(linear.dimension)
    step = exact.step_jacobian(k, k, b)
    for point in range(2 * linear.dimension + 1):
        expected = ((point - a) ** 2 * unit - point * b * b * (k * k)).det()
        assert exact.characteristic(step, point) == expected


@given(linear=linear_maps(), beta=betas())
@EXACT
def test_t2_stated_eigenvalues_of_the_strategy_solve_the_relation(linear: LinearMap, beta):
    # (point - a)^2 - beta^2 kappa^2 point, multiplied over the stated eigenvalues, in exact complex arithmetic.
    b = exact.rational(beta)
    step = exact.step_jacobian(exact.matrix(linear.matrix), exact.matrix(linear.matrix), b)
    for point in range(2 * linear.dimension + 1):
        real, imaginary = exact.rational(Fraction(1)), exact.rational(Fraction(0))
        for kappa in linear.eigenvalues:
            x, y = rationals(kappa)
            u, v = (point - (1 - b)) ** 2 - b * b * point * (x * x - y * y), -2 * b * b * point * x * y
            real, imaginary = real * u - imaginary * v, real * v + imaginary * u
        assert imaginary == 0
        assert exact.characteristic(step, point) == real


def check_majorant(contraction: Contraction, beta, start_y, start_z, num_steps):
    b, k = exact.rational(beta), exact.rational(contraction.k)
    a, c = abs(1 - b), b * k
    star = rationals(contraction.z_star)
    y, z = rationals(start_y), rationals(start_z)
    assert contraction(star, exact.rational) == star
    for _ in range(num_steps):
        error_y, error_z = difference(y, star), difference(z, star)
        y, z = exact.step(lambda v: contraction(v, exact.rational), y, z, b)
        assert bounded(contraction.norm, difference(y, star), error_y, error_z, a, c)
        assert bounded(contraction.norm, difference(z, star), error_z, difference(y, star), a, c)
    return largest(difference(z, star))


@given(contraction=st.sampled_from(NORMS).flatmap(contractions), beta=betas(), steps=st.integers(1, 6), data=st.data())
@EXACT
def test_t3_majorant_bounds_every_step_of_every_contraction(contraction: Contraction, beta, steps, data):
    y0, z0 = (data.draw(vectors(contraction.dimension), label=name) for name in ("y0", "z0"))
    # The search climbs towards errors that do not shrink, where a bound that is too small would show.
    target(check_majorant(contraction, beta, y0, z0, steps), label="error after the last step")


@pytest.mark.nightly
@given(contraction=st.sampled_from(NORMS).flatmap(contractions), beta=betas(), steps=st.integers(1, 8), data=st.data())
@settings(deadline=None, max_examples=2000, print_blob=True)
def test_t3_majorant_survives_a_random_search(contraction: Contraction, beta, steps, data):
    y0, z0 = (data.draw(vectors(contraction.dimension), label=name) for name in ("y0", "z0"))
    target(check_majorant(contraction, beta, y0, z0, steps), label="error after the last step")


@given(contraction=st.sampled_from(NORMS).flatmap(contractions), beta=betas(), data=st.data())
@EXACT
def test_t3_majorant_bounds_the_distance_of_any_two_runs(contraction: Contraction, beta, data):
    b, k = exact.rational(beta), exact.rational(contraction.k)
    y1, z1, y2, z2 = (rationals(data.draw(vectors(contraction.dimension))) for _ in range(4))
    for _ in range(3):
        before_y, before_z = difference(y1, y2), difference(z1, z2)
        y1, z1 = exact.step(lambda v: contraction(v, exact.rational), y1, z1, b)
        y2, z2 = exact.step(lambda v: contraction(v, exact.rational), y2, z2, b)
        after_y, after_z = difference(y1, y2), difference(z1, z2)
        assert bounded(contraction.norm, after_y, before_y, before_z, abs(1 - b), b * k)
        assert bounded(contraction.norm, after_z, before_z, after_y, abs(1 - b), b * k)


def witness_run(beta, k, num_steps, error_y=1, error_z=1):
    """Run the witness of the sharp bound and yield (|y|, |z|) of its errors, with the majorant's values, exactly.

    f(z) = k z for beta < 1; for beta > 1 k times a quarter turn, from errors that the turn aligns.
    """
    b, k = exact.rational(beta), exact.rational(k)
    a, c = abs(1 - b), b * k
    turned = beta > 1
    unit = exact.rational(Fraction(1))
    y, z = ([error_y * unit, 0 * unit], [0 * unit, error_z * unit]) if turned else ([error_y * unit], [error_z * unit])

    def f(v):
        return [k * v[1], -k * v[0]] if turned else [k * v[0]]

    if turned:
        y = [-y[0], y[1]]
    bound_y, bound_z = error_y * unit, error_z * unit
    for _ in range(num_steps):
        y, z = exact.step(f, y, z, b)
        bound_y = a * bound_y + c * bound_z
        bound_z = a * bound_z + c * bound_y
        yield (square(y), bound_y**2), (square(z), bound_z**2)


@given(beta=betas(), k=constants())
@EXACT
def test_t3_bound_is_attained_at_every_step_by_the_witness(beta, k):
    for (y, bound_y), (z, bound_z) in witness_run(beta, k, 8):
        assert y == bound_y
        assert z == bound_z


@given(pair=diverging_pairs())
@EXACT
def test_t3_witness_does_not_converge_outside_the_region(pair):
    # At the edge the majorant has the eigenvalue 1 with eigenvector (1, 1); beyond it both components only grow.
    beta, k = pair
    for (y, _), (z, _) in witness_run(beta, k, 12):
        assert y >= 1
        assert z >= 1


@given(pair=converging_pairs())
@EXACT
def test_t3_both_errors_shrink_at_every_step_inside_the_region(pair):
    # From equal errors the larger one is multiplied by at most |a| + beta k < 1.
    beta, k = pair
    rate = abs(1 - beta) + beta * k
    assert rate < 1
    bound = exact.rational(Fraction(1))
    for (y, _), (z, _) in witness_run(beta, k, 8):
        bound *= exact.rational(rate) ** 2
        assert y <= bound
        assert z <= bound


@given(linear=linear_maps(), beta=betas(), data=st.data())
@EXACT
def test_t3_adjoint_step_is_the_transposed_step(linear: LinearMap, beta, data):
    # So it has the same spectrum and the transposed majorant, also between states with different Jacobians.
    dimension = linear.dimension
    second = exact.matrix(data.draw(st.lists(vectors(dimension), min_size=dimension, max_size=dimension)))
    first, b = exact.matrix(linear.matrix), exact.rational(beta)
    assert exact.adjoint_jacobian(first, second, b) == exact.step_jacobian(first, second, b).transpose()


@given(k=constants(), beta=betas(high=Fraction(1)), data=st.data())
@EXACT
def test_t3_adjoint_errors_obey_the_transposed_majorant(k, beta, data):
    # K = k times a rotation by a Pythagorean angle has the constant k, and so has its transpose.
    b, scale = exact.rational(beta), exact.rational(k)
    cosine, sine = exact.rational(Fraction(3, 5)), exact.rational(Fraction(4, 5))

    def transposed(v):
        return [scale * (cosine * v[0] + sine * v[1]), scale * (cosine * v[1] - sine * v[0])]

    p_y, p_z = (rationals(data.draw(vectors(2))) for _ in range(2))
    a, c = abs(1 - b), b * scale
    for _ in range(6):
        q = [p + b * v for p, v in zip(p_y, transposed(p_z), strict=True)]
        assert sum_dominates(square(q), [(1, square(p_y)), (c, square(p_z))])
        after_z = [(1 - b) * p + b * v for p, v in zip(p_z, transposed(q), strict=True)]
        assert sum_dominates(square(after_z), [(a, square(p_z)), (c, square(q))])
        p_y, p_z = [(1 - b) * x for x in q], after_z


@given(linear=linear_maps(), beta=betas())
@EXACT
def test_t6_inverse_has_the_spectrum_of_the_step_over_a_squared(linear: LinearMap, beta):
    b, k = exact.rational(beta), exact.matrix(linear.matrix)
    step = exact.step_jacobian(k, k, b)
    inverse, scaled = step.inv(), step / (1 - b) ** 2
    for point in range(2 * linear.dimension + 1):
        assert exact.characteristic(inverse, point) == exact.characteristic(scaled, point)


@given(contraction=contractions(), beta=betas(), data=st.data())
@EXACT
def test_t6_inverse_returns_the_very_states(contraction: Contraction, beta, data):
    b = exact.rational(beta)
    start = tuple(rationals(data.draw(vectors(contraction.dimension))) for _ in range(2))
    y, z = start
    for _ in range(4):
        y, z = exact.step(lambda v: contraction(v, exact.rational), y, z, b)
    for _ in range(4):
        y, z = exact.undo_step(lambda v: contraction(v, exact.rational), y, z, b)
    assert (y, z) == start


@given(contraction=contractions("inf"), beta=betas(), data=st.data())
@EXACT
def test_t7_reverse_majorant_bounds_rounding_with_the_coupling_within_a_step(contraction: Contraction, beta, data):
    # Both passes are disturbed; E <= Rv E' + [[1, A c], [0, 1]] (A l + r), the coupling included.
    b, k = exact.rational(beta), exact.rational(contraction.k)
    a, dimension = 1 - b, contraction.dimension
    amplification, c = 1 / abs(a), b * k

    def f(v):
        return contraction(v, exact.rational)

    def disturbance():
        return [x / 64 for x in rationals(data.draw(vectors(dimension)))]

    def add(left, right):
        return [p + q for p, q in zip(left, right, strict=True)]

    def size(v):
        return max(abs(x) for x in v)

    trajectory = [tuple(rationals(data.draw(vectors(dimension))) for _ in range(2))]
    local = []
    for _ in range(3):
        y, z = trajectory[-1]
        l_y, l_z = disturbance(), disturbance()
        y = add(exact.half_step(y, f(z), b), l_y)
        z = add(exact.half_step(z, f(y), b), l_z)
        trajectory.append((y, z))
        local.append((size(l_y), size(l_z)))
    y, z = trajectory[-1]
    bound_y = bound_z = exact.rational(Fraction(0))
    for (true_y, true_z), (l_y, l_z) in zip(reversed(trajectory[:-1]), reversed(local), strict=True):
        r_y, r_z = disturbance(), disturbance()
        z = add(exact.undo_half_step(z, f(y), b), r_z)
        y = add(exact.undo_half_step(y, f(z), b), r_y)
        source_y, source_z = amplification * l_y + size(r_y), amplification * l_z + size(r_z)
        bound_y, bound_z = (
            amplification * (1 + amplification * c * c) * bound_y
            + amplification**2 * c * bound_z
            + source_y
            + amplification * c * source_z,
            amplification * c * bound_y + amplification * bound_z + source_z,
        )
        assert size(difference(y, true_y)) <= bound_y
        assert size(difference(z, true_z)) <= bound_z


def test_t7_without_the_coupling_is_no_bound():
    # One reversed step whose only error is r in the rebuilt z: y is then wrong by A c r, which the sum
    # over Rv^(j-n-1) (A l_j + r_j) alone puts at zero.
    b, k, r = (exact.rational(Fraction(n, 10)) for n in (5, 9, 1))
    y, z = exact.step(lambda v: [k * v[0]], [b], [b], b)
    rebuilt_z = [exact.undo_half_step(z, [k * y[0]], b)[0] + r]
    rebuilt_y = exact.undo_half_step(y, [k * rebuilt_z[0]], b)
    assert abs(rebuilt_y[0] - b) == b * k / (1 - b) * r > 0
