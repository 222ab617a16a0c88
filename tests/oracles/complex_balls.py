"""Balls in the complex plane, for derivatives by a complex step and for eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import acb, acb_mat
from numpy.typing import NDArray

from verify.reference.arithmetic.balls import Balls, filled
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.arithmetic.protocol import Array


class ComplexBalls(Balls):
    """`Balls` of complex numbers, x + i y with a ball for either part.

    What orders numbers looks at the real part: comparisons, maximum, minimum, and |x| = sign(Re x) x. With that a
    function of real numbers is continued from either side of its kinks, as the complex step needs:
    `f'(x) v = Im f(x + i h v) / h + O(h^2)`.

    References:
        W. Squire and G. Trapp, Using complex variables to estimate derivatives of real functions, SIAM Rev. 40 (1998),
        doi:10.1137/S003614459631241X.
    """

    _element: Any = acb
    _matrix: Any = acb_mat

    @property
    def name(self) -> str:
        """The arithmetic and its precision."""
        return f"complex balls, {self.bits} bits"

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of the midpoint of every real part."""
        return np.array([float(value.real) for value in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)

    def complex(self, real: Array, imaginary: Array) -> Array:
        """Arrays of balls as the parts of complex ones."""
        left, right = np.broadcast_arrays(real, imaginary)
        pairs = zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
        return filled([acb(x, y) for x, y in pairs], left.shape)

    def imaginary(self, x: Array) -> Array:
        """The imaginary parts, as real balls."""
        return filled([value.imag for value in x.ravel().tolist()], x.shape)

    def _real(self, value: Any) -> Any:
        return value.real

    def absolute(self, x: Array) -> Array:
        """sign(Re x) x; raises `Undecided` where the sign of the real part is not clear."""
        return self.where(self.less(x, self.convert(np.zeros(()))), self.negative(x), x)

    def maximum(self, a: Array, b: Array) -> Array:
        """The one with the greater real part; raises `Undecided` where that is not clear."""
        with flint_precision(self.bits):
            return self.where(self.less(a, b), *np.broadcast_arrays(b, a))

    def minimum(self, a: Array, b: Array) -> Array:
        """The one with the lesser real part; raises `Undecided` where that is not clear."""
        with flint_precision(self.bits):
            return self.where(self.less(b, a), *np.broadcast_arrays(b, a))
