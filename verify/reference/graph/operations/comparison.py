"""Comparisons and logic: the results are bool arrays, decided rigorously or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, BoolArray
from verify.reference.graph.operations.numbers import binary, equal, is_exact, like_dtype, number, real
from verify.reference.graph.registry import register


@register("aten.lt.Tensor", "aten.lt.Scalar")
def less(ops: Arithmetic, x: Array, y: Any) -> BoolArray:
    """`x` < y"""
    return binary(ops, x, y, ops.less, np.less)


@register("aten.le.Tensor", "aten.le.Scalar")
def less_equal(ops: Arithmetic, x: Array, y: Any) -> BoolArray:
    """`x` <= y"""
    return binary(ops, x, y, ops.less_equal, np.less_equal)


@register("aten.gt.Tensor", "aten.gt.Scalar")
def greater(ops: Arithmetic, x: Array, y: Any) -> BoolArray:
    """`x` > y"""
    return less(ops, y, x)


@register("aten.ge.Tensor", "aten.ge.Scalar")
def greater_equal(ops: Arithmetic, x: Array, y: Any) -> BoolArray:
    """`x` >= y"""
    return less_equal(ops, y, x)


@register("aten.eq.Tensor", "aten.eq.Scalar")
def equals(ops: Arithmetic, x: Array, y: Any) -> BoolArray:
    """`x` == y"""
    return binary(ops, x, y, lambda a, b: equal(ops, a, b), np.equal)


@register("aten.ne.Tensor", "aten.ne.Scalar")
def differs(ops: Arithmetic, x: Array, y: Any) -> BoolArray:
    """`x` != y"""
    return np.logical_not(equals(ops, x, y))


def _truth(ops: Arithmetic, x: Array) -> BoolArray:
    return like_dtype(ops, x, "bool")


@register("aten.logical_and.default")
def logical_and(ops: Arithmetic, x: Array, y: Array) -> BoolArray:
    """`x` and y"""
    return np.logical_and(_truth(ops, x), _truth(ops, y))


@register("aten.logical_or.default")
def logical_or(ops: Arithmetic, x: Array, y: Array) -> BoolArray:
    """`x` or y"""
    return np.logical_or(_truth(ops, x), _truth(ops, y))


@register("aten.logical_xor.default")
def logical_xor(ops: Arithmetic, x: Array, y: Array) -> BoolArray:
    """`x` or y, not both"""
    return np.logical_xor(_truth(ops, x), _truth(ops, y))


@register("aten.logical_not.default")
def logical_not(ops: Arithmetic, x: Array) -> BoolArray:
    """Not x"""
    return np.logical_not(_truth(ops, x))


@register("aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar")
def bitwise_and(ops: Arithmetic, x: Array, y: Any) -> Array:
    """`x` & y of integers or bools"""
    del ops
    return np.bitwise_and(x, y)


@register("aten.bitwise_or.Tensor", "aten.bitwise_or.Scalar")
def bitwise_or(ops: Arithmetic, x: Array, y: Any) -> Array:
    """`x` | y of integers or bools"""
    del ops
    return np.bitwise_or(x, y)


@register("aten.bitwise_not.default")
def bitwise_not(ops: Arithmetic, x: Array) -> Array:
    """~x of integers or bools"""
    del ops
    return np.bitwise_not(x)


@register("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(ops: Arithmetic, condition: BoolArray, x: Any, y: Any) -> Array:
    """`x` where the condition holds, y elsewhere"""
    if is_exact(x) and is_exact(y):
        return np.where(condition, x, y)
    return ops.where(condition, *np.broadcast_arrays(real(ops, x), real(ops, y)))


@register("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(ops: Arithmetic, x: Array, mask: BoolArray, value: Any) -> Array:
    """The value where the mask holds, x elsewhere"""
    return where(ops, np.broadcast_to(mask, x.shape), value, x)


@register("aten.isinf.default")
def is_infinite(ops: Arithmetic, x: Array) -> BoolArray:
    """|x| = inf"""
    if is_exact(x):
        return np.zeros(x.shape, dtype=np.bool_)
    return equal(ops, ops.absolute(x), number(ops, float("inf")))


@register("aten.isnan.default")
def is_undefined(ops: Arithmetic, x: Array) -> BoolArray:
    """`x` is not a number"""
    if is_exact(x):
        return np.zeros(x.shape, dtype=np.bool_)
    # Everything but NaN compares with infinity; balls that hold a NaN do not, and leave it undecided.
    return np.logical_not(ops.less_equal(ops.absolute(x), number(ops, float("inf"))))
