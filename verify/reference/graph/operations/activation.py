"""Activation functions and the derivatives of theirs that torch keeps whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, BoolArray
from verify.reference.graph.operations.comparison import less, where
from verify.reference.graph.operations.elementwise import clamp
from verify.reference.graph.operations.numbers import constant, hint, number, pi, real
from verify.reference.graph.registry import register


@register("aten.relu.default")
def relu(ops: Arithmetic, x: Array) -> Array:
    """max(x, 0)"""
    return np.maximum(x, 0) if x.dtype.kind in "iu" else ops.maximum(x, number(ops, 0.0))


@register("aten.sigmoid.default")
def sigmoid(ops: Arithmetic, x: Array) -> Array:
    """(1 + tanh(x / 2)) / 2"""
    half = number(ops, 0.5)
    return ops.multiply(half, ops.add(number(ops, 1.0), ops.tanh(ops.multiply(half, real(ops, x)))))


@register("aten.silu.default")
def silu(ops: Arithmetic, x: Array) -> Array:
    """`x` sigmoid(x)"""
    return ops.multiply(real(ops, x), sigmoid(ops, x))


def smooth_softplus(ops: Arithmetic, x: Array) -> Array:
    """log1p(e^x), as x + log1p(e^-x) where x looks positive: the same function, with its digits kept for large |x|."""
    positive = hint(ops, x) > 0
    size = ops.where(positive, x, ops.negative(x))
    tail = ops.log1p(ops.exp(ops.negative(size)))
    return ops.add(ops.where(positive, x, constant(ops, x.shape, 0.0)), tail)


@register("aten.softplus.default")
def softplus(ops: Arithmetic, x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + e^(beta x)) / beta, and x where beta x > threshold"""
    slope = number(ops, beta)
    scaled = ops.multiply(slope, x)
    smooth = ops.divide(smooth_softplus(ops, scaled), slope)
    return where(ops, less(ops, number(ops, threshold), scaled), x, smooth)


@register("aten.log_sigmoid_forward.default")
def log_sigmoid(ops: Arithmetic, x: Array) -> tuple[Array, None]:
    """-softplus(-x); torch's second output is a buffer"""
    return ops.negative(smooth_softplus(ops, ops.negative(x))), None


@register("aten.mish.default")
def mish(ops: Arithmetic, x: Array) -> Array:
    """`x` tanh(softplus(x))"""
    return ops.multiply(x, ops.tanh(smooth_softplus(ops, x)))


def _bent(ops: Arithmetic, x: Array, size: Array, steepness: Array) -> Array:
    """`x` for x > 0, size expm1(steepness x) otherwise: x + (size expm1(steepness m) - m) with m = min(x, 0).

    Written so, the slope at 0 is 1 from both sides wherever size times steepness is 1.
    """
    low = ops.minimum(x, number(ops, 0.0))
    curved = ops.multiply(size, ops.expm1(ops.multiply(steepness, low)))
    return ops.add(x, ops.subtract(curved, low))


