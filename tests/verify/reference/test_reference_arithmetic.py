"""The arithmetics: precision that stays inside, exact conversion, one rounding model for every format."""

import math

import mpmath
import numpy as np
import pytest

from verify.reference.arithmetic import Arithmetic, Multiprecision, Perturbed
from verify.reference.arithmetic.extended import Extended


FUNCTIONS = ["exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "erf"]
ARITHMETICS = {
    "multiprecision": lambda: Multiprecision(30),
    "extended": Extended,
    "relative": lambda: Perturbed(2.0**-60, seed=1),
    "grid": lambda: Perturbed(2.0**-60, seed=1, rounding="grid"),
    "grid-on-mpmath": lambda: Perturbed(2.0**-60, seed=1, rounding="grid", inner=Multiprecision(30)),
    "relative-on-mpmath": lambda: Perturbed(2.0**-60, seed=1, inner=Multiprecision(30)),
}


@pytest.fixture(params=ARITHMETICS, name="arithmetic")
def _arithmetic(request):
    return ARITHMETICS[request.param]()


def test_protocol_is_implemented(arithmetic):
    assert isinstance(arithmetic, Arithmetic)
    assert arithmetic.name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_agrees_with_mpmath_at_float64(arithmetic, name):
    x = np.array([[0.125, 0.5], [0.75, 2.5]])
    measured = arithmetic.to_float64(getattr(arithmetic, name)(arithmetic.convert(x)))
    with mpmath.workdps(40):
        expected = np.array([[float(getattr(mpmath, "ln" if name == "log" else name)(v)) for v in row] for row in x])
    assert np.all(np.abs(measured - expected) <= 2.0**-52 * np.abs(expected))


def test_elementary_operations_agree_with_float64(arithmetic):
    a, b = np.array([[1.5, -2.0], [0.25, 4.0]]), np.array([3.0, 0.5])
    x, y = arithmetic.convert(a), arithmetic.convert(b)
    pairs = [
        (arithmetic.add(x, y), a + b),
        (arithmetic.subtract(x, y), a - b),
        (arithmetic.multiply(x, y), a * b),
        (arithmetic.divide(x, y), a / b),
        (arithmetic.negative(x), -a),
        (arithmetic.absolute(x), np.abs(a)),
        (arithmetic.power(arithmetic.absolute(x), 1.5), np.abs(a) ** 1.5),
        (arithmetic.power(x, 3), a**3),
        (arithmetic.matmul(x, y), a @ b),
        (arithmetic.matmul(y, x), b @ a),
        (arithmetic.matmul(x, x), a @ a),
        (arithmetic.matmul(x[None], x), (a @ a)[None]),
        (arithmetic.sum(x, axis=0), a.sum(axis=0)),
        (arithmetic.sum(x, axis=(0, 1), keepdims=True), a.sum(keepdims=True)),
        (arithmetic.sum(x), a.sum()),
        (arithmetic.maximum(x, y), np.maximum(a, b)),
        (arithmetic.minimum(x, y), np.minimum(a, b)),
        (arithmetic.where(arithmetic.less(x, y), x, x * 0), np.where(a < b, a, 0)),
    ]
    for measured, expected in pairs:
        assert measured.shape == expected.shape
        assert np.all(np.abs(arithmetic.to_float64(measured) - expected) <= 2.0**-52 * np.abs(expected))
    assert np.array_equal(arithmetic.less(x, y), a < b)
    assert np.array_equal(arithmetic.less_equal(x, x), np.ones((2, 2), dtype=bool))


def test_empty_sum_is_zero(arithmetic):
    empty = arithmetic.convert(np.zeros((0, 3)))
    assert np.array_equal(arithmetic.to_float64(arithmetic.sum(empty, axis=0)), np.zeros(3))


def test_working_precision_does_not_leak():
    before = mpmath.mp.prec
    low, high = Multiprecision(20), Multiprecision(80)
    third_low = low.divide(low.convert(1), low.convert(3))
    third_high = high.divide(high.convert(1), high.convert(3))
    third_low_again = low.divide(low.convert(1), low.convert(3))
    assert mpmath.mp.prec == before
    assert third_low == third_low_again
    with mpmath.workdps(100):
        assert abs(mpmath.mpf(third_high.item()._mpf_) * 3 - 1) < mpmath.mpf(10) ** -79


def test_conversion_is_exact_below_the_precision_of_the_value():
    value = 1 / 3
    coarse = Multiprecision(3)
    assert float(coarse.convert(value).item()) == value
    assert float(coarse.add(coarse.convert(value), coarse.convert(0.0)).item()) != value


def test_longdouble_conversion_is_exact():
    value = np.longdouble(1) / np.longdouble(3)
    back = Multiprecision(40).convert(np.array([value]))[0]
    high = float(back)
    assert np.longdouble(high) + np.longdouble(float(back - high)) == value


def test_inner_product_is_rounded_once():
    arithmetic = Multiprecision(15)
    big = arithmetic.convert(np.array([1e30, 1.0, -1e30]))
    assert arithmetic.matmul(big, arithmetic.convert(np.ones(3))).item() == 1


@pytest.mark.parametrize("rounding", ["relative", "grid"])
@pytest.mark.parametrize("unit_roundoff", [2.0**-53, 2.0**-24, 2.0**-11, 2.0**-8])
def test_disturbance_is_uniform_of_the_size_of_the_roundoff(rounding, unit_roundoff):
    arithmetic = Perturbed(unit_roundoff, seed=3, rounding=rounding)
    leading, trailing = np.random.default_rng(0).uniform(1, 2, 4000), np.random.default_rng(1).uniform(0, 1, 4000)
    # The sum has all the bits of the carrier, more than any of the formats holds.
    x = arithmetic.inner.add(arithmetic.convert(leading), arithmetic.convert(trailing * 2.0**-52))
    relative = np.asarray((arithmetic.rounded(x) - x) / x / unit_roundoff, dtype=np.float64)
    # Uniform on (-1, 1) has variance 1/3. On the grid the rounding has 1/(3 x^2), 1/6 on average over a binade, and the
    # disturbance 1/12: together 1/4.
    assert abs(np.sqrt(np.mean(relative**2)) - (1 / math.sqrt(3) if rounding == "relative" else 0.5)) < 0.02
    assert abs(np.mean(relative)) < 0.04
    assert np.max(np.abs(relative)) <= (1 if rounding == "relative" else 1.5) + 2.0**-10


def test_grid_leaves_representable_numbers_alone():
    arithmetic = Perturbed(2.0**-8, seed=5, rounding="grid")
    x = np.array([0.0, 1.0, -1.5, 255 / 256, 2.0**-30, -(2.0**40), 3.0])
    assert np.array_equal(arithmetic.to_float64(arithmetic.rounded(arithmetic.convert(x))), x)


@pytest.mark.parametrize("inner", [None, Multiprecision(30)])
def test_grid_repeats_itself_after_restart(inner):
    arithmetic = Perturbed(2.0**-8, seed=5, rounding="grid", inner=inner)
    x = arithmetic.convert(np.linspace(0.1, 0.9, 50))
    arithmetic.restart(4, 1)
    first = arithmetic.to_float64(arithmetic.exp(x))
    arithmetic.restart(4, 2)
    other = arithmetic.to_float64(arithmetic.exp(x))
    arithmetic.restart(4, 1)
    again = arithmetic.to_float64(arithmetic.exp(x))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(first * 256 % 1, np.zeros(50))


def test_wide_accumulator_rounds_once():
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0.5, 1, (400, 64)), rng.uniform(0.5, 1, (64, 1))

    def error(accumulate):
        arithmetic = Perturbed(2.0**-8, accumulate, seed=7)
        product = arithmetic.to_float64(arithmetic.matmul(arithmetic.convert(a), arithmetic.convert(b)))
        return float(np.sqrt(np.mean(((product - a @ b) / (a @ b)) ** 2)))

    assert abs(error(2.0**-24) * 256 - 1 / math.sqrt(3)) < 0.06
    assert error(None) > 2 * error(2.0**-24)


