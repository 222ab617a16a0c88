"""What an arithmetic of the reference offers: numpy's names, on arrays whose elements it understands itself."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray


Array: TypeAlias = NDArray[Any]
"""A numpy array of the arithmetic's own elements: object dtype for mpf, arb and acb, longdouble for the perturbed."""

BoolArray: TypeAlias = NDArray[np.bool_]


class Undecided(ArithmeticError):
    """A comparison that the enclosures cannot decide: raise the precision, or answer that it is undecided."""


@runtime_checkable
class Arithmetic(Protocol):
    """Elementary operations, elementwise with numpy's broadcasting.

    Shape operations (reshape, transpose, indexing, concatenate, broadcast) are numpy's own on every array. Every array
    that goes into an operation was made by `convert` of the same object or came out of one of its operations. The
    working precision belongs to the object; no operation leaves a global precision changed behind it.
    """

    @property
    def name(self) -> str:
        """The arithmetic and its precision in a few words, for a report."""
        ...

    def convert(self, values: Any) -> Array:
        """The numbers of a float64, integer or bool numpy array (or of one number), exactly."""
        ...

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of every element (of the midpoint, for an enclosure)."""
        ...

    def rounded(self, x: Array) -> Array:
        """The array as this arithmetic would store it: the identity wherever results are rounded already."""
        ...

    def add(self, a: Array, b: Array) -> Array:
        """Elementwise a + b."""
        ...

    def subtract(self, a: Array, b: Array) -> Array:
        """Elementwise a - b."""
        ...

    def multiply(self, a: Array, b: Array) -> Array:
        """Elementwise a b."""
        ...

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b."""
        ...

    def negative(self, x: Array) -> Array:
        """-x, without rounding."""
        ...

    def absolute(self, x: Array) -> Array:
        """|x|, without rounding."""
        ...

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent for one real exponent."""
        ...

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product of the last two axes, with numpy's rules for the others."""
        ...

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum over the axes."""
        ...

    def exp(self, x: Array) -> Array:
        """Elementwise exp x."""
        ...

    def expm1(self, x: Array) -> Array:
        """Elementwise exp(x) - 1."""
        ...

    def log(self, x: Array) -> Array:
        """The natural logarithm."""
        ...

    def log1p(self, x: Array) -> Array:
        """log(1 + x)."""
        ...

    def sqrt(self, x: Array) -> Array:
        """The square root."""
        ...

    def sin(self, x: Array) -> Array:
        """Elementwise sin x, x in radians."""
        ...

    def cos(self, x: Array) -> Array:
        """Elementwise cos x, x in radians."""
        ...

    def tanh(self, x: Array) -> Array:
        """Elementwise tanh x."""
        ...

    def atan(self, x: Array) -> Array:
        """The arc tangent, in radians."""
        ...

    def erf(self, x: Array) -> Array:
        """The error function."""
        ...

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two, without rounding."""
        ...

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two, without rounding."""
        ...

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b; raises `Undecided` where enclosures overlap."""
        ...

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b; raises `Undecided` where enclosures overlap."""
        ...

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere."""
        ...
