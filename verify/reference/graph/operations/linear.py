"""Matrix products; all of them are the arithmetic's `matmul`."""

from __future__ import annotations

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import number, real
from verify.reference.graph.registry import register


@register("aten.mm.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default", "aten.matmul.default")
def matmul(ops: Arithmetic, x: Array, y: Array) -> Array:
    """`x` y"""
    if x.ndim == y.ndim == 1:
        return np.asarray(ops.matmul(x[None, :], y)[0], dtype=x.dtype)
    return ops.matmul(x, y)


def _combined(ops: Arithmetic, bias: Array, product: Array, beta: float, alpha: float) -> Array:
    if alpha != 1:
        product = ops.multiply(product, number(ops, alpha))
    if beta == 0:
        return product
    return ops.add(bias if beta == 1 else ops.multiply(real(ops, bias), number(ops, beta)), product)


@register("aten.addmm.default", "aten.baddbmm.default", "aten.addmv.default")
def add_matmul(ops: Arithmetic, bias: Array, x: Array, y: Array, beta: float = 1, alpha: float = 1) -> Array:
    """Beta b + alpha x y"""
    return _combined(ops, bias, ops.matmul(x, y), beta, alpha)


@register("aten.addbmm.default")
def add_sum_of_matmuls(ops: Arithmetic, bias: Array, x: Array, y: Array, beta: float = 1, alpha: float = 1) -> Array:
    """Beta b + alpha sum over the batch of x y"""
    return _combined(ops, bias, ops.sum(ops.matmul(x, y), axis=0), beta, alpha)


@register("aten.linear.default")
def linear(ops: Arithmetic, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """`x` W^T + b"""
    product = ops.matmul(x, weight.T)
    return product if bias is None else ops.add(product, bias)
