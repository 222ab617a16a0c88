"""Fourier transforms: products with exact cosines and sines; and how complex numbers are made and taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.complex_numbers import Complex, as_complex
from verify.reference.graph.operations.numbers import number, pi, real
from verify.reference.graph.registry import register


def _turns(ops: Arithmetic, rows: int, columns: int, length: int) -> tuple[Array, Array]:
    """Cos and sin of 2 pi j k / length; multiples of a quarter turn exactly."""
    steps = np.outer(np.arange(rows), np.arange(columns)) % length
    angle = ops.multiply(pi(ops), ops.divide(ops.convert(2 * steps), number(ops, float(length))))
    quarters, exact = 4 * steps // length, (4 * steps) % length == 0
    cosines = ops.convert(np.array([1, 0, -1, 0])[quarters])
    sines = ops.convert(np.array([0, 1, 0, -1])[quarters])
    return np.where(exact, cosines, ops.cos(angle)), np.where(exact, sines, ops.sin(angle))


def _times(ops: Arithmetic, x: Array, matrix: Array, axis: int) -> Array:
    moved = np.moveaxis(x, axis, -1)
    rows = ops.matmul(np.ascontiguousarray(moved).reshape(-1, moved.shape[-1]), matrix)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(*moved.shape[:-1], -1), -1, axis))


def _transformed(ops: Arithmetic, x: Complex, axis: int, forward: bool) -> Complex:
    length = x.shape[axis]
    cosines, sines = _turns(ops, length, length, length)
    sines = ops.negative(sines) if forward else sines
    return Complex(
        ops.subtract(_times(ops, x.real, cosines, axis), _times(ops, x.imaginary, sines, axis)),
        ops.add(_times(ops, x.real, sines, axis), _times(ops, x.imaginary, cosines, axis)),
    )


def _norm(ops: Arithmetic, count: int, normalization: int) -> Array:
    whole = number(ops, float(count))
    return {0: number(ops, 1.0), 1: ops.sqrt(whole), 2: whole}[normalization]


def _divided(ops: Arithmetic, x: Complex, count: int, normalization: int) -> Complex:
    if normalization == 0:
        return x
    size = _norm(ops, count, normalization)
    return Complex(ops.divide(x.real, size), ops.divide(x.imaginary, size))


@register("aten._fft_c2c.default")
def complex_to_complex(ops: Arithmetic, x: Any, dim: list[int], normalization: int, forward: bool) -> Complex:
    """The discrete Fourier transform along axes, or its inverse without the factor"""
    x = as_complex(ops, x)
    count = 1
    for axis in dim:
        count *= x.shape[axis]
        x = _transformed(ops, x, axis, forward)
    return _divided(ops, x, count, normalization)


@register("aten._fft_r2c.default")
def real_to_complex(ops: Arithmetic, x: Array, dim: list[int], normalization: int, onesided: bool) -> Complex:
    """The discrete Fourier transform of real numbers; half of the last axis, as the rest is conjugate"""
    x = real(ops, x)
    last = dim[-1] % x.ndim
    length = x.shape[last]
    cosines, sines = _turns(ops, length, length // 2 + 1 if onesided else length, length)
    found = Complex(_times(ops, x, cosines, last), ops.negative(_times(ops, x, sines, last)))
    for axis in dim[:-1]:
        found = _transformed(ops, found, axis, True)
    return _divided(ops, found, int(np.prod([x.shape[axis] for axis in dim])), normalization)


@register("aten._fft_c2r.default")
def complex_to_real(ops: Arithmetic, x: Any, dim: list[int], normalization: int, length: int) -> Array:
    """The inverse transform of half a spectrum, real"""
    x = as_complex(ops, x)
    for axis in dim[:-1]:
        x = _transformed(ops, x, axis, False)
    last = dim[-1] % x.real.ndim
    rows = length // 2 + 1
    kept = (*(slice(None),) * last, slice(0, rows))
    cosines, sines = _turns(ops, rows, length, length)
    twice = np.full((rows, 1), 2)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    weights = ops.convert(twice)
    whole = ops.subtract(
        _times(ops, x.real[kept], ops.multiply(weights, cosines), last),
        _times(ops, x.imaginary[kept], ops.multiply(weights, sines), last),
    )
    count = length * int(np.prod([x.shape[axis] for axis in dim[:-1]]))
    return ops.divide(whole, _norm(ops, count, normalization))


@register("aten.complex.default")
def joined(ops: Arithmetic, x: Array, y: Array) -> Complex:
    """`x` + i y"""
    return Complex(*np.broadcast_arrays(real(ops, x), real(ops, y)))


@register("aten.polar.default")
def polar(ops: Arithmetic, size: Array, angle: Array) -> Complex:
    """Size times (cos angle + i sin angle)"""
    return Complex(ops.multiply(size, ops.cos(angle)), ops.multiply(size, ops.sin(angle)))


@register("aten.view_as_complex.default", "aten.view_as_complex_copy.default")
def paired(ops: Arithmetic, x: Array) -> Complex:
    """The pairs of the last axis as complex numbers"""
    del ops
    return Complex(np.ascontiguousarray(x[..., 0]), np.ascontiguousarray(x[..., 1]))


@register(
    "aten._conj.default",
    "aten._conj_copy.default",
    "aten._conj_physical.default",
    "aten.conj_physical.default",
    "aten.conj.default",
)
def conjugate(ops: Arithmetic, x: Array) -> Array:
    """The conjugate; a real number itself"""
    del ops
    return x


@register("aten.view_as_real.default", "aten.view_as_real_copy.default")
def taken_apart(ops: Arithmetic, x: Array) -> Array:
    """Real and imaginary part along a new last axis"""
    return np.stack([x, real(ops, np.zeros(x.shape))], axis=-1)


@register("aten.real.default")
def real_part(ops: Arithmetic, x: Array) -> Array:
    """The real part"""
    del ops
    return x


@register("aten.imag.default")
def imaginary_part(ops: Arithmetic, x: Array) -> Array:
    """The imaginary part"""
    return real(ops, np.zeros(x.shape))
