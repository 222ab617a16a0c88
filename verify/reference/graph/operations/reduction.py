"""Sums, means, norms, extremes and softmax along axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, BoolArray, Undecided
from verify.reference.graph.operations.numbers import (
    constant,
    hint,
    is_exact,
    is_real_dtype,
    like_dtype,
    number,
    real,
)
from verify.reference.graph.registry import register


def axes_of(x: Array, dim: Any) -> tuple[int, ...]:
    """The axes that a `dim` argument means: all of them for None or []."""
    if dim is None or dim == []:
        return tuple(range(x.ndim))
    return tuple(axis % max(x.ndim, 1) for axis in ([dim] if isinstance(dim, int) else dim)) if x.ndim else ()


def count(x: Array, axes: tuple[int, ...]) -> int:
    """How many elements are put together along the axes."""
    return math.prod(x.shape[axis] for axis in axes)


def add_up(ops: Arithmetic, x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    """The sum along axes; over no axis, x itself."""
    return ops.sum(x, axis=axes, keepdims=keepdim) if axes else x


@register("aten.sum.dim_IntList", "aten.sum.default")
def total(ops: Arithmetic, x: Array, dim: Any = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """The sum along axes"""
    axes = axes_of(x, dim)
    if is_exact(x) and not is_real_dtype(dtype):
        return np.asarray(np.sum(x, axis=axes, keepdims=keepdim, dtype=np.int64))
    return add_up(ops, real(ops, x), axes, keepdim)


@register("aten.mean.dim", "aten.mean.default")
def mean(ops: Arithmetic, x: Array, dim: Any = None, keepdim: bool = False, dtype: str | None = None) -> Array:
    """The mean along axes"""
    del dtype
    axes = axes_of(x, dim)
    return ops.divide(add_up(ops, real(ops, x), axes, keepdim), number(ops, count(x, axes)))


def mean_and_variance(ops: Arithmetic, x: Array, axes: tuple[int, ...], correction: float) -> tuple[Array, Array]:
    """Mean and sum (x - mean)^2 / (n - correction), with the axes kept."""
    middle = ops.divide(add_up(ops, x, axes, True), number(ops, count(x, axes)))
    spread = add_up(ops, ops.power(ops.subtract(x, middle), 2), axes, True)
    return middle, ops.divide(spread, number(ops, count(x, axes) - correction))


def _dropped(x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    return x if keepdim else np.asarray(np.squeeze(x, axes), dtype=x.dtype)


def _correction(value: float | None) -> float:
    return 1.0 if value is None else float(value)


@register("aten.var.correction")
def variance(
    ops: Arithmetic, x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False
) -> Array:
    """The variance along axes, divided by n - correction"""
    axes = axes_of(x, dim)
    return _dropped(mean_and_variance(ops, x, axes, _correction(correction))[1], axes, keepdim)


@register("aten.std.correction")
def standard_deviation(
    ops: Arithmetic, x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False
) -> Array:
    """The square root of the variance along axes"""
    return ops.sqrt(variance(ops, x, dim, correction, keepdim))


@register("aten.var_mean.correction")
def variance_and_mean(
    ops: Arithmetic, x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False
) -> tuple[Array, Array]:
    """Variance and mean along axes"""
    axes = axes_of(x, dim)
    middle, spread = mean_and_variance(ops, x, axes, _correction(correction))
    return _dropped(spread, axes, keepdim), _dropped(middle, axes, keepdim)


@register("aten.prod.default", "aten.prod.dim_int")
def product(
    ops: Arithmetic, x: Array, dim: int | None = None, keepdim: bool = False, dtype: str | None = None
) -> Array:
    """The product of all elements, or along an axis"""
    if is_exact(x) and not is_real_dtype(dtype):
        return np.asarray(np.prod(x, axis=dim, keepdims=keepdim, dtype=np.int64))
    x, axis = (real(ops, x).reshape(-1), 0) if dim is None else (real(ops, x), dim % x.ndim)
    slices = np.moveaxis(x, axis, 0)
    result = constant(ops, slices.shape[1:], 1.0)
    for position in range(len(slices)):
        result = ops.multiply(result, np.asarray(slices[position], dtype=x.dtype))
    return np.expand_dims(result, axis) if keepdim else result


@register("aten.cumsum.default")
def cumulative_sum(ops: Arithmetic, x: Array, dim: int, dtype: str | None = None) -> Array:
    """The running sum along an axis"""
    if is_exact(x) and not is_real_dtype(dtype):
        return np.cumsum(x, axis=dim, dtype=np.int64)
    x = real(ops, x)
    if x.ndim == 0 or x.shape[dim] == 0:
        return x
    slices = np.moveaxis(x, dim, 0)
    sums = [np.asarray(slices[0], dtype=x.dtype)]
    for position in range(1, len(slices)):
        sums.append(ops.add(sums[-1], np.asarray(slices[position], dtype=x.dtype)))
    return np.moveaxis(np.stack(sums), 0, dim)


@register("aten.linalg_vector_norm.default")
def vector_norm(
    ops: Arithmetic, x: Array, order: float = 2, dim: Any = None, keepdim: bool = False, dtype: str | None = None
) -> Array:
    """(sum |x|^p)^(1/p) along axes; the greatest |x| for p = inf"""
    del dtype
    axes = axes_of(x, dim)
    if order == 2:
        return ops.sqrt(add_up(ops, ops.power(x, 2), axes, keepdim))
    size = ops.absolute(x)
    if math.isinf(order):
        return extreme(ops, size, axes, keepdim, greatest=order > 0)
    if order == 1:
        return add_up(ops, size, axes, keepdim)
    whole = add_up(ops, ops.power(size, int(order) if float(order).is_integer() else order), axes, keepdim)
    return ops.exp(ops.divide(ops.log(whole), number(ops, order)))


def extreme(ops: Arithmetic, x: Array, axes: tuple[int, ...], keepdim: bool, *, greatest: bool) -> Array:
    """The greatest or least element along axes; the value is continuous, so it needs no decision."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    flat = x.transpose(*axes, *kept).reshape(-1, *(x.shape[axis] for axis in kept))
    choose = (np.maximum if greatest else np.minimum) if is_exact(x) else (ops.maximum if greatest else ops.minimum)
    result = np.asarray(flat[0], dtype=x.dtype)
    for position in range(1, len(flat)):
        result = choose(result, np.asarray(flat[position], dtype=x.dtype))
    return result.reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)]) if keepdim else result


