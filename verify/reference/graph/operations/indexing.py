"""Reading and writing at indices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import constant, is_exact, real
from verify.reference.graph.operations.shape import cut
from verify.reference.graph.registry import register


def _full_index(x: Array, indices: list[Array | None]) -> tuple[Any, ...]:
    parts: list[Any] = [slice(None) if index is None else index for index in indices]
    return (*parts, *(slice(None),) * (x.ndim - len(parts)))


@register("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(ops: Arithmetic, x: Array, indices: list[Array | None]) -> Array:
    """x[i, j, ...] for integer or bool index tensors"""
    del ops
    return np.asarray(x[_full_index(x, indices)], dtype=x.dtype)


@register("aten.index_select.default")
def index_select(ops: Arithmetic, x: Array, dim: int, positions: Array) -> Array:
    """Slices of x along an axis, by number"""
    del ops
    return np.take(x, positions, axis=dim)


@register("aten.gather.default")
def gather(ops: Arithmetic, x: Array, dim: int, positions: Array, sparse_grad: bool = False) -> Array:
    """x[i, j] with j the index along the axis"""
    del ops, sparse_grad
    return x[_along(x, dim, positions)]


def _along(x: Array, dim: int, positions: Array) -> tuple[Array, ...]:
    grids = list(np.ogrid[tuple(slice(size) for size in positions.shape)])
    grids[dim % x.ndim] = positions
    return tuple(grids)


@register("aten.embedding.default")
def embedding(
    ops: Arithmetic,
    weight: Array,
    positions: Array,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Array:
    """Rows of the weight, by number"""
    del ops, padding_idx, scale_grad_by_freq, sparse
    return weight[positions]


def accumulated(
    ops: Arithmetic,
    x: Array,
    where: tuple[Any, ...],
    values: Array,
    combine: Callable[[Array, Array], Array] | None = None,
) -> Array:
    """`x` with values added at indices (or combined with what is there), so that an index may occur several times."""
    x, combine = real(ops, x), combine or ops.add
    numbers = np.arange(x.size).reshape(x.shape)[where]
    values = np.broadcast_to(real(ops, values), numbers.shape)
    result = x.reshape(-1).copy()
    targets, sources = numbers.reshape(-1), values.reshape(-1)
    while targets.size:
        # Each round adds to every target once; targets that occur again wait for the next round.
        unique, first = np.unique(targets, return_index=True)
        result[unique] = combine(result[unique], sources[first])
        left = np.ones(targets.size, dtype=np.bool_)
        left[first] = False
        targets, sources = targets[left], sources[left]
    return result.reshape(x.shape)


@register("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(ops: Arithmetic, x: Array, indices: list[Array | None], values: Array, accumulate: bool = False) -> Array:
    """`x` with x[i, j, ...] replaced, or added to"""
    if accumulate and not is_exact(x):
        return accumulated(ops, x, _full_index(x, indices), values)
    result = np.array(x)
    if accumulate:
        np.add.at(result, _full_index(x, indices), values)
    else:
        result[_full_index(x, indices)] = values if is_exact(x) else real(ops, values)
    return result


@register("aten.index_add.default")
def index_add(ops: Arithmetic, x: Array, dim: int, positions: Array, source: Array, alpha: float = 1) -> Array:
    """`x` with slices of the source added along an axis"""
    if alpha != 1:
        source = ops.multiply(source, real(ops, alpha))
    return accumulated(ops, x, (*(slice(None),) * (dim % x.ndim), positions), source)


@register("aten.scatter_add.default")
def scatter_add(ops: Arithmetic, x: Array, dim: int, positions: Array, source: Array) -> Array:
    """`x` with the source added at indices along an axis"""
    cropped = source[tuple(slice(size) for size in positions.shape)]
    return accumulated(ops, x, _along(x, dim, positions), cropped)


@register("aten.scatter_reduce.two")
def scatter_reduce(
    ops: Arithmetic, x: Array, dim: int, positions: Array, source: Array, reduce: str, include_self: bool = True
) -> Array:
    """`x` with the source's sum, product, mean, greatest or least at indices along an axis"""
    if x.ndim == 0:
        whole = scatter_reduce(ops, x[None], 0, positions.reshape(-1), source.reshape(-1), reduce, include_self)
        return whole.reshape(())
    x, places = real(ops, x), _along(x, dim, positions)
    source = real(ops, source)[tuple(slice(size) for size in positions.shape)]
    counts = np.zeros(x.shape, dtype=np.int64)
    np.add.at(counts, places, 1)
    combine = {"sum": ops.add, "mean": ops.add, "prod": ops.multiply, "amax": ops.maximum, "amin": ops.minimum}[reduce]
    start = x
    if not include_self:
        neutral = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -np.inf, "amin": np.inf}[reduce]
        start = np.where(counts > 0, constant(ops, x.shape, neutral), x)
    result = accumulated(ops, start, places, source, combine)
    if reduce != "mean":
        return result
    return ops.divide(result, ops.convert(np.maximum(counts + include_self, 1)))


