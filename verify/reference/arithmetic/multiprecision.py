"""Multiprecision floating point on object arrays of mpmath's mpf, in a context of its own."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import mpmath
import numpy as np
from mpmath.libmp import from_float, from_int
from numpy.typing import NDArray

from verify.reference.arithmetic.protocol import Array, BoolArray


def _object_array(x: Any) -> Array:
    """An object array, also where numpy returned the bare element of a 0-d result."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        return x
    result = np.empty((), dtype=object)
    result[()] = x
    return result


class Multiprecision:
    """Round-to-nearest floating point with `digits` significant decimal digits.

    The context is an `mpmath.MPContext` of this object alone, so `mpmath.mp` is neither read nor changed, and two
    objects of different precision work side by side.

    Args:
        digits: significant decimal digits, at least 1.
        strict: whether leaving a domain (log of 0, sqrt of -1, division by 0) raises, as a reference must, or gives
            NaN, as a carrier of simulated hardware must.

    Raises:
        TypeError: digits is not an int.
        ValueError: digits < 1.

    References:
        mpmath 1.3, "Contexts": https://mpmath.org/doc/current/contexts.html
    """

    def __init__(self, digits: int, *, strict: bool = True) -> None:
        if isinstance(digits, bool) or not isinstance(digits, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"digits is {digits!r}; it must be an int, the number of significant decimal digits")
        if digits < 1:
            raise ValueError(f"digits is {digits}; it must be at least 1 (50 is the harness's usual choice)")
        self.digits = digits
        self.strict = strict
        self.context: Any = mpmath.MPContext()
        self.context.dps = digits
        self._exp = self._elementwise(self.context.exp)
        self._expm1 = self._elementwise(self.context.expm1)
        self._log = self._elementwise(self.context.ln)
        self._log1p = self._elementwise(self.context.log1p)
        self._sqrt = self._elementwise(self.context.sqrt)
        self._sin = self._elementwise(self.context.sin)
        self._cos = self._elementwise(self.context.cos)
        self._tanh = self._elementwise(self.context.tanh)
        self._atan = self._elementwise(self.context.atan)
        self._erf = self._elementwise(self.context.erf)
        self._element = np.frompyfunc(self._convert_element, 1, 1)

    @staticmethod
    def _elementwise(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
        ufunc = np.frompyfunc(function, 1, 1)
        return lambda x: _object_array(ufunc(x))

    def _convert_element(self, value: Any) -> Any:
        make = self.context.make_mpf
        if hasattr(value, "_mpf_"):
            return make(value._mpf_)
        if isinstance(value, Integral):
            return make(from_int(int(value)))
        if getattr(value, "dtype", None) == np.longdouble:
            high = float(value)
            return self.context.mpf(high) + self.context.mpf(float(value - np.longdouble(high)))
        return make(from_float(float(value)))

    @property
    def name(self) -> str:
        """The arithmetic and its precision."""
        return f"mpmath, {self.digits} digits"

    def convert(self, values: Any) -> Array:
        """Float64, integer, bool or mpf values as elements of this context, not rounded."""
        with np.errstate(invalid="ignore"):  # NaN stays NaN and is no accident here
            return _object_array(self._element(np.asarray(values)))

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64."""
        with np.errstate(invalid="ignore", over="ignore"):
            return x.astype(np.float64)

    def rounded(self, x: Array) -> Array:
        """The array itself: every result is rounded to the working precision already."""
        return x

    def add(self, a: Array, b: Array) -> Array:
        """Elementwise a + b."""
        return _object_array(np.add(a, b))

    def subtract(self, a: Array, b: Array) -> Array:
        """Elementwise a - b."""
        return _object_array(np.subtract(a, b))

    def multiply(self, a: Array, b: Array) -> Array:
        """Elementwise a b."""
        return _object_array(np.multiply(a, b))

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b; b = 0 raises ValueError or gives NaN."""
        return _object_array(np.true_divide(a, self._within(b, b != 0, "division by zero")))

    def negative(self, x: Array) -> Array:
        """-x."""
        return _object_array(np.negative(x))

    def absolute(self, x: Array) -> Array:
        """|x|."""
        return _object_array(np.absolute(x))

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent; where the result is not real it raises ValueError or gives NaN."""
        wanted: Any = exponent if isinstance(exponent, int) else self.context.mpf(exponent)
        result = self._elementwise(lambda value: self.context.power(value, wanted))(x)
        complex_ones = np.array([isinstance(value, self.context.mpc) for value in result.flat]).reshape(result.shape)
        if not complex_ones.any():
            return result
        if self.strict:
            raise ValueError(f"a negative number to the power {exponent} is not real; take an integer exponent")
        return np.where(complex_ones, self.context.nan, result)

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product; every inner product is summed exactly and rounded once (mpmath's fdot)."""
        left, right = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        rows = np.broadcast_to(left, batch + left.shape[-2:]).reshape(-1, *left.shape[-2:])
        columns = np.broadcast_to(np.swapaxes(right, -1, -2), batch + right.shape[:-3:-1])
        columns = columns.reshape(-1, *columns.shape[-2:])
        fdot = self.context.fdot
        result = np.empty((len(rows), rows.shape[1], columns.shape[1]), dtype=object)
        for index in range(len(rows)):
            row_lists, column_lists = rows[index].tolist(), columns[index].tolist()
            for i, row in enumerate(row_lists):
                for j, column in enumerate(column_lists):
                    result[index, i, j] = fdot(row, column)
        result = result.reshape(*batch, left.shape[-2], right.shape[-1])
        if a.ndim == 1:
            result = result[..., 0, :]
        return result[..., 0] if b.ndim == 1 else result

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum over the axes, in order; an empty sum is zero."""
        return _object_array(np.sum(x, axis=axis, keepdims=keepdims, initial=self.context.zero))

    def exp(self, x: Array) -> Array:
        """Elementwise exp x."""
        return self._exp(x)

    def expm1(self, x: Array) -> Array:
        """Elementwise exp(x) - 1."""
        return self._expm1(x)

    def log(self, x: Array) -> Array:
        """The natural logarithm; outside (0, inf) it raises ValueError or gives NaN."""
        return self._log(self._within(x, x > 0, "log of a number that is not positive"))

    def log1p(self, x: Array) -> Array:
        """The logarithm of 1 + x; outside (-1, inf) it raises ValueError or gives NaN."""
        return self._log1p(self._within(x, x > -1, "log1p of a number that is not above -1"))

    def sqrt(self, x: Array) -> Array:
        """The square root; outside [0, inf) it raises ValueError or gives NaN."""
        return self._sqrt(self._within(x, x >= 0, "sqrt of a negative number"))

    def _within(self, x: Array, allowed: Any, what: str) -> Array:
        """The array where it is within the domain and NaN elsewhere, which a strict arithmetic refuses."""
        inside = np.asarray(allowed, dtype=np.bool_)
        if inside.all():
            return x
        if self.strict:
            raise ValueError(f"{what}; the problem has left its domain")
        return np.where(inside, x, self.context.nan)

    def sin(self, x: Array) -> Array:
        """Elementwise sin x."""
        return self._sin(x)

    def cos(self, x: Array) -> Array:
        """Elementwise cos x."""
        return self._cos(x)

    def tanh(self, x: Array) -> Array:
        """Elementwise tanh x."""
        return self._tanh(x)

    def atan(self, x: Array) -> Array:
        """The arc tangent, in radians."""
        return self._atan(x)

    def erf(self, x: Array) -> Array:
        """The error function."""
        return self._erf(x)

    def special(self, name: str, x: Array) -> Array:
        """Lgamma (for x > 0), digamma or erfinv, elementwise."""
        return self._elementwise(getattr(self.context, {"lgamma": "loggamma"}.get(name, name)))(x)

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two."""
        return _object_array(np.maximum(a, b))

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two."""
        return _object_array(np.minimum(a, b))

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b."""
        return np.asarray(np.less(a, b), dtype=np.bool_)

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b."""
        return np.asarray(np.less_equal(a, b), dtype=np.bool_)

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere."""
        return np.where(condition, a, b)