@register("aten.amax.default")
def greatest(ops: Arithmetic, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    """The greatest element along axes"""
    return extreme(ops, x, axes_of(x, dim), keepdim, greatest=True)


@register("aten.amin.default")
def least(ops: Arithmetic, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    """The least element along axes"""
    return extreme(ops, x, axes_of(x, dim), keepdim, greatest=False)


@register("aten.max.default")
def greatest_of_all(ops: Arithmetic, x: Array) -> Array:
    """The greatest element"""
    return extreme(ops, x, axes_of(x, None), False, greatest=True)


@register("aten.min.default")
def least_of_all(ops: Arithmetic, x: Array) -> Array:
    """The least element"""
    return extreme(ops, x, axes_of(x, None), False, greatest=False)


def first_extreme(ops: Arithmetic, x: Array, *, greatest: bool) -> Array:
    """Along the first axis, the number of the first greatest or least element.

    Raises:
        Undecided: two elements overlap, so which one it is cannot be said.
    """
    best = np.asarray(x[0], dtype=x.dtype)
    numbers = np.zeros(best.shape, dtype=np.int64)
    for position in range(1, len(x)):
        candidate = np.asarray(x[position], dtype=x.dtype)
        if is_exact(x):
            better = candidate > best if greatest else candidate < best
        else:
            better = ops.less(best, candidate) if greatest else ops.less(candidate, best)
        best, numbers = np.where(better, candidate, best), np.where(better, position, numbers)
    return np.asarray(numbers)


def indices_or_undecided(ops: Arithmetic, x: Array, *, greatest: bool) -> Array | Undecided:
    """`first_extreme`, or its exception as a value, which is raised only if somebody asks for the indices."""
    try:
        return first_extreme(ops, x, greatest=greatest)
    except Undecided as undecided:
        return undecided


def _with_indices(ops: Arithmetic, x: Array, dim: int, keepdim: bool, *, greatest: bool) -> tuple[Array, Any]:
    if x.ndim == 0:
        return x, np.zeros((), dtype=np.int64)
    axis = dim % x.ndim
    numbers = indices_or_undecided(ops, np.moveaxis(x, axis, 0), greatest=greatest)
    values = extreme(ops, x, (axis,), keepdim, greatest=greatest)
    if isinstance(numbers, np.ndarray) and keepdim:
        numbers = np.expand_dims(numbers, axis)
    return values, numbers


@register("aten.max.dim")
def greatest_with_index(ops: Arithmetic, x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Any]:
    """The greatest element along an axis, and the number of the first such"""
    return _with_indices(ops, x, dim, keepdim, greatest=True)


@register("aten.min.dim")
def least_with_index(ops: Arithmetic, x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Any]:
    """The least element along an axis, and the number of the first such"""
    return _with_indices(ops, x, dim, keepdim, greatest=False)


@register("aten.argmax.default")
def index_of_greatest(ops: Arithmetic, x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """The number of the first greatest element along an axis"""
    flat, axis = (x.reshape(-1), 0) if dim is None else (x, dim)
    numbers = first_extreme(ops, np.moveaxis(flat, axis, 0), greatest=True)
    return np.expand_dims(numbers, axis) if keepdim else numbers


@register("aten.any.default", "aten.any.dim", "aten.any.dims")
def any_of(ops: Arithmetic, x: Array, dim: Any = None, keepdim: bool = False) -> BoolArray:
    """Whether one holds"""
    return np.asarray(np.any(like_dtype(ops, x, "bool"), axis=axes_of(x, dim), keepdims=keepdim))


@register("aten.all.default", "aten.all.dim", "aten.all.dims")
def all_of(ops: Arithmetic, x: Array, dim: Any = None, keepdim: bool = False) -> BoolArray:
    """Whether all hold"""
    return np.asarray(np.all(like_dtype(ops, x, "bool"), axis=axes_of(x, dim), keepdims=keepdim))


def shifted(ops: Arithmetic, x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """`x` less a number near its greatest along the axes, and that number: exact, so that it adds no radius."""
    top = np.max(hint(ops, x), axis=axes, keepdims=True)
    shift = ops.convert(np.where(np.isfinite(top), top, 0.0))
    return ops.subtract(x, shift), shift


@register("aten._softmax.default")
def softmax(ops: Arithmetic, x: Array, dim: int, half_to_float: Any = False) -> Array:
    """e^x / sum e^x along an axis"""
    del half_to_float
    powers = ops.exp(shifted(ops, x, axes_of(x, dim))[0])
    return ops.divide(powers, add_up(ops, powers, axes_of(x, dim), True))


@register("aten._safe_softmax.default")
def safe_softmax(ops: Arithmetic, x: Array, dim: int, dtype: str | None = None) -> Array:
    """e^x / sum e^x along an axis, and 0 where every x is -inf"""
    del dtype
    top = extreme(ops, x, axes_of(x, dim), True, greatest=True)
    empty = np.logical_not(ops.less(number(ops, float("-inf")), top))
    kept = ops.where(np.broadcast_to(empty, x.shape), constant(ops, x.shape, 0.0), x)
    return ops.where(np.broadcast_to(empty, x.shape), constant(ops, x.shape, 0.0), softmax(ops, kept, dim))


@register("aten._log_softmax.default")
def log_softmax(ops: Arithmetic, x: Array, dim: int, half_to_float: bool = False) -> Array:
    """`x` - log sum e^x along an axis"""
    del half_to_float
    moved, _ = shifted(ops, x, axes_of(x, dim))
    return ops.subtract(moved, ops.log(add_up(ops, ops.exp(moved), axes_of(x, dim), True)))


@register("aten.logsumexp.default")
def logsumexp(ops: Arithmetic, x: Array, dim: Any, keepdim: bool = False) -> Array:
    """Log sum e^x along axes"""
    axes = axes_of(x, dim)
    moved, shift = shifted(ops, x, axes)
    whole = ops.add(ops.log(add_up(ops, ops.exp(moved), axes, True)), shift)
    return _dropped(whole, axes, keepdim)


@register("aten._softmax_backward_data.default")
def softmax_backward(ops: Arithmetic, gradient: Array, output: Array, dim: int, dtype: str | None = None) -> Array:
    """P (g - sum g p) along an axis"""
    del dtype
    inner = add_up(ops, ops.multiply(gradient, output), axes_of(output, dim), True)
    return ops.multiply(output, ops.subtract(gradient, inner))


@register("aten._log_softmax_backward_data.default")
def log_softmax_backward(ops: Arithmetic, gradient: Array, output: Array, dim: int, dtype: str | None = None) -> Array:
    """G - e^output sum g along an axis"""
    del dtype
    return ops.subtract(gradient, ops.multiply(ops.exp(output), add_up(ops, gradient, axes_of(output, dim), True)))
