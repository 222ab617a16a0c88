"""Elementary functions, element by element: roots, exponentials, logarithms, circles and their inverses."""

from __future__ import annotations

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import hint, number, pi, real
from verify.reference.graph.registry import register


@register("aten.sqrt.default")
def square_root(ops: Arithmetic, x: Array) -> Array:
    """Sqrt x"""
    return ops.sqrt(real(ops, x))


@register("aten.rsqrt.default")
def reciprocal_square_root(ops: Arithmetic, x: Array) -> Array:
    """1 / sqrt x"""
    return ops.divide(number(ops, 1.0), ops.sqrt(real(ops, x)))


@register("aten.exp.default")
def exponential(ops: Arithmetic, x: Array) -> Array:
    """e^x"""
    return ops.exp(real(ops, x))


@register("aten.exp2.default")
def exponential_of_two(ops: Arithmetic, x: Array) -> Array:
    """2^x"""
    return ops.exp(ops.multiply(real(ops, x), ops.log(number(ops, 2.0))))


@register("aten.expm1.default")
def exponential_less_one(ops: Arithmetic, x: Array) -> Array:
    """e^x - 1"""
    return ops.expm1(real(ops, x))


@register("aten.log.default")
def logarithm(ops: Arithmetic, x: Array) -> Array:
    """Log x"""
    return ops.log(real(ops, x))


@register("aten.log1p.default")
def logarithm_of_one_plus(ops: Arithmetic, x: Array) -> Array:
    """log(1 + x)"""
    return ops.log1p(real(ops, x))


@register("aten.log2.default")
def logarithm_to_two(ops: Arithmetic, x: Array) -> Array:
    """Log x / log 2"""
    return ops.divide(ops.log(real(ops, x)), ops.log(number(ops, 2.0)))


@register("aten.log10.default")
def logarithm_to_ten(ops: Arithmetic, x: Array) -> Array:
    """Log x / log 10"""
    return ops.divide(ops.log(real(ops, x)), ops.log(number(ops, 10.0)))


@register("aten.sin.default")
def sine(ops: Arithmetic, x: Array) -> Array:
    """Sin x"""
    return ops.sin(real(ops, x))


@register("aten.cos.default")
def cosine(ops: Arithmetic, x: Array) -> Array:
    """Cos x"""
    return ops.cos(real(ops, x))


@register("aten.tan.default")
def tangent(ops: Arithmetic, x: Array) -> Array:
    """Sin x / cos x"""
    return ops.divide(ops.sin(real(ops, x)), ops.cos(real(ops, x)))


@register("aten.sinh.default")
def hyperbolic_sine(ops: Arithmetic, x: Array) -> Array:
    """(expm1 x - expm1(-x)) / 2"""
    x = real(ops, x)
    return ops.multiply(number(ops, 0.5), ops.subtract(ops.expm1(x), ops.expm1(ops.negative(x))))


@register("aten.cosh.default")
def hyperbolic_cosine(ops: Arithmetic, x: Array) -> Array:
    """(e^x + e^-x) / 2"""
    x = real(ops, x)
    return ops.multiply(number(ops, 0.5), ops.add(ops.exp(x), ops.exp(ops.negative(x))))


@register("aten.tanh.default")
def hyperbolic_tangent(ops: Arithmetic, x: Array) -> Array:
    """Tanh x"""
    return ops.tanh(real(ops, x))


@register("aten.atanh.default")
def inverse_hyperbolic_tangent(ops: Arithmetic, x: Array) -> Array:
    """(log1p x - log1p(-x)) / 2"""
    x = real(ops, x)
    return ops.multiply(number(ops, 0.5), ops.subtract(ops.log1p(x), ops.log1p(ops.negative(x))))


