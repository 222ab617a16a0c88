"""The tape's layers and their VJPs as formulas in an arithmetic."""

from __future__ import annotations

import numpy as np

from verify.reference.arithmetic.protocol import Arithmetic, Array


def softplus(at: Arithmetic, x: Array) -> Array:
    """The smooth ramp log(1 + exp x) = max(x, 0) + log1p(exp(-|x|)), correct to rounding for every x."""
    zero = at.convert(0)
    return at.add(at.maximum(x, zero), at.log1p(at.exp(at.negative(at.absolute(x)))))


def sigmoid(at: Arithmetic, x: Array) -> Array:
    """1 / (1 + exp(-x)) for x >= 0 and exp(x) / (1 + exp(x)) below, so that nothing overflows."""
    one = at.convert(1)
    small = at.exp(at.negative(at.absolute(x)))
    return at.divide(at.where(at.less(x, at.convert(0)), small, one), at.add(one, small))


def softmax(at: Arithmetic, x: Array) -> Array:
    """Softmax, exp(x - max x) / sum(exp(x - max x)) over the last axis."""
    greatest = x[..., :1]
    for index in range(1, x.shape[-1]):
        greatest = at.maximum(greatest, x[..., index : index + 1])
    exponentials = at.exp(at.subtract(x, greatest))
    return at.divide(exponentials, at.sum(exponentials, axis=-1, keepdims=True))


def softmax_vjp(at: Arithmetic, y: Array, cotangent: Array) -> Array:
    """J^T g = y (g - <g, y>) with y = softmax(x)."""
    inner = at.sum(at.multiply(cotangent, y), axis=-1, keepdims=True)
    return at.multiply(y, at.subtract(cotangent, inner))


class Normalisation:
    """Normalised features h = (x - mean) / sqrt(var + eps) over the last axis, and its VJP.

    With r = 1/sqrt(var + eps) and m(.) the mean over the last axis, J^T g = r (g - m(g) - h m(g h)).

    Args:
        at: the arithmetic.
        x: array of rank 1 or more.
        eps: added to the variance (which is divided by the count, not the count less one).

    References:
        Ba, Kiros, Hinton, Layer Normalization, arXiv 1607.06450; Wu, He, Group Normalization, arXiv 1803.08494, eq. 1.
    """

    def __init__(self, at: Arithmetic, x: Array, eps: float) -> None:
        self._at = at
        self._count = at.convert(x.shape[-1])
        centred = at.subtract(x, self._mean(x))
        variance = self._mean(at.multiply(centred, centred))
        self._reciprocal = at.divide(at.convert(1), at.sqrt(at.add(variance, at.convert(eps))))
        self.value = at.multiply(centred, self._reciprocal)

    def _mean(self, x: Array) -> Array:
        return self._at.divide(self._at.sum(x, axis=-1, keepdims=True), self._count)

    def vjp(self, cotangent: Array) -> Array:
        """J^T cotangent."""
        at = self._at
        along = at.multiply(self.value, self._mean(at.multiply(cotangent, self.value)))
        return at.multiply(self._reciprocal, at.subtract(at.subtract(cotangent, self._mean(cotangent)), along))


def _patches(x: Array, size: int, zero: Array) -> Array:
    """The size x size neighbourhoods of every pixel of (..., C, H, W), as (..., C size^2, H W)."""
    margin, (height, width) = size // 2, x.shape[-2:]
    padded = np.empty((*x.shape[:-2], height + 2 * margin, width + 2 * margin), dtype=x.dtype)
    padded[...] = zero
    padded[..., margin : margin + height, margin : margin + width] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(-2, -1))
    # (..., C, H, W, size, size) -> (..., C, size, size, H, W)
    ordered = np.moveaxis(windows, (-2, -1), (-4, -3))
    return ordered.reshape(*x.shape[:-3], -1, height * width)


def convolve(at: Arithmetic, x: Array, weight: Array, lead: int, zero: Array) -> Array:
    """Cross-correlation as one matrix product of the unrolled patches; `lead` axes of weight are replicas."""
    outputs, size = weight.shape[lead], weight.shape[-1]
    matrix = weight.reshape((*weight.shape[:lead], *(1,) * lead, outputs, -1))
    result = at.matmul(matrix, _patches(x, size, zero))
    return result.reshape((*x.shape[:-3], outputs, *x.shape[-2:]))


def convolve_weight_vjp(
    at: Arithmetic, x: Array, cotangent: Array, shape: tuple[int, ...], lead: int, zero: Array
) -> Array:
    """Sum over batch and pixels of cotangent times patch: one matrix product, (out, batch pixels) by its patches."""
    patches = _patches(x, shape[-1], zero)
    left = np.swapaxes(cotangent.reshape((*cotangent.shape[:-2], -1)), lead, lead + 1)
    right = np.moveaxis(patches, -2, -1)
    left = left.reshape((*left.shape[: lead + 1], -1))
    right = right.reshape((*right.shape[:lead], -1, right.shape[-1]))
    return at.matmul(left, right).reshape(shape)


def solve(at: Arithmetic, matrix: Array, rows: Array) -> Array:
    """The rows x with x matrix^T = rows, over any leading axes that both have, by elimination without pivots.

    None is needed where the symmetric part of the matrix is positive definite.

    References:
        Golub, Van Loan, Matrix Computations, 4th ed. (2013), section 4.3.2.
    """
    size = matrix.shape[-1]
    left = [[matrix[..., i, j, None] for j in range(size)] for i in range(size)]
    right = [rows[..., i] for i in range(size)]
    for k in range(size):
        for i in range(k + 1, size):
            factor = at.divide(left[i][k], left[k][k])
            right[i] = at.subtract(right[i], at.multiply(factor, right[k]))
            left[i][k + 1 :] = [at.subtract(left[i][j], at.multiply(factor, left[k][j])) for j in range(k + 1, size)]
    found: list[Array] = [right[-1]] * size
    for i in reversed(range(size)):
        rest = right[i]
        for j in range(i + 1, size):
            rest = at.subtract(rest, at.multiply(left[i][j], found[j]))
        found[i] = at.divide(rest, left[i][i])
    return np.stack(found, axis=-1)
