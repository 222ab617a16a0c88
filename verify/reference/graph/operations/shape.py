"""Views, joins and cuts: numpy's own shape operations, the same for every arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import constant, is_exact, real
from verify.reference.graph.registry import register, rule_for


_IDENTITIES = (
    "aten.clone.default",
    "aten.alias.default",
    "aten.alias_copy.default",
    "aten.detach.default",
    "aten.detach_copy.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
    "aten.lift_fresh.default",
)


def is_identity(operation: str) -> bool:
    """Whether an operation's rule here returns its first argument as it is."""
    return operation in _IDENTITIES and rule_for(operation) is identity


@register(*_IDENTITIES)
def identity(ops: Arithmetic, x: Array) -> Array:
    """`x` itself"""
    del ops
    return x


@register(
    "aten.view.default",
    "aten.view_copy.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten._reshape_copy.default",
)
def reshape(ops: Arithmetic, x: Array, size: list[int]) -> Array:
    """`x` in another shape, row-major"""
    del ops
    return x.reshape(tuple(size))


@register("aten.permute.default", "aten.permute_copy.default")
def permute(ops: Arithmetic, x: Array, axes: list[int]) -> Array:
    """`x` with its axes in another order"""
    del ops
    return x.transpose(tuple(axes))


@register("aten.transpose.int", "aten.transpose_copy.int")
def transpose(ops: Arithmetic, x: Array, first: int, second: int) -> Array:
    """`x` with two axes exchanged"""
    del ops
    return x if x.ndim == 0 else np.swapaxes(x, first, second)


@register("aten.t.default", "aten.t_copy.default")
def transpose_matrix(ops: Arithmetic, x: Array) -> Array:
    """The transpose of a matrix"""
    del ops
    return x.T


@register("aten.expand.default", "aten.expand_copy.default")
def expand(ops: Arithmetic, x: Array, size: list[int], implicit: bool = False) -> Array:
    """`x` repeated along axes of length 1 and along new leading axes"""
    del ops, implicit
    padded = (1,) * (len(size) - x.ndim) + x.shape
    return np.broadcast_to(x, tuple(old if new == -1 else new for new, old in zip(size, padded, strict=True)))


@register("aten.unsqueeze.default", "aten.unsqueeze_copy.default")
def unsqueeze(ops: Arithmetic, x: Array, dim: int) -> Array:
    """`x` with a new axis of length 1"""
    del ops
    return np.expand_dims(x, dim)


@register(
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.squeeze_copy.default",
    "aten.squeeze_copy.dim",
    "aten.squeeze_copy.dims",
)
def squeeze(ops: Arithmetic, x: Array, dims: Any = None) -> Array:
    """`x` without (those of) its axes of length 1"""
    del ops
    if x.ndim == 0:
        return x
    wanted = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    return np.squeeze(x, tuple(dim % x.ndim for dim in wanted if x.shape[dim] == 1))


def joined(ops: Arithmetic, tensors: list[Array]) -> list[Array]:
    """Arrays brought to one kind, so that they can be put into one."""
    return tensors if all(is_exact(tensor) for tensor in tensors) else [real(ops, tensor) for tensor in tensors]


@register("aten.cat.default")
def concatenate(ops: Arithmetic, tensors: list[Array], dim: int = 0) -> Array:
    """The tensors one after another along an axis; empty one-dimensional ones are skipped, as torch does"""
    kept = [tensor for tensor in tensors if tensor.shape != (0,)] or tensors[:1]
    return np.concatenate(joined(ops, kept), axis=dim)


@register("aten.stack.default")
def stack(ops: Arithmetic, tensors: list[Array], dim: int = 0) -> Array:
    """The tensors side by side along a new axis"""
    return np.stack(joined(ops, tensors), axis=dim)


def cut(rank: int, dim: int, start: int | None, end: int | None, step: int = 1) -> tuple[slice, ...]:
    """The index that takes a range along one axis."""
    index = [slice(None)] * rank
    index[dim] = slice(start, end, step)
    return tuple(index)