@register("aten.asinh.default")
def inverse_hyperbolic_sine(ops: Arithmetic, x: Array) -> Array:
    """log1p(x + x^2 / (1 + sqrt(1 + x^2))) for x >= 0, odd"""
    x = real(ops, x)
    one, squared = number(ops, 1.0), ops.power(x, 2)
    # Odd, so it may be taken of -x wherever x looks negative: the same function.
    positive = hint(ops, x) > 0
    size = ops.where(positive, x, ops.negative(x))
    tail = ops.divide(squared, ops.add(one, ops.sqrt(ops.add(one, squared))))
    found = ops.log1p(ops.add(size, tail))
    return ops.where(positive, found, ops.negative(found))


@register("aten.atan.default")
def arc_tangent(ops: Arithmetic, x: Array) -> Array:
    """Atan x"""
    return ops.atan(real(ops, x))


@register("aten.asin.default")
def arc_sine(ops: Arithmetic, x: Array) -> Array:
    """atan(x / sqrt(1 - x^2))"""
    x = real(ops, x)
    return ops.atan(ops.divide(x, ops.sqrt(ops.subtract(number(ops, 1.0), ops.power(x, 2)))))


@register("aten.acos.default")
def arc_cosine(ops: Arithmetic, x: Array) -> Array:
    """Pi / 2 less the arc sine"""
    return ops.subtract(ops.multiply(number(ops, 0.5), pi(ops)), arc_sine(ops, x))


@register("aten.atan2.default")
def angle(ops: Arithmetic, y: Array, x: Array) -> Array:
    """The angle of (x, y): atan(y / x), turned by pi for x < 0, or pi / 2 less atan(x / y) where |y| looks greater"""
    y, x = np.broadcast_arrays(real(ops, y), real(ops, x))
    steep = np.abs(hint(ops, y)) > np.abs(hint(ops, x))
    upper = hint(ops, y) > 0
    one, half = number(ops, 1.0), ops.multiply(number(ops, 0.5), pi(ops))
    # Each is taken where its denominator looks greater than 0 in size; a ball that reaches 0 leaves nothing finite.
    over_y = ops.atan(ops.divide(x, ops.where(steep, y, np.broadcast_to(one, y.shape))))
    quarter = ops.where(upper, np.broadcast_to(half, y.shape), np.broadcast_to(ops.negative(half), y.shape))
    over_x = ops.atan(ops.divide(y, ops.where(steep, np.broadcast_to(one, x.shape), x)))
    left = np.logical_and(hint(ops, x) < 0, np.logical_not(steep))
    if np.any(left):
        # Behind the origin the angle jumps from pi to -pi with the sign of y.
        zero = number(ops, 0.0)
        below = ops.less(ops.where(left, y, np.broadcast_to(one, y.shape)), zero)
        turn = ops.multiply(number(ops, 2.0), half)
        turned = ops.add(
            over_x, ops.where(below, np.broadcast_to(ops.negative(turn), y.shape), np.broadcast_to(turn, y.shape))
        )
        over_x = ops.where(left, turned, over_x)
    return ops.where(steep, ops.subtract(quarter, over_y), over_x)


@register("aten.erf.default")
def error_function(ops: Arithmetic, x: Array) -> Array:
    """Erf x"""
    return ops.erf(real(ops, x))


@register("aten.erfc.default")
def complementary_error_function(ops: Arithmetic, x: Array) -> Array:
    """1 - erf x"""
    return ops.subtract(number(ops, 1.0), ops.erf(real(ops, x)))


@register("aten.hypot.default")
def hypotenuse(ops: Arithmetic, x: Array, y: Array) -> Array:
    """sqrt(x^2 + y^2)"""
    return ops.sqrt(ops.add(ops.power(real(ops, x), 2), ops.power(real(ops, y), 2)))


@register("aten.logaddexp.default")
def logarithm_of_sum(ops: Arithmetic, x: Array, y: Array) -> Array:
    """log(e^x + e^y) = x + log1p(e^(y - x))"""
    x, y = np.broadcast_arrays(real(ops, x), real(ops, y))
    first = hint(ops, x) > hint(ops, y)
    larger, smaller = ops.where(first, x, y), ops.where(first, y, x)
    return ops.add(larger, ops.log1p(ops.exp(ops.subtract(smaller, larger))))
