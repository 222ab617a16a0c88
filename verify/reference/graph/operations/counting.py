"""Running products and extremes, medians, segments, bags, distances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.graph.operations.elementary import logarithm_of_sum
from verify.reference.graph.operations.indexing import accumulated
from verify.reference.graph.operations.numbers import constant, equal, number, real
from verify.reference.graph.operations.ordering import ordered
from verify.reference.graph.operations.reduction import extreme, indices_or_undecided
from verify.reference.graph.registry import register


def _running(x: Array, dim: int, combine: Callable[[Array, Array], Array]) -> Array:
    if x.ndim == 0 or x.shape[dim] == 0:
        return x
    slices = np.moveaxis(x, dim, 0)
    found = [np.asarray(slices[0], dtype=x.dtype)]
    for place in range(1, len(slices)):
        found.append(combine(found[-1], np.asarray(slices[place], dtype=x.dtype)))
    return np.ascontiguousarray(np.moveaxis(np.stack(found), 0, dim))


@register("aten.cumprod.default")
def cumulative_product(ops: Arithmetic, x: Array, dim: int, dtype: str | None = None) -> Array:
    """The running product along an axis"""
    del dtype
    return _running(real(ops, x), dim, ops.multiply)


@register("aten.logcumsumexp.default")
def cumulative_logsumexp(ops: Arithmetic, x: Array, dim: int) -> Array:
    """The logarithm of the running sum of e^x along an axis"""
    return _running(real(ops, x), dim, lambda a, b: logarithm_of_sum(ops, a, b))


@register("aten.cummax.default")
def cumulative_greatest(ops: Arithmetic, x: Array, dim: int) -> tuple[Array, Any]:
    """The running greatest along an axis, and where it was last"""
    x = real(ops, x)
    values = _running(x, dim, ops.maximum)
    if x.ndim == 0:
        return values, np.zeros((), dtype=np.int64)
    slices = np.moveaxis(x, dim, 0)
    places = [np.zeros(slices.shape[1:], dtype=np.int64)]
    best = np.asarray(slices[0], dtype=x.dtype)
    try:
        for place in range(1, len(slices)):
            candidate = np.asarray(slices[place], dtype=x.dtype)
            later = ops.less_equal(best, candidate)
            best = ops.where(later, candidate, best)
            places.append(np.where(later, place, places[-1]))
    except Undecided as undecided:
        return values, undecided
    return values, np.moveaxis(np.stack(places), 0, dim)


@register("aten.median.dim")
def median(ops: Arithmetic, x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Any]:
    """The middle number along an axis, the lower of two, and where it was"""
    return kth_least(ops, x, (x.shape[dim] + 1) // 2 if x.ndim else 1, dim, keepdim)


@register("aten.kthvalue.default")
def kth_least(ops: Arithmetic, x: Array, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Array, Any]:
    """The k-th least number along an axis, and where it was"""
    values, places = ordered(ops, x, dim, False)
    if x.ndim == 0:
        return values, places

    def one(found: Array) -> Array:
        part = np.take(found, [k - 1], axis=dim)
        return part if keepdim else np.asarray(np.squeeze(part, dim), dtype=found.dtype)

    return one(values), one(places) if isinstance(places, np.ndarray) else places


def _bounds(lengths: Array | None, offsets: Array | None) -> list[tuple[int, int]]:
    """Where each segment begins and ends."""
    edges = [0, *np.cumsum(lengths).tolist()] if lengths is not None else np.asarray(offsets).tolist()
    return list(itertools.pairwise(edges))


@register("aten.segment_reduce.default")
def segment_reduce(
    ops: Arithmetic,
    x: Array,
    reduce: str,
    lengths: Array | None = None,
    indices: Array | None = None,
    offsets: Array | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Array:
    """The sum, product, mean, greatest or least of consecutive segments along the first axis"""
    del indices, unsafe
    if axis or (lengths is not None and lengths.ndim > 1):
        raise NotImplementedError("segment_reduce is covered along the first axis; move the segments there")
    combine = {"sum": ops.add, "mean": ops.add, "prod": ops.multiply, "max": ops.maximum, "min": ops.minimum}[reduce]
    neutral = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}[reduce]
    rows: list[Array] = []
    for start, end in _bounds(lengths, offsets):
        row = constant(ops, x.shape[1:], neutral if initial is None else initial)
        for place in range(start, end):
            row = combine(row, np.asarray(x[place], dtype=x.dtype))
        empty = reduce == "mean" and end == start
        rows.append(
            ops.divide(row, number(ops, float(max(end - start, 0 if empty else 1)))) if reduce == "mean" else row
        )
    return np.stack(rows)


@register("aten._segment_reduce_backward.default")
def segment_reduce_backward(
    ops: Arithmetic,
    gradient: Array,
    output: Array,
    x: Array,
    reduce: str,
    lengths: Array | None = None,
    offsets: Array | None = None,
    axis: int = 0,
    initial: float | None = None,
) -> Array:
    """The gradients of the segments to their rows; among rows that tie for the extreme, in equal shares"""
    del axis, initial
    rows: list[Array] = []
    for segment, (start, end) in enumerate(_bounds(lengths, offsets)):
        part = np.broadcast_to(gradient[segment], (end - start, *gradient.shape[1:]))
        if reduce == "mean":
            part = ops.divide(part, number(ops, float(max(end - start, 1))))
        elif reduce == "prod":
            part = ops.divide(ops.multiply(part, np.broadcast_to(output[segment], part.shape)), x[start:end])
        elif reduce != "sum":
            chosen = equal(ops, x[start:end], np.broadcast_to(output[segment], part.shape))
            ties = ops.convert(np.maximum(chosen.sum(0), 1))
            part = ops.where(chosen, ops.divide(part, ties), constant(ops, part.shape, 0.0))
        rows.append(part)
    covered = sum(len(part) for part in rows)
    return np.concatenate([*rows, constant(ops, (len(x) - covered, *x.shape[1:]), 0.0)])


@register("aten._embedding_bag.default")
def embedding_bag(
    ops: Arithmetic,
    weight: Array,
    positions: Array,
    offsets: Array,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Array, Array, Array, None]:
    """The sum, mean or greatest of bags of rows of the weight; and which bag each row went to"""
    del scale_grad_by_freq, sparse
    ends = np.append(offsets[1:], len(positions)) if not include_last_offset else offsets[1:]
    starts = offsets if not include_last_offset else offsets[:-1]
    bag_of = np.zeros(len(positions), dtype=np.int64)
    rows: list[Array] = []
    sizes = np.zeros(len(starts), dtype=np.int64)
    for bag, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        bag_of[start:end] = bag
        kept = [place for place in range(start, end) if positions[place] != padding_idx]
        sizes[bag] = len(kept)
        chosen = weight[positions[kept]]
        if per_sample_weights is not None:
            chosen = ops.multiply(chosen, per_sample_weights[kept][:, None])
        if not kept:
            rows.append(constant(ops, weight.shape[1:], 0.0))
        elif mode == 2:
            rows.append(extreme(ops, chosen, (0,), False, greatest=True))
        else:
            whole = ops.sum(chosen, axis=0)
            rows.append(ops.divide(whole, number(ops, float(len(kept)))) if mode == 1 else whole)
    return np.stack(rows), bag_of, sizes, None


@register("aten._embedding_bag_forward_only.default")
def embedding_bag_alone(ops: Arithmetic, *arguments: Any, **options: Any) -> tuple[Array, None, None, None]:
    """The sum, mean or greatest of bags of rows of the weight"""
    return embedding_bag(ops, *arguments, **options)[0], None, None, None


@register("aten.adaptive_max_pool2d.default")
def adaptive_max_pool(ops: Arithmetic, x: Array, size: list[int]) -> tuple[Array, Any]:
    """The greatest of windows that divide the image into a given grid, and its place"""
    (height, width), (rows, columns) = x.shape[-2:], size
    values = constant(ops, (*x.shape[:-2], *size), 0.0)
    numbers: Any = np.zeros(values.shape, dtype=np.int64)
    for i in range(rows):
        for j in range(columns):
            row = list(range(i * height // rows, -(-(i + 1) * height // rows)))
            column = list(range(j * width // columns, -(-(j + 1) * width // columns)))
            window = np.moveaxis(x[..., row, :][..., column].reshape(*x.shape[:-2], -1), -1, 0)
            values[..., i, j] = extreme(ops, window, (0,), False, greatest=True)
            first = indices_or_undecided(ops, window, greatest=True)
            if isinstance(numbers, np.ndarray):
                places = np.asarray([r * width + c for r in row for c in column])
                if isinstance(first, np.ndarray):
                    numbers[..., i, j] = places[first]
                else:
                    numbers = first
    return values, numbers


@register("aten.adaptive_max_pool2d_backward.default")
def adaptive_max_pool_backward(ops: Arithmetic, gradient: Array, x: Array, numbers: Array) -> Array:
    """Each window's gradient at the place of its greatest"""
    images = constant(ops, (int(np.prod(x.shape[:-2])), x.shape[-2] * x.shape[-1]), 0.0)
    count = numbers.shape[-2] * numbers.shape[-1]
    places = (np.arange(len(images))[:, None], numbers.reshape(-1, count))
    return accumulated(ops, images, places, gradient.reshape(-1, count)).reshape(x.shape)


