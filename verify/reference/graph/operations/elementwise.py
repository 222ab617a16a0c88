"""Arithmetic, powers, extremes and rounding, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import binary, is_exact, like_dtype, number, real, truncated
from verify.reference.graph.registry import register


@register("aten.add.Tensor", "aten.add.Scalar")
def add(ops: Arithmetic, x: Array, y: Any, alpha: float = 1) -> Array:
    """`x` + alpha y"""
    return binary(ops, x, y if alpha == 1 else multiply(ops, y, alpha), ops.add, np.add)


@register("aten.sub.Tensor", "aten.sub.Scalar")
def subtract(ops: Arithmetic, x: Array, y: Any, alpha: float = 1) -> Array:
    """`x` - alpha y"""
    return binary(ops, x, y if alpha == 1 else multiply(ops, y, alpha), ops.subtract, np.subtract)


@register("aten.rsub.Tensor", "aten.rsub.Scalar")
def reversed_subtract(ops: Arithmetic, x: Array, y: Any, alpha: float = 1) -> Array:
    """Y - alpha x"""
    return subtract(ops, y, x, alpha)


@register("aten.mul.Tensor", "aten.mul.Scalar")
def multiply(ops: Arithmetic, x: Any, y: Any) -> Array:
    """`x` y"""
    return binary(ops, x, y, ops.multiply, np.multiply)


@register("aten.div.Tensor", "aten.div.Scalar")
def divide(ops: Arithmetic, x: Any, y: Any) -> Array:
    """`x` / y"""
    return ops.divide(real(ops, x), real(ops, y))


@register("aten.neg.default", "aten._neg_view.default", "aten._neg_view_copy.default")
def negative(ops: Arithmetic, x: Array) -> Array:
    """-x"""
    return np.negative(x) if is_exact(x) else ops.negative(x)


@register("aten.abs.default")
def absolute(ops: Arithmetic, x: Array) -> Array:
    """|x|"""
    return np.abs(x) if is_exact(x) else ops.absolute(x)


@register("aten.sign.default", "aten.sgn.default")
def sign(ops: Arithmetic, x: Array) -> Array:
    """-1, 0 or 1 by the sign of x"""
    if is_exact(x):
        return np.sign(x)
    zero = number(ops, 0.0)
    positive = np.asarray(ops.less(zero, x), dtype=np.int64)
    return ops.convert(positive - np.asarray(ops.less(x, zero), dtype=np.int64))


@register("aten.reciprocal.default")
def reciprocal(ops: Arithmetic, x: Array) -> Array:
    """1 / x"""
    return ops.divide(number(ops, 1.0), real(ops, x))


@register("aten.square.default")
def square(ops: Arithmetic, x: Array) -> Array:
    """x^2"""
    return ops.power(real(ops, x), 2)


@register("aten.pow.Tensor_Scalar")
def power(ops: Arithmetic, x: Array, exponent: Any) -> Array:
    """x^p for a number p"""
    if isinstance(exponent, np.ndarray):  # an exact fraction that no float64 holds
        return power_of_tensor(ops, x, exponent)
    if is_exact(x) and is_exact(exponent) and exponent >= 0:
        return np.power(x, exponent)
    return ops.power(real(ops, x), int(exponent) if float(exponent).is_integer() else exponent)


@register("aten.pow.Tensor_Tensor")
def power_of_tensor(ops: Arithmetic, x: Array, exponent: Array) -> Array:
    """x^p = exp(p log x) for x > 0"""
    return ops.exp(ops.multiply(real(ops, exponent), ops.log(real(ops, x))))


@register("aten.pow.Scalar")
def power_of_scalar(ops: Arithmetic, base: float, exponent: Array) -> Array:
    """b^x = exp(x log b) for a number b > 0"""
    return ops.exp(ops.multiply(real(ops, exponent), ops.log(real(ops, base))))


@register("aten.maximum.default")
def maximum(ops: Arithmetic, x: Array, y: Array) -> Array:
    """max(x, y)"""
    return binary(ops, x, y, ops.maximum, np.maximum)


@register("aten.minimum.default")
def minimum(ops: Arithmetic, x: Array, y: Array) -> Array:
    """min(x, y)"""
    return binary(ops, x, y, ops.minimum, np.minimum)


@register("aten.clamp.default", "aten.clamp.Tensor")
def clamp(ops: Arithmetic, x: Array, low: Any = None, high: Any = None) -> Array:
    """min(max(x, low), high)"""
    if low is not None:
        x = maximum(ops, x, low)
    return x if high is None else minimum(ops, x, high)


@register("aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp_below(ops: Arithmetic, x: Array, low: Any) -> Array:
    """max(x, low)"""
    return maximum(ops, x, low)


@register("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_above(ops: Arithmetic, x: Array, high: Any) -> Array:
    """min(x, high)"""
    return minimum(ops, x, high)


@register("aten.addcmul.default")
def add_product(ops: Arithmetic, x: Array, a: Array, b: Array, value: float = 1) -> Array:
    """`x` + value a b"""
    return add(ops, x, multiply(ops, a, b), alpha=value)


@register("aten.addcdiv.default")
def add_quotient(ops: Arithmetic, x: Array, a: Array, b: Array, value: float = 1) -> Array:
    """`x` + value a / b"""
    return add(ops, x, divide(ops, a, b), alpha=value)


@register("aten.lerp.Scalar", "aten.lerp.Tensor")
def interpolate(ops: Arithmetic, x: Array, y: Array, weight: Any) -> Array:
    """`x` + weight (y - x)"""
    return add(ops, x, multiply(ops, weight, subtract(ops, y, x)))


@register("aten.trunc.default", "aten.fix.default")
def truncate(ops: Arithmetic, x: Array) -> Array:
    """The integer between 0 and `x` next to `x`"""
    return x if is_exact(x) else ops.convert(truncated(ops, x))


@register("aten.floor.default")
def floor(ops: Arithmetic, x: Array) -> Array:
    """The greatest integer that `x` reaches"""
    if is_exact(x):
        return x
    integer = ops.convert(truncated(ops, x))
    return ops.subtract(integer, ops.convert(np.asarray(ops.less(x, integer), dtype=np.int64)))


@register("aten.ceil.default")
def ceiling(ops: Arithmetic, x: Array) -> Array:
    """The least integer that `x` does not pass"""
    return negative(ops, floor(ops, negative(ops, x)))


@register("aten.fmod.Scalar", "aten.fmod.Tensor")
def truncated_remainder(ops: Arithmetic, x: Array, y: Any) -> Array:
    """`x` less y times the integer part of x / y"""
    return binary(ops, x, y, lambda a, b: _remainder(ops, a, b, truncate), np.fmod)


@register("aten.remainder.Scalar", "aten.remainder.Tensor")
def floored_remainder(ops: Arithmetic, x: Array, y: Any) -> Array:
    """`x` less y times the floor of x / y"""
    return binary(ops, x, y, lambda a, b: _remainder(ops, a, b, floor), np.remainder)


def _remainder(ops: Arithmetic, x: Array, y: Array, part: Callable[[Arithmetic, Array], Array]) -> Array:
    return ops.subtract(x, ops.multiply(y, part(ops, ops.divide(x, y))))


@register("aten._to_copy.default")
def cast(ops: Arithmetic, x: Array, dtype: str | None = None) -> Array:
    """x: casts between floating dtypes are stripped on purpose, integers become reals exactly"""
    return like_dtype(ops, x, dtype)
