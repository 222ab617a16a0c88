"""Layer, group, batch and weight normalisation."""

from __future__ import annotations

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import constant, number
from verify.reference.graph.operations.reduction import mean_and_variance
from verify.reference.graph.registry import register


def _inverse_root(ops: Arithmetic, variance: Array, eps: float) -> Array:
    return ops.divide(number(ops, 1.0), ops.sqrt(ops.add(variance, number(ops, eps))))


def _scaled(ops: Arithmetic, x: Array, weight: Array | None, bias: Array | None) -> Array:
    x = x if weight is None else ops.multiply(x, weight)
    return x if bias is None else ops.add(x, bias)


@register("aten.native_layer_norm.default")
def layer_norm(
    ops: Arithmetic, x: Array, normalized: list[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + eps) over the last axes, scaled; with the mean and 1 / sqrt(var + eps)"""
    axes = tuple(range(x.ndim - len(normalized), x.ndim))
    middle, variance = mean_and_variance(ops, x, axes, 0)
    root = _inverse_root(ops, variance, eps)
    return _scaled(ops, ops.multiply(ops.subtract(x, middle), root), weight, bias), middle, root


@register("aten.native_group_norm.default")
def group_norm(
    ops: Arithmetic,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    batch: int,
    channels: int,
    places: int,
    groups: int,
    eps: float,
) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + eps) over groups of channels, scaled; with the mean and 1 / sqrt(var + eps)"""
    grouped = x.reshape(batch, groups, channels // groups * places)
    middle, variance = mean_and_variance(ops, grouped, (2,), 0)
    root = _inverse_root(ops, variance, eps)
    normal = ops.multiply(ops.subtract(grouped, middle), root).reshape(batch, channels, places)
    weight = None if weight is None else weight.reshape(1, channels, 1)
    bias = None if bias is None else bias.reshape(1, channels, 1)
    return _scaled(ops, normal, weight, bias).reshape(x.shape), middle[..., 0], root[..., 0]


def _by_channel(x: Array, rank: int) -> Array:
    return x.reshape(1, -1, *(1,) * (rank - 2))


@register("aten._native_batch_norm_legit_no_training.default")
def batch_norm_inference(
    ops: Arithmetic,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_variance: Array,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """(x - running mean) / sqrt(running var + eps) for each channel, scaled; the statistics are empty"""
    del momentum
    root = _by_channel(_inverse_root(ops, running_variance, eps), x.ndim)
    normal = ops.multiply(ops.subtract(x, _by_channel(running_mean, x.ndim)), root)
    weight = None if weight is None else _by_channel(weight, x.ndim)
    bias = None if bias is None else _by_channel(bias, x.ndim)
    return _scaled(ops, normal, weight, bias), constant(ops, (0,), 0.0), constant(ops, (0,), 0.0)


@register("aten.native_batch_norm.default", "aten._native_batch_norm_legit.default")
def batch_norm(
    ops: Arithmetic,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_variance: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Batch norm by the running statistics, or by the batch's own where training is set"""
    if not training and running_mean is not None and running_variance is not None:
        return batch_norm_inference(ops, x, weight, bias, running_mean, running_variance, momentum, eps)
    middle, variance = mean_and_variance(ops, x, (0, *range(2, x.ndim)), 0)
    root = _inverse_root(ops, variance, eps)
    weight = None if weight is None else _by_channel(weight, x.ndim)
    bias = None if bias is None else _by_channel(bias, x.ndim)
    normal = _scaled(ops, ops.multiply(ops.subtract(x, middle), root), weight, bias)
    return normal, middle.reshape(-1), root.reshape(-1)


def _norm_but(ops: Arithmetic, x: Array, dim: int) -> Array:
    axes = tuple(axis for axis in range(x.ndim) if axis != dim % x.ndim)
    return ops.sqrt(ops.sum(ops.power(x, 2), axis=axes, keepdims=True))


@register("aten._weight_norm_interface.default")
def weight_norm(ops: Arithmetic, direction: Array, size: Array, dim: int = 0) -> tuple[Array, Array]:
    """G v / |v|, the norm over all axes but one; with the norm"""
    norm = _norm_but(ops, direction, dim)
    return ops.multiply(direction, ops.divide(size, norm)), norm


@register("aten._weight_norm_interface_backward.default")
def weight_norm_backward(
    ops: Arithmetic, gradient: Array, direction: Array, size: Array, norm: Array, dim: int
) -> tuple[Array, Array]:
    """The gradients by v, (g / |v|) (dw - v <v, dw> / |v|^2), and by g, <v, dw> / |v|"""
    axes = tuple(axis for axis in range(direction.ndim) if axis != dim % direction.ndim)
    inner = ops.sum(ops.multiply(direction, gradient), axis=axes, keepdims=True)
    along = ops.multiply(direction, ops.divide(inner, ops.power(norm, 2)))
    of_direction = ops.multiply(ops.divide(size, norm), ops.subtract(gradient, along))
    return of_direction, np.asarray(ops.divide(inner, norm), dtype=direction.dtype)
