"""Numpy's longdouble as an arithmetic: the carrier of the perturbed one where it is wider than float64."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.protocol import Array, BoolArray


EXTENDED_ROUNDOFF = float(np.finfo(np.longdouble).eps) / 2
"""Unit roundoff of longdouble on this machine: 2^-64 on x86, 2^-113 where it is quadruple, 2^-53 where it is double."""


class Extended:
    """Longdouble arithmetic; overflow gives inf and leaving a domain gives NaN, silently, as hardware does."""

    def __init__(self) -> None:
        self._context: Any = mpmath.MPContext()
        self._context.prec = 128
        self._erf_element = np.frompyfunc(self._erf_longdouble, 1, 1)

    def _erf_longdouble(self, x: np.longdouble) -> np.longdouble:
        high = float(x)
        value = self._context.erf(self._context.mpf(high) + self._context.mpf(float(x - np.longdouble(high))))
        leading = float(value)
        return np.longdouble(leading) + np.longdouble(float(value - leading))

    @property
    def name(self) -> str:
        """The arithmetic and its precision."""
        return f"longdouble, unit roundoff {EXTENDED_ROUNDOFF:.3g}"

    def convert(self, values: Any) -> Array:
        """Float64, integer or bool values as longdouble."""
        return np.asarray(values).astype(np.longdouble)

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64."""
        with np.errstate(over="ignore"):
            return x.astype(np.float64)

    def rounded(self, x: Array) -> Array:
        """The array itself."""
        return x

    def add(self, a: Array, b: Array) -> Array:
        """Elementwise a + b."""
        with np.errstate(all="ignore"):
            return np.add(a, b)

    def subtract(self, a: Array, b: Array) -> Array:
        """Elementwise a - b."""
        with np.errstate(all="ignore"):
            return np.subtract(a, b)

    def multiply(self, a: Array, b: Array) -> Array:
        """Elementwise a b."""
        with np.errstate(all="ignore"):
            return np.multiply(a, b)

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b."""
        with np.errstate(all="ignore"):
            return np.divide(a, b)

    def negative(self, x: Array) -> Array:
        """-x."""
        return np.negative(x)

    def absolute(self, x: Array) -> Array:
        """|x|."""
        return np.absolute(x)

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent."""
        with np.errstate(all="ignore"):
            return np.power(x, np.longdouble(exponent))

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product of the last two axes."""
        with np.errstate(all="ignore"):
            return np.matmul(a, b)

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum over the axes."""
        with np.errstate(all="ignore"):
            return np.asarray(np.sum(x, axis=axis, keepdims=keepdims))

    def exp(self, x: Array) -> Array:
        """Elementwise exp x."""
        with np.errstate(all="ignore"):
            return np.exp(x)

    def expm1(self, x: Array) -> Array:
        """Elementwise exp(x) - 1."""
        with np.errstate(all="ignore"):
            return np.expm1(x)

    def log(self, x: Array) -> Array:
        """The natural logarithm."""
        with np.errstate(all="ignore"):
            return np.log(x)

    def log1p(self, x: Array) -> Array:
        """log(1 + x)."""
        with np.errstate(all="ignore"):
            return np.log1p(x)

    def sqrt(self, x: Array) -> Array:
        """The square root."""
        with np.errstate(all="ignore"):
            return np.sqrt(x)

    def sin(self, x: Array) -> Array:
        """Elementwise sin x."""
        with np.errstate(all="ignore"):
            return np.sin(x)

    def cos(self, x: Array) -> Array:
        """Elementwise cos x."""
        with np.errstate(all="ignore"):
            return np.cos(x)

    def tanh(self, x: Array) -> Array:
        """Elementwise tanh x."""
        with np.errstate(all="ignore"):
            return np.tanh(x)

    def atan(self, x: Array) -> Array:
        """The arc tangent, in radians."""
        return np.arctan(x)

    def special(self, name: str, x: Array) -> Array:
        """Lgamma (for x > 0), digamma or erfinv (of mpmath, element by element, to float64)."""
        function = getattr(self._context, {"lgamma": "loggamma"}.get(name, name))
        return np.asarray(np.frompyfunc(lambda value: float(function(float(value)).real), 1, 1)(x)).astype(
            np.longdouble
        )

    def erf(self, x: Array) -> Array:
        """The error function (of 128-bit mpmath, element by element)."""
        return np.asarray(self._erf_element(x)).astype(np.longdouble)

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two."""
        return np.maximum(a, b)

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two."""
        return np.minimum(a, b)

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.less(a, b), dtype=np.bool_)

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.less_equal(a, b), dtype=np.bool_)

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere."""
        return np.where(condition, a, b)