@register("aten.elu.default")
def elu(ops: Arithmetic, x: Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    """(x for x > 0, alpha expm1(input_scale x) otherwise) times scale"""
    return ops.multiply(number(ops, scale), _bent(ops, x, number(ops, alpha), number(ops, input_scale)))


@register("aten.elu_backward.default")
def elu_backward(
    ops: Arithmetic, gradient: Array, alpha: float, scale: float, input_scale: float, is_result: bool, x: Array
) -> Array:
    """The gradient times scale, and for x <= 0 also times alpha input_scale e^(input_scale x)"""
    zero, slope = number(ops, 0.0), number(ops, input_scale)
    upper = ops.multiply(gradient, number(ops, scale))
    if is_result:
        growth = ops.add(ops.divide(x, number(ops, scale)), number(ops, alpha))
    else:
        growth = ops.multiply(number(ops, alpha), ops.exp(ops.multiply(slope, ops.minimum(x, zero))))
    return where(ops, less(ops, zero, x), upper, ops.multiply(ops.multiply(upper, slope), growth))


@register("aten.celu.default")
def celu(ops: Arithmetic, x: Array, alpha: float = 1.0) -> Array:
    """`x` for x > 0, alpha expm1(x / alpha) otherwise"""
    width = number(ops, alpha)
    return _bent(ops, x, width, ops.divide(number(ops, 1.0), width))


_CUBIC = 0.044715
"""The cubic coefficient of the tanh approximation of gelu, the float64 number that torch multiplies with."""


def _gelu_inner(ops: Arithmetic, x: Array) -> tuple[Array, Array]:
    """sqrt(2 / pi) (x + c x^3) and its derivative."""
    scale = ops.sqrt(ops.divide(number(ops, 2.0), pi(ops)))
    squared = ops.power(x, 2)
    inner = ops.multiply(scale, ops.add(x, ops.multiply(number(ops, _CUBIC), ops.multiply(x, squared))))
    three = ops.multiply(number(ops, 3.0), number(ops, _CUBIC))
    return inner, ops.multiply(scale, ops.add(number(ops, 1.0), ops.multiply(three, squared)))


@register("aten.gelu.default")
def gelu(ops: Arithmetic, x: Array, approximate: str = "none") -> Array:
    """`x` (1 + erf(x / sqrt 2)) / 2, or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) in place of erf"""
    if approximate == "tanh":
        bell = ops.tanh(_gelu_inner(ops, x)[0])
    else:
        bell = ops.erf(ops.divide(x, ops.sqrt(number(ops, 2.0))))
    return ops.multiply(ops.multiply(number(ops, 0.5), x), ops.add(number(ops, 1.0), bell))


@register("aten.gelu_backward.default")
def gelu_backward(ops: Arithmetic, gradient: Array, x: Array, approximate: str = "none") -> Array:
    """The gradient times (1 + b(x) + x b'(x)) / 2, b the bell of gelu"""
    one = number(ops, 1.0)
    if approximate == "tanh":
        inner, slope = _gelu_inner(ops, x)
        bell = ops.tanh(inner)
        bell_slope = ops.multiply(ops.subtract(one, ops.power(bell, 2)), slope)
    else:
        two = number(ops, 2.0)
        bell = ops.erf(ops.divide(x, ops.sqrt(two)))
        density = ops.exp(ops.negative(ops.divide(ops.power(x, 2), two)))
        bell_slope = ops.multiply(ops.sqrt(ops.divide(two, pi(ops))), density)
    slope = ops.add(ops.add(one, bell), ops.multiply(x, bell_slope))
    return ops.multiply(gradient, ops.multiply(number(ops, 0.5), slope))


@register("aten.leaky_relu.default")
def leaky_relu(ops: Arithmetic, x: Array, negative_slope: float = 0.01) -> Array:
    """`x` for x > 0, slope x otherwise"""
    zero = number(ops, 0.0)
    lower = ops.multiply(number(ops, negative_slope), ops.minimum(x, zero))
    return ops.add(ops.maximum(x, zero), lower)


@register("aten.rrelu_with_noise_functional.default")
def rrelu(
    ops: Arithmetic,
    x: Array,
    noise: Array,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> tuple[Array, Array]:
    """`x` for x > 0, the middle slope x otherwise, as outside training; and the noise, unused"""
    del training, generator
    return leaky_relu(ops, x, (lower + upper) / 2), noise


@register("aten.rrelu_with_noise_backward.default")
def rrelu_backward(
    ops: Arithmetic,
    gradient: Array,
    x: Array,
    noise: Array,
    lower: float,
    upper: float,
    training: bool,
    self_is_result: bool,
) -> Array:
    """The gradient times 1 or the middle slope"""
    del noise, training, self_is_result
    slope = number(ops, (lower + upper) / 2)
    return ops.where(ops.less(number(ops, 0.0), x), gradient, ops.multiply(gradient, slope))


@register("aten.prelu.default", "aten._prelu_kernel.default")
def prelu(ops: Arithmetic, x: Array, weight: Array) -> Array:
    """`x` for x > 0, weight x otherwise, one weight for each channel (axis 1)"""
    if weight.ndim == 1 and weight.size > 1:
        weight = weight.reshape(1, -1, *(1,) * (x.ndim - 2))
    zero = number(ops, 0.0)
    return ops.add(ops.maximum(x, zero), ops.multiply(weight, ops.minimum(x, zero)))


@register("aten.hardtanh.default")
def hardtanh(ops: Arithmetic, x: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """min(max(x, low), high)"""
    return clamp(ops, x, low, high)


def _ramp(ops: Arithmetic, x: Array) -> Array:
    shifted = clamp(ops, ops.add(x, number(ops, 3.0)), 0.0, 6.0)
    return ops.divide(shifted, number(ops, 6.0))


@register("aten.hardsigmoid.default")
def hardsigmoid(ops: Arithmetic, x: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6"""
    return _ramp(ops, x)


@register("aten.hardswish.default")
def hardswish(ops: Arithmetic, x: Array) -> Array:
    """`x` min(max(x + 3, 0), 6) / 6"""
    return ops.multiply(x, _ramp(ops, x))


def _inside(ops: Arithmetic, x: Array, low: float, high: float) -> BoolArray:
    return np.logical_and(less(ops, number(ops, low), x), less(ops, x, number(ops, high)))


@register("aten.hardsigmoid_backward.default")
def hardsigmoid_backward(ops: Arithmetic, gradient: Array, x: Array) -> Array:
    """The gradient / 6 for -3 < x < 3, 0 elsewhere"""
    return where(ops, _inside(ops, x, -3.0, 3.0), ops.divide(gradient, number(ops, 6.0)), number(ops, 0.0))


@register("aten.hardswish_backward.default")
def hardswish_backward(ops: Arithmetic, gradient: Array, x: Array) -> Array:
    """0 for x <= -3, the gradient times (2 x + 3) / 6 between, the gradient for x >= 3"""
    three = number(ops, 3.0)
    middle = ops.divide(ops.add(ops.multiply(number(ops, 2.0), x), three), number(ops, 6.0))
    upper = where(ops, less(ops, x, three), ops.multiply(gradient, middle), gradient)
    return where(ops, less(ops, number(ops, -3.0), x), upper, number(ops, 0.0))


@register("aten.softshrink.default")
def softshrink(ops: Arithmetic, x: Array, width: float = 0.5) -> Array:
    """`x` less what of it lies between -width and width"""
    return ops.subtract(x, clamp(ops, x, -width, width))


@register("aten.softshrink_backward.default", "aten.hardshrink_backward.default")
def shrink_backward(ops: Arithmetic, gradient: Array, x: Array, width: float) -> Array:
    """The gradient where |x| > width, 0 elsewhere"""
    outside = np.logical_or(less(ops, number(ops, width), x), less(ops, x, number(ops, -width)))
    return where(ops, outside, gradient, number(ops, 0.0))


@register("aten.threshold_backward.default")
def threshold_backward(ops: Arithmetic, gradient: Array, x: Array, threshold: float) -> Array:
    """The gradient where x > threshold, 0 elsewhere"""
    return where(ops, less(ops, number(ops, threshold), x), gradient, number(ops, 0.0))