def _distances(ops: Arithmetic, x: Array, y: Array) -> Array:
    return ops.subtract(x[..., :, None, :], y[..., None, :, :])


@register("aten._cdist_forward.default", "aten._euclidean_dist.default")
def distances(ops: Arithmetic, x: Array, y: Array, p: float = 2.0, compute_mode: int | None = None) -> Array:
    """The p-norms of the differences of all rows"""
    del compute_mode
    apart = _distances(ops, x, y)
    if p == 2:
        return ops.sqrt(ops.sum(ops.power(apart, 2), axis=-1))
    size = ops.absolute(apart)
    if p == 1:
        return ops.sum(size, axis=-1)
    if math.isinf(p):
        return extreme(ops, size, (size.ndim - 1,), False, greatest=True)
    whole = ops.sum(ops.power(size, int(p) if float(p).is_integer() else p), axis=-1)
    return ops.exp(ops.divide(ops.log(whole), number(ops, p)))


@register("aten._cdist_backward.default")
def distances_backward(ops: Arithmetic, gradient: Array, x: Array, y: Array, p: float, found: Array) -> Array:
    """The gradient by the first rows, for p = 2"""
    if p != 2:
        raise NotImplementedError(f"cdist with p = {p} has no derivative here; take p = 2")
    unit = ops.divide(_distances(ops, x, y), found[..., None])
    return ops.sum(ops.multiply(unit, gradient[..., None]), axis=-2)


@register("aten._trilinear.default")
def trilinear(
    ops: Arithmetic,
    a: Array,
    b: Array,
    c: Array,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
    unroll_dim: int = 1,
) -> Array:
    """The product of three tensors with axes put in, summed over axes"""
    del unroll_dim
    for axes, name in ((expand1, "a"), (expand2, "b"), (expand3, "c")):
        for axis in sorted(axes):
            if name == "a":
                a = np.expand_dims(a, axis)
            elif name == "b":
                b = np.expand_dims(b, axis)
            else:
                c = np.expand_dims(c, axis)
    product = ops.multiply(ops.multiply(real(ops, a), real(ops, b)), real(ops, c))
    return ops.sum(product, axis=tuple(sumdim)) if sumdim else product