@register("aten.slice.Tensor", "aten.slice_copy.Tensor")
def take_range(
    ops: Arithmetic, x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """x[start:end:step] along an axis"""
    del ops
    return x[cut(x.ndim, dim, start, end, step)]


@register("aten.select.int", "aten.select_copy.int")
def select(ops: Arithmetic, x: Array, dim: int, index: int) -> Array:
    """x[index] along an axis"""
    del ops
    return np.asarray(x[(slice(None),) * (dim % x.ndim) + (index,)], dtype=x.dtype)


@register("aten.split.Tensor", "aten.split_copy.Tensor")
def split(ops: Arithmetic, x: Array, size: int, dim: int = 0) -> tuple[Array, ...]:
    """Pieces of one size along an axis, the last one perhaps shorter"""
    del ops
    return tuple(x[cut(x.ndim, dim, start, start + size)] for start in range(0, max(x.shape[dim], 1), size))


@register("aten.split_with_sizes.default", "aten.split_with_sizes_copy.default")
def split_with_sizes(ops: Arithmetic, x: Array, sizes: list[int], dim: int = 0) -> tuple[Array, ...]:
    """Pieces of given sizes along an axis"""
    del ops
    ends = np.cumsum(sizes).tolist()
    return tuple(x[cut(x.ndim, dim, end - size, end)] for end, size in zip(ends, sizes, strict=True))


@register("aten.unbind.int", "aten.unbind_copy.int")
def unbind(ops: Arithmetic, x: Array, dim: int = 0) -> tuple[Array, ...]:
    """The slices of x along an axis"""
    return tuple(select(ops, x, dim, index) for index in range(x.shape[dim]))


@register("aten.flip.default")
def flip(ops: Arithmetic, x: Array, dims: list[int]) -> Array:
    """`x` backwards along axes"""
    del ops
    return np.flip(x, tuple(dims))


@register("aten.roll.default")
def roll(ops: Arithmetic, x: Array, shifts: list[int], dims: list[int] | None = None) -> Array:
    """`x` shifted along axes, round the end"""
    del ops
    if not dims:
        return np.roll(x, shifts[0] if isinstance(shifts, list) else shifts)
    return np.roll(x, tuple(shifts), tuple(dims))


@register("aten.repeat.default")
def repeat(ops: Arithmetic, x: Array, repeats: list[int]) -> Array:
    """`x` repeated as tiles"""
    del ops
    return np.tile(x, tuple(repeats))


@register("aten.constant_pad_nd.default")
def pad(ops: Arithmetic, x: Array, padding: list[int], value: float = 0.0) -> Array:
    """`x` in a frame of one number; negative widths cut"""
    widths = [(padding[2 * axis], padding[2 * axis + 1]) for axis in range(len(padding) // 2)]
    widths = [(0, 0)] * (x.ndim - len(widths)) + widths[::-1]
    inner = tuple(slice(max(-low, 0), size - max(-high, 0)) for size, (low, high) in zip(x.shape, widths, strict=True))
    x = x[inner]
    shape = [size + max(low, 0) + max(high, 0) for size, (low, high) in zip(x.shape, widths, strict=True)]
    result = np.full(shape, value, dtype=x.dtype) if is_exact(x) else constant(ops, shape, float(value))
    middle = tuple(slice(max(low, 0), max(low, 0) + size) for size, (low, _) in zip(x.shape, widths, strict=True))
    result[middle] = x
    return result


@register("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(ops: Arithmetic, x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """The diagonal of two axes, as a last axis"""
    del ops
    return np.diagonal(x, offset, dim1, dim2)


@register("aten.unfold.default", "aten.unfold_copy.default")
def unfold(ops: Arithmetic, x: Array, dim: int, size: int, step: int) -> Array:
    """Windows along an axis, each in a new last axis"""
    del ops
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=dim % x.ndim)
    return windows[cut(x.ndim + 1, dim % x.ndim, None, None, step)]


@register("aten.as_strided.default", "aten.as_strided_copy.default")
def as_strided(ops: Arithmetic, x: Array, size: list[int], stride: list[int], offset: int | None = None) -> Array:
    """Elements of the row-major storage of x by strides"""
    del ops
    position = np.asarray(offset or 0)
    for axis, (count, step) in enumerate(zip(size, stride, strict=True)):
        position = position + (np.arange(count) * step).reshape(-1, *(1,) * (len(size) - axis - 1))
    return np.asarray(x.reshape(-1)[position], dtype=x.dtype).reshape(tuple(size))


@register("aten.tril.default")
def lower_triangle(ops: Arithmetic, x: Array, diagonal: int = 0) -> Array:
    """`x` on and below a diagonal, 0 above"""
    kept = np.tril(np.ones(x.shape[-2:], dtype=np.bool_), diagonal)
    return np.where(kept, x, 0) if is_exact(x) else ops.where(kept, x, constant(ops, x.shape, 0.0))


@register("aten.triu.default")
def upper_triangle(ops: Arithmetic, x: Array, diagonal: int = 0) -> Array:
    """`x` on and above a diagonal, 0 below"""
    kept = np.triu(np.ones(x.shape[-2:], dtype=np.bool_), diagonal)
    return np.where(kept, x, 0) if is_exact(x) else ops.where(kept, x, constant(ops, x.shape, 0.0))
