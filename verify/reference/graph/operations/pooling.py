"""Pooling and resampling on the last two axes, and their derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.indexing import accumulated
from verify.reference.graph.operations.numbers import constant, number
from verify.reference.graph.operations.reduction import extreme, indices_or_undecided
from verify.reference.graph.registry import register


def _pair(value: Any, default: Any = None) -> tuple[int, int]:
    values = default if value is None or value == [] else value
    if isinstance(values, int):
        return values, values
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def window_starts(length: int, size: int, step: int, padding: int, far: int, ceiling: bool) -> list[int]:
    """First places of the windows along one axis, in the unpadded numbering."""
    room = length + 2 * padding - far * (size - 1) - 1
    count = (-(-room // step) if ceiling else room // step) + 1
    if ceiling and (count - 1) * step >= length + padding:
        count -= 1
    return [number * step - padding for number in range(count)]


def _windows(starts: list[int], size: int, far: int, length: int) -> list[list[int]]:
    return [[place for place in range(start, start + far * size, far) if 0 <= place < length] for start in starts]


def _cells(rows: list[list[int]], columns: list[list[int]]) -> Iterator[tuple[int, int, list[int], list[int]]]:
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        yield i, j, row, column


def _average_windows(
    x: Array, size: Any, stride: Any, padding: Any, ceiling: bool
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Row windows, column windows, and for each output place the size of the window with its padding."""
    (height, width), (down, across), (top, left) = _pair(size), _pair(stride, size), _pair(padding)
    rows = window_starts(x.shape[-2], height, down, top, 1, ceiling)
    columns = window_starts(x.shape[-1], width, across, left, 1, ceiling)
    padded = [
        [
            (min(row + height, x.shape[-2] + top) - row) * (min(column + width, x.shape[-1] + left) - column)
            for column in columns
        ]
        for row in rows
    ]
    return _windows(rows, height, 1, x.shape[-2]), _windows(columns, width, 1, x.shape[-1]), padded


@register("aten.avg_pool2d.default")
def average_pool(
    ops: Arithmetic,
    x: Array,
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Array:
    """The mean of each window"""
    rows, columns, padded = _average_windows(x, size, stride, padding, ceil_mode)
    result = constant(ops, (*x.shape[:-2], len(rows), len(columns)), 0.0)
    for i, j, row, column in _cells(rows, columns):
        whole = ops.sum(x[..., row, :][..., column], axis=(-2, -1))
        count = divisor or (padded[i][j] if count_include_pad else len(row) * len(column))
        result[..., i, j] = ops.divide(whole, number(ops, count))
    return result


@register("aten.avg_pool2d_backward.default")
def average_pool_backward(
    ops: Arithmetic,
    gradient: Array,
    x: Array,
    size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Array:
    """Each window's gradient spread evenly over its places"""
    rows, columns, padded = _average_windows(x, size, stride, padding, ceil_mode)
    result = constant(ops, x.shape, 0.0)
    for i, j, row, column in _cells(rows, columns):
        count = divisor or (padded[i][j] if count_include_pad else len(row) * len(column))
        share = ops.divide(np.asarray(gradient[..., i, j], dtype=x.dtype), number(ops, count))
        window = (..., np.asarray(row)[:, None], np.asarray(column))
        result[window] = ops.add(result[window], share[..., None, None])
    return result


def _adaptive(length: int, count: int) -> list[list[int]]:
    return [list(range(i * length // count, -(-(i + 1) * length // count))) for i in range(count)]


@register("aten._adaptive_avg_pool2d.default")
def adaptive_average_pool(ops: Arithmetic, x: Array, size: list[int]) -> Array:
    """Means of windows that divide the image into a given grid"""
    rows, columns = _adaptive(x.shape[-2], size[0]), _adaptive(x.shape[-1], size[1])
    result = constant(ops, (*x.shape[:-2], *size), 0.0)
    for i, j, row, column in _cells(rows, columns):
        whole = ops.sum(x[..., row, :][..., column], axis=(-2, -1))
        result[..., i, j] = ops.divide(whole, number(ops, len(row) * len(column)))
    return result


@register("aten._adaptive_avg_pool2d_backward.default")
def adaptive_average_pool_backward(ops: Arithmetic, gradient: Array, x: Array) -> Array:
    """Each window's gradient spread evenly over its places"""
    rows, columns = _adaptive(x.shape[-2], gradient.shape[-2]), _adaptive(x.shape[-1], gradient.shape[-1])
    result = constant(ops, x.shape, 0.0)
    for i, j, row, column in _cells(rows, columns):
        share = ops.divide(np.asarray(gradient[..., i, j], dtype=x.dtype), number(ops, len(row) * len(column)))
        window = (..., np.asarray(row)[:, None], np.asarray(column))
        result[window] = ops.add(result[window], share[..., None, None])
    return result


@register("aten.max_pool2d_with_indices.default")
def max_pool(
    ops: Arithmetic,
    x: Array,
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Any]:
    """The greatest of each window, and the number of its place in the image"""
    (height, width), (down, across) = _pair(size), _pair(stride, size)
    (top, left), (far, wide) = _pair(padding), _pair(dilation)
    rows = _windows(window_starts(x.shape[-2], height, down, top, far, ceil_mode), height, far, x.shape[-2])
    columns = _windows(window_starts(x.shape[-1], width, across, left, wide, ceil_mode), width, wide, x.shape[-1])
    values = constant(ops, (*x.shape[:-2], len(rows), len(columns)), 0.0)
    numbers: Any = np.zeros(values.shape, dtype=np.int64)
    for i, j, row, column in _cells(rows, columns):
        places = np.asarray([r * x.shape[-1] + c for r in row for c in column])
        window = np.moveaxis(x[..., row, :][..., column].reshape(*x.shape[:-2], -1), -1, 0)
        values[..., i, j] = extreme(ops, window, (0,), False, greatest=True)
        if isinstance(numbers, np.ndarray):
            first = indices_or_undecided(ops, window, greatest=True)
            if isinstance(first, np.ndarray):
                numbers[..., i, j] = places[first]
            else:
                numbers = first
    return values, numbers


@register("aten.max_pool2d_with_indices_backward.default")
def max_pool_backward(
    ops: Arithmetic,
    gradient: Array,
    x: Array,
    size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    numbers: Array,
) -> Array:
    """Each window's gradient at the place of its greatest"""
    del size, stride, padding, dilation, ceil_mode
    images = constant(ops, (int(np.prod(x.shape[:-2])), x.shape[-2] * x.shape[-1]), 0.0)
    count = numbers.shape[-2] * numbers.shape[-1]
    image = np.arange(len(images))[:, None]
    result = accumulated(ops, images, (image, numbers.reshape(-1, count)), gradient.reshape(-1, count))
    return result.reshape(x.shape)