@register("aten.index_reduce.default")
def index_reduce(
    ops: Arithmetic, x: Array, dim: int, positions: Array, source: Array, reduce: str, include_self: bool = True
) -> Array:
    """`x` with the product, mean, greatest or least of slices of the source put at places along an axis"""
    shape = [1] * source.ndim
    shape[dim] = len(positions)
    everywhere = np.broadcast_to(positions.reshape(shape), source.shape)
    return scatter_reduce(ops, x, dim, everywhere, source, reduce, include_self)


@register("aten.scatter.src", "aten.scatter.value")
def scatter(ops: Arithmetic, x: Array, dim: int, positions: Array, source: Any) -> Array:
    """`x` with the source put at indices along an axis"""
    result = np.array(x)
    if isinstance(source, np.ndarray):
        source = source[tuple(slice(size) for size in positions.shape)]
    result[_along(x, dim, positions)] = source if is_exact(x) else real(ops, source)
    return result


@register("aten.embedding_dense_backward.default")
def embedding_dense_backward(
    ops: Arithmetic, gradient: Array, positions: Array, rows: int, padding_idx: int, scale_grad_by_freq: bool
) -> Array:
    """The gradients of the looked-up rows, added up for each row of the weight"""
    if scale_grad_by_freq:
        raise NotImplementedError("embedding with scale_grad_by_freq has no derivative here; leave that option off")
    kept = positions != padding_idx if padding_idx >= 0 else np.ones(positions.shape, dtype=np.bool_)
    start = constant(ops, (rows, gradient.shape[-1]), 0.0)
    return accumulated(ops, start, (positions[kept],), gradient[kept])


def _replaced(ops: Arithmetic, x: Array, where: tuple[Any, ...], source: Array) -> Array:
    result = np.array(x)
    result[where] = source if is_exact(x) else real(ops, source)
    return result


@register("aten.slice_scatter.default")
def slice_scatter(
    ops: Arithmetic,
    x: Array,
    source: Array,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Array:
    """`x` with x[start:end:step] along an axis replaced"""
    return _replaced(ops, x, cut(x.ndim, dim, start, end, step), source)


@register("aten.select_scatter.default")
def select_scatter(ops: Arithmetic, x: Array, source: Array, dim: int, index: int) -> Array:
    """`x` with x[index] along an axis replaced"""
    return _replaced(ops, x, (*(slice(None),) * (dim % x.ndim), index), source)


@register("aten.diagonal_scatter.default")
def diagonal_scatter(ops: Arithmetic, x: Array, source: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """`x` with the diagonal of two axes replaced"""
    numbers = np.diagonal(np.arange(x.size).reshape(x.shape), offset, dim1, dim2)
    result = np.array(x).reshape(-1)
    result[numbers] = source if is_exact(x) else real(ops, source)
    return result.reshape(x.shape)


@register("aten.as_strided_scatter.default")
def as_strided_scatter(
    ops: Arithmetic, x: Array, source: Array, size: list[int], stride: list[int], offset: int | None = None
) -> Array:
    """`x` with elements of its row-major storage replaced, by strides"""
    position = np.asarray(offset or 0)
    for axis, (count, step) in enumerate(zip(size, stride, strict=True)):
        position = position + (np.arange(count) * step).reshape(-1, *(1,) * (len(size) - axis - 1))
    result = np.array(x).reshape(-1)
    result[position] = source if is_exact(x) else real(ops, source)
    return result.reshape(x.shape)


@register("aten.copy.default")
def copy(ops: Arithmetic, x: Array, source: Array) -> Array:
    """The source, in the shape of x"""
    return np.broadcast_to(source if is_exact(x) and is_exact(source) else real(ops, source), x.shape)
