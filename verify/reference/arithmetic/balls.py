"""Ball arithmetic on object arrays of python-flint's arb: every result encloses the true value."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from verify.reference.arithmetic.precision import checked_bits, flint_precision
from verify.reference.arithmetic.protocol import Array, BoolArray, Undecided


def object_array(x: Any) -> Array:
    """An object array, also where numpy returned the bare element of a 0-d result."""
    if isinstance(x, np.ndarray) and x.dtype == object:
        return x
    result = np.empty((), dtype=object)
    result[()] = x
    return result


def filled(elements: Iterable[Any], shape: tuple[int, ...]) -> Array:
    """An object array of that shape with the elements in row-major order."""
    flat = np.fromiter(elements, dtype=object, count=math.prod(shape))
    if len(shape) == 1:
        return flat
    # Memory of its own and no view, so that marking the result read-only is enough to keep it as it is.
    result = np.empty(shape, dtype=object)
    result.reshape(-1)[:] = flat
    return result


@dataclass
class _Kept:
    """The matrices made of one piece of memory, by place, shape and strides; gone when the memory is."""

    owner: weakref.ref[Array]
    matrices: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Any] = field(default_factory=dict[Any, Any])


class Balls:
    """Midpoint-radius arithmetic: x is represented by [m - r, m + r], and every operation rounds outwards.

    The precision is this object's; python-flint's global one is set for the length of an operation and given back.
    Matrix products go to `arb_mat`, and the matrix made of an array that is marked read-only is kept for as long as
    its memory lives, so a weight is converted once, and a transpose of it not at all. One element object stands for one
    number, wherever copies of it are: comparing an element with itself is decided, however wide its ball.

    Args:
        bits: working precision of the midpoints.

    Raises:
        TypeError: bits is not an int.
        ValueError: bits < 2.

    References:
        F. Johansson, Arb: efficient arbitrary-precision midpoint-radius interval arithmetic, IEEE Trans. Comput. 66
        (2017), doi:10.1109/TC.2017.2690633.
    """

    def __init__(self, bits: int) -> None:
        self.bits = checked_bits(bits)
        self.ties = 0
        """Comparisons so far that were decided between two equal exact numbers (a kink met exactly)."""
        self._matrices: dict[int, _Kept] = {}

    _element: Any = arb
    _matrix: Any = arb_mat

    @property
    def name(self) -> str:
        """The arithmetic and its precision."""
        return f"balls, {self.bits} bits"

    def _map(self, function: Callable[[Any], Any], x: Array) -> Array:
        with flint_precision(self.bits):
            return filled(map(function, x.ravel().tolist()), x.shape)

    def convert(self, values: Any) -> Array:
        """Float64, integer, bool or ball values as balls; floats and integers become exact ones.

        Raises:
            TypeError: an element is none of these.
        """
        array = np.asarray(values)
        if array.dtype.kind in "biu":
            return filled([self._element(int(value)) for value in array.ravel().tolist()], array.shape)
        # A float64 is a dyadic number: its ball has radius 0, whatever the working precision.
        if array.dtype == np.float64:
            return filled([self._element(value) for value in array.ravel().tolist()], array.shape)
        return filled([self._convert_element(value) for value in array.ravel().tolist()], array.shape)

    def _convert_element(self, value: Any) -> Any:
        if isinstance(value, (self._element, float, arb)):
            return self._element(value)
        if isinstance(value, Integral):
            return self._element(int(value))
        raise TypeError(f"{value!r} of type {type(value).__name__} has no exact ball; give float64, integers or bools")

    def pi(self) -> Array:
        """The circle's number, as a 0-d array."""
        with flint_precision(self.bits):
            return object_array(self._element(arb.pi()))

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of every midpoint."""
        return np.array([float(value) for value in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)

    def rounded(self, x: Array) -> Array:
        """The array itself: every result is rounded to the working precision already."""
        return x

    def add(self, a: Array, b: Array) -> Array:
        """Elementwise a + b."""
        # numpy calls the elements' own operators: the midpoint is rounded, and what that cost goes into the radius.
        with flint_precision(self.bits):
            return object_array(np.add(a, b))

    def subtract(self, a: Array, b: Array) -> Array:
        """Elementwise a - b."""
        with flint_precision(self.bits):
            return object_array(np.subtract(a, b))

    def multiply(self, a: Array, b: Array) -> Array:
        """Elementwise a b."""
        with flint_precision(self.bits):
            return object_array(np.multiply(a, b))

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b; the whole line or NaN where b may be 0."""
        with flint_precision(self.bits):
            return object_array(np.true_divide(a, b))

    def negative(self, x: Array) -> Array:
        """-x, exact for what this arithmetic has rounded."""
        with flint_precision(self.bits):
            return object_array(np.negative(x))

    def absolute(self, x: Array) -> Array:
        """|x|."""
        with flint_precision(self.bits):
            return object_array(np.absolute(x))

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent: integers and halves by products and roots, others by exp(exponent log x)."""
        if float(exponent).is_integer():
            return self._map(lambda value: _integer_power(value, int(exponent)), x)
        # A root is defined at 0, where a logarithm is not.
        if float(2 * exponent).is_integer():
            return self._map(lambda value: _integer_power(value.sqrt(), int(2 * exponent)), x)
        wanted = self._element(float(exponent))
        return self._map(lambda value: value**wanted, x)

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product of the last two axes by arb_mat; an outer product needs no sums and goes by elements."""
        left, right = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        with flint_precision(self.bits):
            if left.shape[-1] == right.shape[-2] == 1:
                result = np.multiply(left, right)
            elif left.ndim == 2 and right.ndim == 2:
                result = self._product(left, right)
            else:
                batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
                lefts = np.broadcast_to(left, batch + left.shape[-2:]).reshape(-1, *left.shape[-2:])
                rights = np.broadcast_to(right, batch + right.shape[-2:]).reshape(-1, *right.shape[-2:])
                result = np.empty((len(lefts), left.shape[-2], right.shape[-1]), dtype=object)
                for index in range(len(lefts)):
                    result[index] = self._product(lefts[index], rights[index])
                result = result.reshape(*batch, left.shape[-2], right.shape[-1])
        if a.ndim == 1:
            result = result[..., 0, :]
        return object_array(result[..., 0] if b.ndim == 1 else result)

    def _product(self, a: Array, b: Array) -> Array:
        product = self.matrix(a) * self.matrix(b)
        return filled(product.entries(), (a.shape[0], b.shape[1]))

    def matrix_exponential(self, x: Array) -> Array:
        """The exponential of a square matrix."""
        with flint_precision(self.bits):
            return filled(self._new_matrix(x).exp().entries(), x.shape)

    def matrix(self, x: Array) -> Any:
        """The array of shape (m, n) as a python-flint matrix; kept while a read-only array's memory lives."""
        kept = self._kept(x)
        if kept is None:
            return self._new_matrix(x)
        # Two views of one memory with the same place, shape and strides hold the same numbers, and nobody can change
        # them. Turned round, shape and strides are those of the transpose.
        place, strides = x.__array_interface__["data"][0], x.strides
        found = kept.matrices.get((place, x.shape, strides))
        if found is None:
            turned = kept.matrices.get((place, x.shape[::-1], strides[::-1]))
            found = self._new_matrix(x) if turned is None else turned.transpose()
            kept.matrices[place, x.shape, strides] = found
        return found

    def _new_matrix(self, x: Array) -> Any:
        return self._matrix(x.shape[0], x.shape[1], x.ravel().tolist())

    def _kept(self, x: Array) -> _Kept | None:
        """The matrices made of this memory so far, or None where somebody could write into it."""
        owner = x if x.base is None else x.base
        if x.flags.writeable or not isinstance(owner, np.ndarray) or owner.flags.writeable:
            return None
        # An id may be given again once its array is gone; the weak reference forgets the matrices before that.
        key = id(owner)
        if key not in self._matrices:
            every = self._matrices

            def forget(_: weakref.ref[Array]) -> None:
                every.pop(key, None)

            every[key] = _Kept(weakref.ref(owner, forget))
        return self._matrices[key]

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum over the axes; an empty sum is zero."""
        # Every partial sum encloses, so the order changes the width and not the truth.
        with flint_precision(self.bits):
            return object_array(np.sum(x, axis=axis, keepdims=keepdims, initial=self._element(0)))

    def exp(self, x: Array) -> Array:
        """Elementwise exp x."""
        return self._map(self._element.exp, x)

    def expm1(self, x: Array) -> Array:
        """Elementwise exp(x) - 1."""
        return self._map(self._element.expm1, x)

    def log(self, x: Array) -> Array:
        """The natural logarithm; NaN where a ball reaches 0."""
        return self._map(self._element.log, x)

    def log1p(self, x: Array) -> Array:
        """log(1 + x); NaN where a ball reaches -1."""
        return self._map(self._element.log1p, x)

    def sqrt(self, x: Array) -> Array:
        """The square root; NaN where a ball is partly negative."""
        return self._map(self._element.sqrt, x)

    def sin(self, x: Array) -> Array:
        """Elementwise sin x."""
        return self._map(self._element.sin, x)

    def cos(self, x: Array) -> Array:
        """Elementwise cos x."""
        return self._map(self._element.cos, x)

    def tanh(self, x: Array) -> Array:
        """Elementwise tanh x."""
        return self._map(self._element.tanh, x)

    def atan(self, x: Array) -> Array:
        """The arc tangent, in radians."""
        return self._map(self._element.atan, x)

    def erf(self, x: Array) -> Array:
        """The error function."""
        return self._map(self._element.erf, x)

    def special(self, name: str, x: Array) -> Array:
        """Lgamma (for x > 0), digamma or erfinv, elementwise."""
        return self._map(getattr(self._element, name), x)

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two: one of them where that is clear, else a ball round both, for max is continuous."""
        # The very element is returned where it is clear, so that it is still known to equal itself.
        with flint_precision(self.bits):
            return object_array(np.frompyfunc(lambda x, y: x if x >= y else y if y >= x else x.max(y), 2, 1)(a, b))

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two: one of them where that is clear, else a ball round both, for min is continuous."""
        with flint_precision(self.bits):
            return object_array(np.frompyfunc(lambda x, y: x if x <= y else y if y <= x else x.min(y), 2, 1)(a, b))

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b.

        Raises:
            Undecided: balls overlap without being one and the same exact number.
        """
        return self._compare(a, b, strictly=True)

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b.

        Raises:
            Undecided: balls overlap without being one and the same exact number.
        """
        return self._compare(a, b, strictly=False)

    def _real(self, value: Any) -> Any:
        return value

    def _compare(self, a: Array, b: Array, *, strictly: bool) -> BoolArray:
        left, right = np.broadcast_arrays(a, b)
        decisions: list[bool] = []
        for one, other in zip(left.ravel().tolist(), right.ravel().tolist(), strict=True):
            if one is other:
                decisions.append(not strictly)
                continue
            # A comparison of balls is true only if it holds for every pair of their points, and false says nothing: no
            # is the truth of the converse. With NaN, or balls that overlap, neither is true.
            x, y = self._real(one), self._real(other)
            if x < y if strictly else x <= y:
                decisions.append(True)
            elif x >= y if strictly else x > y:
                decisions.append(False)
            else:
                raise Undecided(
                    f"whether {x.str(8)} is below {y.str(8)} cannot be decided at {self.bits} bits: "
                    "the balls overlap, so the point may lie on a kink; raise the precision"
                )
            # At an exact tie the comparison is decided and the derivative is not: both branches meet there.
            self.ties += x.is_exact() and y.is_exact() and x == y
        return np.array(decisions, dtype=np.bool_).reshape(left.shape)

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere."""
        return np.where(condition, a, b)


def _integer_power(x: Any, exponent: int) -> Any:
    # python-flint's ** goes through log for a ball round 0 (NaN); repeated products do not. A square by products may
    # reach below 0, for the factors are taken as independent: wider than need be, and still an enclosure.
    result = type(x)(1)
    square, left = x, abs(exponent)
    while left:
        if left & 1:
            result = result * square
        square, left = square * square, left >> 1
    return 1 / result if exponent < 0 else result