def test_accumulator_shares_the_stream():
    arithmetic = Perturbed(2.0**-8, 2.0**-24, seed=7)
    wide = arithmetic.accumulator()
    assert wide.unit_roundoff == 2.0**-24
    x = arithmetic.convert(np.full(20, 0.3))
    assert not np.array_equal(wide.rounded(x), wide.rounded(x))
    assert np.max(np.abs(np.asarray(wide.rounded(x) / x - 1, dtype=np.float64))) <= 2.0**-24


@pytest.mark.parametrize("digits", [0, -3])
def test_digits_below_one_are_refused(digits):
    with pytest.raises(ValueError, match="at least 1"):
        Multiprecision(digits)


@pytest.mark.parametrize("digits", [50.0, "50", True])
def test_digits_that_are_no_int_are_refused(digits):
    with pytest.raises(TypeError, match="must be an int"):
        Multiprecision(digits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit_roundoff": 0.0}, "must lie in"),
        ({"unit_roundoff": math.nan}, "must lie in"),
        ({"unit_roundoff": 2.0**-24, "accumulate_roundoff": 2.0**-8}, "at most unit_roundoff"),
        ({"unit_roundoff": 2.0**-24, "rounding": "up"}, "'relative' or 'grid'"),
        ({"unit_roundoff": 1e-7, "rounding": "grid"}, "power of two"),
    ],
)
def test_impossible_perturbation_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Perturbed(**arguments)


LEAVING = [("log", 0.0), ("log", -1.0), ("sqrt", -1.0), ("log1p", -1.5), ("log", math.nan)]


@pytest.mark.parametrize(("name", "value"), LEAVING)
def test_leaving_the_domain_raises_in_multiprecision(name, value):
    arithmetic = Multiprecision(20)
    with pytest.raises(ValueError, match="left its domain"):
        getattr(arithmetic, name)(arithmetic.convert(np.array([1.0, value])))


@pytest.mark.parametrize(("name", "value"), LEAVING)
def test_leaving_the_domain_gives_nan_in_a_carrier(name, value):
    arithmetic = Multiprecision(20, strict=False)
    result = arithmetic.to_float64(getattr(arithmetic, name)(arithmetic.convert(np.array([1.0, value]))))
    assert np.isfinite(result[0])
    assert np.isnan(result[1])


def test_division_by_zero_raises_or_gives_nan():
    strict, carrier = Multiprecision(20), Multiprecision(20, strict=False)
    with pytest.raises(ValueError, match="division by zero"):
        strict.divide(strict.convert(1), strict.convert(0))
    assert np.isnan(carrier.to_float64(carrier.divide(carrier.convert(np.ones(2)), carrier.convert(np.array([0, 1])))))[
        0
    ]
