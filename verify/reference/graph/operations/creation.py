"""Tensors made from numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import constant, is_exact, is_real_dtype
from verify.reference.graph.registry import register


def _filled(ops: Arithmetic, shape: Any, value: float, dtype: str | None, default_real: bool) -> Array:
    real = is_real_dtype(dtype) if dtype is not None else default_real
    if real:
        return constant(ops, shape, float(value))
    kind = np.bool_ if dtype == "bool" or (dtype is None and isinstance(value, bool)) else np.int64
    return np.full(tuple(shape), value, dtype=kind)


@register("aten.full.default")
def full(ops: Arithmetic, size: list[int], value: float, dtype: str | None = None) -> Array:
    """One number everywhere"""
    return _filled(ops, size, value, dtype, isinstance(value, float))


@register("aten.full_like.default")
def full_like(ops: Arithmetic, x: Array, value: float, dtype: str | None = None) -> Array:
    """One number everywhere, in the shape of x"""
    return _filled(ops, x.shape, value, dtype, not is_exact(x))


@register("aten.zeros.default")
def zeros(ops: Arithmetic, size: list[int], dtype: str | None = None) -> Array:
    """0 everywhere"""
    return _filled(ops, size, 0, dtype, True)


@register("aten.ones.default")
def ones(ops: Arithmetic, size: list[int], dtype: str | None = None) -> Array:
    """1 everywhere"""
    return _filled(ops, size, 1, dtype, True)


@register("aten.zeros_like.default")
def zeros_like(ops: Arithmetic, x: Array, dtype: str | None = None) -> Array:
    """0 everywhere, in the shape of x"""
    return _filled(ops, x.shape, 0, dtype, not is_exact(x))


@register("aten.ones_like.default")
def ones_like(ops: Arithmetic, x: Array, dtype: str | None = None) -> Array:
    """1 everywhere, in the shape of x"""
    return _filled(ops, x.shape, 1, dtype, not is_exact(x))


@register("aten.new_zeros.default")
def new_zeros(ops: Arithmetic, x: Array, size: list[int], dtype: str | None = None) -> Array:
    """0 everywhere"""
    return _filled(ops, size, 0, dtype, not is_exact(x))


@register("aten.new_ones.default")
def new_ones(ops: Arithmetic, x: Array, size: list[int], dtype: str | None = None) -> Array:
    """1 everywhere"""
    return _filled(ops, size, 1, dtype, not is_exact(x))


@register("aten.new_full.default")
def new_full(ops: Arithmetic, x: Array, size: list[int], value: float, dtype: str | None = None) -> Array:
    """One number everywhere"""
    return _filled(ops, size, value, dtype, not is_exact(x))


@register("aten.scalar_tensor.default")
def scalar_tensor(ops: Arithmetic, value: float, dtype: str | None = None) -> Array:
    """One number, without axes"""
    return _filled(ops, (), value, dtype, True)


def _uninitialised(ops: Arithmetic, shape: Any, dtype: str | None, default_real: bool) -> Array:
    # NaN, so that reading memory that nothing wrote to is seen in the result.
    return _filled(ops, shape, float("nan") if is_real_dtype(dtype) or default_real else 0, dtype, default_real)


@register("aten.empty.memory_format")
def empty(ops: Arithmetic, size: list[int], dtype: str | None = None) -> Array:
    """NaN everywhere, which shows if it is read before it is written"""
    return _uninitialised(ops, size, dtype, dtype is None)


@register("aten.empty_like.default")
def empty_like(ops: Arithmetic, x: Array, dtype: str | None = None) -> Array:
    """NaN everywhere, in the shape of x, which shows if it is read before it is written"""
    return _uninitialised(ops, x.shape, dtype, dtype is None and not is_exact(x))


@register("aten.new_empty.default")
def new_empty(ops: Arithmetic, x: Array, size: list[int], dtype: str | None = None) -> Array:
    """NaN everywhere, which shows if it is read before it is written"""
    return _uninitialised(ops, size, dtype, dtype is None and not is_exact(x))


@register("aten.new_empty_strided.default", "aten.empty_strided.default")
def new_empty_strided(ops: Arithmetic, *arguments: Any, dtype: str | None = None) -> Array:
    """NaN everywhere, which shows if it is read before it is written"""
    if isinstance(arguments[0], np.ndarray):
        return _uninitialised(ops, arguments[1], dtype, dtype is None and not is_exact(arguments[0]))
    return _uninitialised(ops, arguments[0], dtype, dtype is None)


@register("aten.arange.start_step", "aten.arange.start", "aten.arange.default")
def arange(ops: Arithmetic, *arguments: float, dtype: str | None = None) -> Array:
    """start, start + step, ... below the end"""
    start, end, step = {1: (0, *arguments, 1), 2: (*arguments, 1)}.get(len(arguments), arguments)
    values = np.arange(start, end, step)
    if is_real_dtype(dtype) or (dtype is None and values.dtype.kind == "f"):
        return ops.add(constant(ops, (), float(start)), ops.multiply(_steps(ops, len(values)), constant(ops, (), step)))
    return values.astype(np.int64)


def _steps(ops: Arithmetic, count: int) -> Array:
    return ops.convert(np.arange(count))


@register("aten.eye.default", "aten.eye.m")
def eye(ops: Arithmetic, rows: int, columns: int | None = None, dtype: str | None = None) -> Array:
    """The identity matrix"""
    values = np.eye(rows, rows if columns is None else columns)
    return values.astype(np.int64) if dtype is not None and not is_real_dtype(dtype) else ops.convert(values)
