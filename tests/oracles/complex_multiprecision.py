"""Multiprecision floating point in the complex plane, for derivatives by a complex step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Array, BoolArray


class ComplexMultiprecision(Multiprecision):
    """`Multiprecision` on mpc; what orders numbers looks at the real part, and |x| = sign(Re x) x.

    With `f'(x) v = Im f(x + i h v) / h + O(h^2)` and h = 10^-digits a derivative is right to all digits, without the
    cancellation of a difference.

    References:
        W. Squire and G. Trapp, Using complex variables to estimate derivatives of real functions, SIAM Rev. 40 (1998),
        doi:10.1137/S003614459631241X.
    """

    @property
    def name(self) -> str:
        """The arithmetic and its precision."""
        return f"mpmath, complex, {self.digits} digits"

    def _convert_element(self, value: Any) -> Any:
        if isinstance(value, self.context.mpc):
            return value
        return self.context.mpc(super()._convert_element(value), 0)

    def complex(self, real: Array, imaginary: Array) -> Array:
        """Arrays of mpf as the parts of complex numbers."""
        return np.asarray(np.frompyfunc(self.context.mpc, 2, 1)(real, imaginary), dtype=object)

    def imaginary(self, x: Array) -> Array:
        """The imaginary parts."""
        return np.asarray(np.frompyfunc(lambda value: value.imag, 1, 1)(x), dtype=object)

    def real(self, x: Array) -> Array:
        """The real parts."""
        return np.asarray(np.frompyfunc(lambda value: value.real, 1, 1)(x), dtype=object)

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of every real part."""
        return self.real(x).astype(np.float64)

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent on the principal branch."""
        wanted: Any = int(exponent) if float(exponent).is_integer() else self.context.mpf(exponent)
        return np.asarray(np.frompyfunc(lambda value: self.context.power(value, wanted), 1, 1)(x), dtype=object)

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b."""
        return np.asarray(np.true_divide(a, b), dtype=object)

    def log(self, x: Array) -> Array:
        """The principal branch of the logarithm."""
        return self._log(x)

    def log1p(self, x: Array) -> Array:
        """log(1 + x), principal branch."""
        return self._log1p(x)

    def sqrt(self, x: Array) -> Array:
        """The principal branch of the square root."""
        return self._sqrt(x)

    def absolute(self, x: Array) -> Array:
        """sign(Re x) x."""
        return self.where(np.asarray(self.real(x) < 0, dtype=np.bool_), self.negative(x), x)

    def maximum(self, a: Array, b: Array) -> Array:
        """The one with the greater real part, the first of equals."""
        return self.where(self.less(a, b), b, a)

    def minimum(self, a: Array, b: Array) -> Array:
        """The one with the lesser real part, the first of equals."""
        return self.where(self.less(b, a), b, a)

    def less(self, a: Array, b: Array) -> BoolArray:
        """Re a < Re b."""
        return super().less(self.real(a), self.real(b))

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Re a <= Re b."""
        return super().less_equal(self.real(a), self.real(b))
