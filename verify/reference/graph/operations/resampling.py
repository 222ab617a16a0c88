"""Images and signals on another grid: nearest, linear, cubic; every one is a product with a matrix for each axis."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.elementwise import floor
from verify.reference.graph.operations.indexing import accumulated
from verify.reference.graph.operations.numbers import constant, number, real
from verify.reference.graph.operations.pooling import window_starts
from verify.reference.graph.registry import register


Weights = list[dict[int, Fraction]]
"""For each place of the finer grid, the places that it is made of and their weights."""


def _ratio(length: int, count: int, aligned: bool, scale: float | None) -> Fraction:
    if aligned:
        return Fraction(length - 1, count - 1) if count > 1 else Fraction(0)
    return 1 / Fraction(scale) if scale is not None else Fraction(length, count)


def _linear(length: int, count: int, aligned: bool, scale: float | None) -> Weights:
    ratio = _ratio(length, count, aligned, scale)
    rows: Weights = []
    for place in range(count):
        at = ratio * place if aligned else max(Fraction(0), ratio * (place + Fraction(1, 2)) - Fraction(1, 2))
        first = min(int(at), length - 1)
        second = min(first + 1, length - 1)
        share = min(at - first, Fraction(1))
        row = {first: 1 - share}
        row[second] = row.get(second, Fraction(0)) + share
        rows.append(row)
    return rows


_A = Fraction(-3, 4)
"""The coefficient of the cubic convolution that torch uses."""


def _near(x: Fraction) -> Fraction:
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _far(x: Fraction) -> Fraction:
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A


def _cubic(length: int, count: int, aligned: bool, scale: float | None) -> Weights:
    ratio = _ratio(length, count, aligned, scale)
    rows: Weights = []
    for place in range(count):
        at = ratio * place if aligned else ratio * (place + Fraction(1, 2)) - Fraction(1, 2)
        first = at.__floor__()
        share = at - first
        weights = (_far(share + 1), _near(share), _near(1 - share), _far(2 - share))
        row: dict[int, Fraction] = {}
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
            source = min(max(first + offset, 0), length - 1)
            row[source] = row.get(source, Fraction(0)) + weight
        rows.append(row)
    return rows


def _matrix(ops: Arithmetic, weights: Weights, length: int) -> Array:
    """The weights as a matrix of exact fractions."""
    tops, bottoms = np.zeros((len(weights), length), dtype=np.int64), np.ones((len(weights), length), dtype=np.int64)
    for place, row in enumerate(weights):
        for source, weight in row.items():
            tops[place, source], bottoms[place, source] = weight.numerator, weight.denominator
    return ops.divide(ops.convert(tops), ops.convert(bottoms))


def _along(ops: Arithmetic, x: Array, matrix: Array, axis: int) -> Array:
    moved = np.moveaxis(x, axis, -1)
    rows = ops.matmul(np.ascontiguousarray(moved).reshape(-1, moved.shape[-1]), np.ascontiguousarray(matrix.T))
    return np.moveaxis(rows.reshape(*moved.shape[:-1], -1), -1, axis)


def _resampled(
    ops: Arithmetic, x: Array, of: Callable[..., Weights], sizes: list[int], scales: list[Any], aligned: bool
) -> Array:
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), x.ndim - len(sizes)):
        weights = of(x.shape[axis], size, aligned, scale)
        x = _along(ops, x, _matrix(ops, weights, x.shape[axis]), axis)
    return np.ascontiguousarray(x)


def _returned(
    ops: Arithmetic, g: Array, of: Callable[..., Weights], lengths: list[int], scales: list[Any], aligned: bool
) -> Array:
    for axis, (length, scale) in enumerate(zip(lengths, scales, strict=True), g.ndim - len(lengths)):
        weights = of(length, g.shape[axis], aligned, scale)
        g = _along(ops, g, np.ascontiguousarray(_matrix(ops, weights, length).T), axis)
    return np.ascontiguousarray(g)


@register("aten.upsample_bilinear2d.default", "aten.upsample_linear1d.default", "aten.upsample_trilinear3d.default")
def upsample_linear(ops: Arithmetic, x: Array, size: list[int], align_corners: bool, *scales: float | None) -> Array:
    """The image on another grid, each place between its neighbours along every axis"""
    return _resampled(ops, real(ops, x), _linear, size, [*scales, *[None] * (len(size) - len(scales))], align_corners)


@register(
    "aten.upsample_bilinear2d_backward.default",
    "aten.upsample_linear1d_backward.default",
    "aten.upsample_trilinear3d_backward.default",
)
def upsample_linear_backward(
    ops: Arithmetic, g: Array, size: list[int], input_size: list[int], align_corners: bool, *scales: float | None
) -> Array:
    """The gradients added up at the places that they were made of"""
    given = [*scales, *[None] * (len(size) - len(scales))]
    return _returned(ops, g, _linear, input_size[-len(size) :], given, align_corners)


@register("aten.upsample_bicubic2d.default")
def upsample_cubic(ops: Arithmetic, x: Array, size: list[int], align_corners: bool, *scales: float | None) -> Array:
    """The image on another grid by cubic convolution with a = -3/4"""
    return _resampled(ops, real(ops, x), _cubic, size, [*scales, *[None] * (len(size) - len(scales))], align_corners)


@register("aten.upsample_bicubic2d_backward.default")
def upsample_cubic_backward(
    ops: Arithmetic, g: Array, size: list[int], input_size: list[int], align_corners: bool, *scales: float | None
) -> Array:
    """The gradients added up at the places that they were made of"""
    given = [*scales, *[None] * (len(size) - len(scales))]
    return _returned(ops, g, _cubic, input_size[-len(size) :], given, align_corners)


def _nearest(length: int, count: int, scale: float | None, exact: bool) -> list[int]:
    ratio = np.float32(1.0 / scale if scale is not None else length / count)
    shift = np.float32(0.5 if exact else 0.0)
    return [min(int((np.float32(place) + shift) * ratio), length - 1) for place in range(count)]


def _places(lengths: tuple[int, ...], sizes: list[int], scales: tuple[float | None, ...], exact: bool) -> Array:
    """For each place of the finer grid, the number of its nearest neighbour in the coarser one."""
    given = [*scales, *[None] * (len(sizes) - len(scales))]
    axes = [_nearest(*one, exact) for one in zip(lengths, sizes, given, strict=True)]
    return np.arange(int(np.prod(lengths))).reshape(lengths)[np.ix_(*axes)]


def _nearest_rule(exact: bool) -> Callable[..., Array]:
    def upsample_nearest(ops: Arithmetic, x: Array, size: list[int], *scales: float | None) -> Array:
        """The image on a finer grid, each place taking its nearest neighbour"""
        del ops
        lengths = x.shape[-len(size) :]
        flat = x.reshape(*x.shape[: -len(size)], -1)
        return np.ascontiguousarray(flat[..., _places(lengths, size, scales, exact)])

    return upsample_nearest


def _nearest_backward(exact: bool) -> Callable[..., Array]:
    def upsample_nearest_backward(
        ops: Arithmetic, gradient: Array, size: list[int], input_size: list[int], *scales: float | None
    ) -> Array:
        """The gradients added up at the places that they were taken from"""
        lengths = tuple(input_size[-len(size) :])
        places = _places(lengths, size, scales, exact).reshape(-1)
        rows = int(np.prod(input_size[: -len(size)]))
        start = constant(ops, (rows, int(np.prod(lengths))), 0.0)
        targets = (np.arange(rows)[:, None], places[None, :])
        return accumulated(ops, start, targets, gradient.reshape(rows, -1)).reshape(input_size)

    return upsample_nearest_backward


for _exact, _name in ((False, "upsample_nearest"), (True, "_upsample_nearest_exact")):
    register(*(f"aten.{_name}{n}d.default" for n in (1, 2, 3)))(_nearest_rule(_exact))
    register(*(f"aten.{_name}{n}d_backward.default" for n in (1, 2, 3)))(_nearest_backward(_exact))


def _padded_places(lengths: tuple[int, ...], widths: list[int]) -> Array:
    """For each place of a replication-padded image, the number of the place that it repeats."""
    axes = [
        np.clip(np.arange(-widths[2 * k], length + widths[2 * k + 1]), 0, length - 1)
        for k, length in enumerate(reversed(lengths))
    ]
    return np.arange(int(np.prod(lengths))).reshape(lengths)[np.ix_(*reversed(axes))]


@register(*(f"aten.replication_pad{n}d.default" for n in (1, 2, 3)))
def replication_pad(ops: Arithmetic, x: Array, widths: list[int]) -> Array:
    """The image in a frame that repeats its border"""
    del ops
    count = len(widths) // 2
    flat = x.reshape(*x.shape[:-count], -1)
    return np.ascontiguousarray(flat[..., _padded_places(x.shape[-count:], widths)])


@register(*(f"aten.replication_pad{n}d_backward.default" for n in (1, 2, 3)))
def replication_pad_backward(ops: Arithmetic, gradient: Array, x: Array, widths: list[int]) -> Array:
    """The gradients added up at the places that were repeated"""
    count = len(widths) // 2
    places = _padded_places(x.shape[-count:], widths).reshape(-1)
    rows = int(np.prod(x.shape[:-count]))
    start = constant(ops, (rows, int(np.prod(x.shape[-count:]))), 0.0)
    targets = (np.arange(rows)[:, None], places[None, :])
    return accumulated(ops, start, targets, gradient.reshape(rows, -1)).reshape(x.shape)


def _pooled(
    ops: Arithmetic, lengths: list[int], sizes: list[int], strides: Any, paddings: Any, ceiling: bool, counted: bool
) -> tuple[list[Array], Array]:
    """For each axis the matrix that adds up its windows, and the number of places in each window."""
    count = len(sizes)
    steps, frames = strides or sizes, [paddings] * count if isinstance(paddings, int) else paddings
    matrices: list[Array] = []
    totals = np.ones((), dtype=np.int64)
    for length, size, step, frame in zip(lengths, sizes, steps, frames, strict=True):
        starts = window_starts(length, size, step, frame, 1, ceiling)
        rows = [[place for place in range(start, start + size) if 0 <= place < length] for start in starts]
        matrices.append(_matrix(ops, [dict.fromkeys(row, Fraction(1)) for row in rows], length))
        padded = [min(start + size, length + frame) - start for start in starts]
        totals = np.multiply.outer(totals, np.asarray(padded if counted else [len(row) for row in rows]))
    return matrices, totals


@register("aten.avg_pool3d.default")
def average_pool_of_volumes(
    ops: Arithmetic,
    x: Array,
    sizes: list[int],
    strides: Any = None,
    paddings: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Array:
    """The mean of each window of three axes"""
    matrices, totals = _pooled(ops, list(x.shape[-3:]), sizes, strides, paddings, ceil_mode, count_include_pad)
    for axis, matrix in enumerate(matrices, x.ndim - 3):
        x = _along(ops, x, matrix, axis)
    return ops.divide(np.ascontiguousarray(x), ops.convert(totals if divisor is None else np.asarray(divisor)))


@register("aten.avg_pool3d_backward.default")
def average_pool_of_volumes_backward(
    ops: Arithmetic,
    gradient: Array,
    x: Array,
    sizes: list[int],
    strides: Any,
    paddings: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Array:
    """Each window's gradient spread evenly over its places"""
    matrices, totals = _pooled(ops, list(x.shape[-3:]), sizes, strides, paddings, ceil_mode, count_include_pad)
    shared = ops.divide(gradient, ops.convert(totals if divisor is None else np.asarray(divisor)))
    for axis, matrix in enumerate(matrices, x.ndim - 3):
        shared = _along(ops, shared, np.ascontiguousarray(matrix.T), axis)
    return np.ascontiguousarray(shared)


@register("aten.round.default")
def rounded(ops: Arithmetic, x: Array) -> Array:
    """The nearest integer, the even one of two, decided"""
    low = floor(ops, ops.add(real(ops, x), number(ops, 0.5)))
    # At a tie, x + 1/2 is an integer itself, and an odd one is one too great.
    tie = np.logical_not(ops.less(low, ops.add(real(ops, x), number(ops, 0.5))))
    half = floor(ops, ops.multiply(low, number(ops, 0.5)))
    odd = ops.less(ops.multiply(half, number(ops, 2.0)), low)
    return ops.where(np.logical_and(tie, odd), ops.subtract(low, number(ops, 1.0)), low)
