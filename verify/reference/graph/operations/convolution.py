"""Convolution in any number of spatial axes, as one matrix product of gathered columns, and its derivative."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import constant
from verify.reference.graph.operations.shape import pad
from verify.reference.graph.registry import register


def _spread(values: Sequence[int], rank: int) -> list[int]:
    return list(values) * rank if len(values) == 1 else list(values)


def columns(
    ops: Arithmetic, x: Array, kernel: Sequence[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[Array, list[int]]:
    """What each place of the kernel meets at each place of the output.

    Args:
        ops: the arithmetic.
        x: shape (batch, channels, *spatial).
        kernel: its spatial sizes.
        stride: step of the output, for each axis.
        padding: zeros before and after, for each axis.
        dilation: distance of the kernel's places, for each axis.

    Returns:
        An array (batch, channels, kernel places, output places), and the output's spatial sizes.
    """
    framed = pad(ops, x, [width for width in reversed(padding) for _ in range(2)])
    sizes = [
        (length - far * (size - 1) - 1) // step + 1
        for length, size, step, far in zip(framed.shape[2:], kernel, stride, dilation, strict=True)
    ]
    pieces = []
    for place in itertools.product(*(range(size) for size in kernel)):
        window = tuple(
            slice(where * far, where * far + step * (size - 1) + 1, step)
            for where, far, step, size in zip(place, dilation, stride, sizes, strict=True)
        )
        pieces.append(framed[(slice(None), slice(None), *window)].reshape(*x.shape[:2], -1))
    return np.stack(pieces, axis=2), sizes


def _forward(
    ops: Arithmetic,
    x: Array,
    weight: Array,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Array:
    batch, channels = x.shape[:2]
    gathered, sizes = columns(ops, x, weight.shape[2:], stride, padding, dilation)
    grouped = gathered.reshape(batch, groups, channels // groups * gathered.shape[2], -1).transpose(1, 2, 0, 3)
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    result = ops.matmul(rows, grouped.reshape(groups, rows.shape[2], -1))
    return result.reshape(weight.shape[0], batch, -1).transpose(1, 0, 2).reshape(batch, weight.shape[0], *sizes)


def _transposed(
    ops: Arithmetic,
    x: Array,
    weight: Array,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    output_padding: list[int],
    groups: int,
) -> Array:
    """The adjoint of `_forward`: zeros between the places of x, then a convolution with the flipped kernel."""
    rank = x.ndim - 2
    sizes = [(length - 1) * step + 1 for length, step in zip(x.shape[2:], stride, strict=True)]
    stretched = constant(ops, (*x.shape[:2], *sizes), 0.0)
    stretched[(slice(None), slice(None), *(slice(None, None, step) for step in stride))] = x
    widths: list[int] = []
    for axis in reversed(range(rank)):
        reach = dilation[axis] * (weight.shape[2 + axis] - 1) - padding[axis]
        widths += [reach, reach + output_padding[axis]]
    framed = pad(ops, stretched, widths)
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    kernel = np.flip(weight, tuple(range(2, weight.ndim))).reshape(groups, inputs, outputs, *weight.shape[2:])
    kernel = np.swapaxes(kernel, 1, 2).reshape(groups * outputs, inputs, *weight.shape[2:])
    return _forward(ops, framed, kernel, [1] * rank, [0] * rank, dilation, groups)


@register("aten.convolution.default")
def convolution(
    ops: Arithmetic,
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Array:
    """The convolution (cross-correlation) of x with the weight, or its transpose, plus the bias"""
    rank = weight.ndim - 2
    stride, padding, dilation = _spread(stride, rank), _spread(padding, rank), _spread(dilation, rank)
    if transposed:
        result = _transposed(ops, x, weight, stride, padding, dilation, _spread(output_padding, rank), groups)
    else:
        result = _forward(ops, x, weight, stride, padding, dilation, groups)
    if bias is not None:
        result = ops.add(result, bias.reshape(1, -1, *(1,) * rank))
    return result


def _weight_gradient(
    ops: Arithmetic, small: Array, large: Array, kernel: Sequence[int], geometry: list[list[int]], groups: int
) -> Array:
    """Sum over batch and places of small[o] large[c, window], shape (o, c / groups, *kernel)."""
    stride, padding, dilation = geometry
    batch, outputs = small.shape[:2]
    gathered, sizes = columns(ops, large, kernel, stride, padding, dilation)
    places = math.prod(small.shape[2:])
    if list(small.shape[2:]) != sizes:
        # The last places of `large` that no window reaches make the count of windows ambiguous; keep those of `small`.
        grid = gathered.reshape(*gathered.shape[:3], *sizes)
        window = tuple(slice(size) for size in small.shape[2:])
        gathered = grid[(slice(None),) * 3 + window].reshape(*gathered.shape[:3], places)
    rows = gathered.reshape(batch, groups, -1, places).transpose(1, 0, 3, 2).reshape(groups, batch * places, -1)
    left = small.reshape(batch, groups, outputs // groups, places).transpose(1, 2, 0, 3)
    result = ops.matmul(left.reshape(groups, outputs // groups, -1), rows)
    return result.reshape(outputs, -1, *kernel)


@register("aten.convolution_backward.default")
def convolution_backward(
    ops: Arithmetic,
    gradient: Array,
    x: Array,
    weight: Array,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of a convolution by its input, its weight and its bias, those that are wanted"""
    del bias_sizes, output_padding
    rank = weight.ndim - 2
    stride, padding, dilation = _spread(stride, rank), _spread(padding, rank), _spread(dilation, rank)
    of_x: Array | None = None
    of_weight: Array | None = None
    if wanted[0] and transposed:
        of_x = _forward(ops, gradient, weight, stride, padding, dilation, groups)
        of_x = of_x[(slice(None), slice(None), *(slice(size) for size in x.shape[2:]))]
    elif wanted[0]:
        left = [
            x.shape[2 + axis]
            - ((gradient.shape[2 + axis] - 1) * stride[axis] - 2 * padding[axis])
            - dilation[axis] * (weight.shape[2 + axis] - 1)
            - 1
            for axis in range(rank)
        ]
        of_x = _transposed(ops, gradient, weight, stride, padding, dilation, left, groups)
    if wanted[1]:
        small, large = (x, gradient) if transposed else (gradient, x)
        of_weight = _weight_gradient(ops, small, large, weight.shape[2:], [stride, padding, dilation], groups)
    of_bias = ops.sum(gradient, axis=(0, *range(2, gradient.ndim))) if wanted[2] else None
    return of_x, of_weight, of_bias
