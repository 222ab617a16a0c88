"""Values with one directional derivative each, x + x' e with e^2 = 0, over another arithmetic."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.balls import filled
from verify.reference.arithmetic.protocol import Arithmetic, Array, BoolArray


@runtime_checkable
class WithHints(Protocol):
    """An arithmetic whose floating values may be looked at only where no result depends on what is seen."""

    def hint(self, x: Array) -> NDArray[np.float64]:
        """Float64 numbers near the array's."""
        ...


class WithPi(Arithmetic, Protocol):
    """An arithmetic that has the circle's number itself."""

    def pi(self) -> Array:
        """The circle's number, as a 0-d array."""
        ...


class Jet:
    """One number and its derivative along the direction; None is a derivative that is exactly zero."""

    __slots__ = ("tangent", "value")

    def __init__(self, value: Any, tangent: Any) -> None:
        self.value = value
        self.tangent = tangent


class Jets:
    """Forward differentiation: every operation carries the derivative along one direction with its result.

        f(x + x' e) = f(x) + f'(x) x' e

    Over balls both parts are enclosed, so a directional derivative of a function is proved from its forward graph
    alone, without any pullback. The derivatives are those of the elementary operations below and nothing of torch's.

    Args:
        inner: the arithmetic of both parts.

    References:
        R. E. Wengert, A simple automatic derivative evaluation program, Commun. ACM 7 (1964),
        doi:10.1145/355586.364791.
    """

    def __init__(self, inner: WithPi) -> None:
        self.inner = inner
        self._parts: dict[int, tuple[weakref.ref[Array], tuple[Array, Array | None]]] = {}

    @property
    def name(self) -> str:
        """The arithmetic and what it carries."""
        return f"{self.inner.name}, with a directional derivative"

    def jets(self, values: Array, tangents: Array | None) -> Array:
        """Arrays of the inner arithmetic, of one shape, as values with derivatives."""
        if tangents is None:
            return filled([Jet(value, None) for value in values.ravel().tolist()], values.shape)
        return filled(map(Jet, values.ravel().tolist(), tangents.ravel().tolist()), values.shape)

    def parts(self, x: Array) -> tuple[Array, Array | None]:
        """Values and derivatives as arrays of the inner arithmetic; None where every derivative is exactly zero."""
        key = id(x)
        if not x.flags.writeable and key in self._parts:
            return self._parts[key][1]
        jets = x.ravel().tolist()
        values = filled([jet.value for jet in jets], x.shape)
        tangents = [jet.tangent for jet in jets]
        found: tuple[Array, Array | None] = (values, None)
        if any(tangent is not None for tangent in tangents):
            zero = self.inner.convert(0.0)[()]
            found = (values, filled([zero if tangent is None else tangent for tangent in tangents], x.shape))
        if not x.flags.writeable:
            for part in found:
                if part is not None:
                    part.flags.writeable = False
            self._parts[key] = (weakref.ref(x, lambda _: self._parts.pop(key, None)), found)
        return found

    def convert(self, values: Any) -> Array:
        """Constants: float64, integers and bools, exactly, with the derivative zero."""
        array = np.asarray(values)
        return array if array.dtype == object else self.jets(self.inner.convert(array), None)

    def pi(self) -> Array:
        """The circle's number, as a 0-d array."""
        return self.jets(self.inner.pi(), None)

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of every value."""
        return self.inner.to_float64(self.parts(x)[0])

    def hint(self, x: Array) -> NDArray[np.float64]:
        """Float64 numbers near the values, for a choice between two ways to write the same function."""
        value = self.parts(x)[0]
        return self.inner.hint(value) if isinstance(self.inner, WithHints) else self.inner.to_float64(value)

    def rounded(self, x: Array) -> Array:
        """The array itself."""
        return x

    def _number(self, value: float) -> Array:
        return self.inner.convert(np.asarray(value, dtype=np.float64))

    def _times(self, factor: Array, tangent: Array | None) -> Array | None:
        return None if tangent is None else self.inner.multiply(factor, tangent)

    def _plus(self, a: Array | None, b: Array | None) -> Array | None:
        return b if a is None else a if b is None else self.inner.add(a, b)

    def _made(self, values: Array, tangents: Array | None) -> Array:
        if tangents is None or tangents.shape == values.shape:
            return self.jets(values, tangents)
        return self.jets(values, np.broadcast_to(tangents, values.shape))

    def add(self, a: Array, b: Array) -> Array:
        """(a + b)' = a' + b'"""
        (x, u), (y, v) = self.parts(a), self.parts(b)
        return self._made(self.inner.add(x, y), self._plus(u, v))

    def subtract(self, a: Array, b: Array) -> Array:
        """(a - b)' = a' - b'"""
        (x, u), (y, v) = self.parts(a), self.parts(b)
        return self._made(self.inner.subtract(x, y), self._plus(u, None if v is None else self.inner.negative(v)))

    def multiply(self, a: Array, b: Array) -> Array:
        """(a b)' = a' b + a b'"""
        (x, u), (y, v) = self.parts(a), self.parts(b)
        return self._made(self.inner.multiply(x, y), self._plus(self._times(y, u), self._times(x, v)))

    def divide(self, a: Array, b: Array) -> Array:
        """(a / b)' = (a' - (a / b) b') / b"""
        (x, u), (y, v) = self.parts(a), self.parts(b)
        quotient = self.inner.divide(x, y)
        change = self._plus(u, self._times(self.inner.negative(quotient), v))
        return self._made(quotient, None if change is None else self.inner.divide(change, y))

    def negative(self, x: Array) -> Array:
        """(-x)' = -x'"""
        value, tangent = self.parts(x)
        return self._made(self.inner.negative(value), None if tangent is None else self.inner.negative(tangent))

    def absolute(self, x: Array) -> Array:
        """|x|' is x' or -x', by the sign of x; raises `Undecided` where that is not clear."""
        value, tangent = self.parts(x)
        if tangent is None:
            return self._made(self.inner.absolute(value), None)
        below = self.inner.less(value, self._number(0.0))
        return np.where(below, self.negative(x), x)

    def power(self, x: Array, exponent: float) -> Array:
        """(x^p)' = p x^(p - 1) x'"""
        value, tangent = self.parts(x)
        if tangent is None or exponent == 0:
            return self._made(self.inner.power(value, exponent), None)
        # The exponent less one is exact for the integers and halves that occur; else the quotient is, for x not 0.
        if float(2 * exponent).is_integer():
            slope = self.inner.power(value, exponent - 1)
        else:
            slope = self.inner.divide(self.inner.power(value, exponent), value)
        slope = self.inner.multiply(self._number(float(exponent)), slope)
        return self._made(self.inner.power(value, exponent), self._times(slope, tangent))

    def matmul(self, a: Array, b: Array) -> Array:
        """(a b)' = a' b + a b'"""
        (x, u), (y, v) = self.parts(a), self.parts(b)
        left = None if u is None else self.inner.matmul(u, y)
        right = None if v is None else self.inner.matmul(x, v)
        return self._made(self.inner.matmul(x, y), self._plus(left, right))

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """The sum of the derivatives."""
        value, tangent = self.parts(x)
        along = None if tangent is None else self.inner.sum(tangent, axis, keepdims)
        return self._made(self.inner.sum(value, axis, keepdims), along)

    def _chain(self, x: Array, function: Callable[[Array], Array], slope: Callable[[Array, Array], Array]) -> Array:
        """f(x) + f'(x) x' e with the slope a function of x and f(x)."""
        value, tangent = self.parts(x)
        result = function(value)
        return self._made(result, None if tangent is None else self._times(slope(value, result), tangent))

    def exp(self, x: Array) -> Array:
        """(e^x)' = e^x x'"""
        return self._chain(x, self.inner.exp, lambda _, result: result)

    def expm1(self, x: Array) -> Array:
        """(e^x - 1)' = e^x x'"""
        return self._chain(x, self.inner.expm1, lambda value, _: self.inner.exp(value))

    def log(self, x: Array) -> Array:
        """(log x)' = x' / x"""
        return self._chain(x, self.inner.log, lambda value, _: self.inner.divide(self._number(1.0), value))

    def log1p(self, x: Array) -> Array:
        """(log(1 + x))' = x' / (1 + x)"""
        one = self._number(1.0)
        return self._chain(x, self.inner.log1p, lambda value, _: self.inner.divide(one, self.inner.add(one, value)))

    def sqrt(self, x: Array) -> Array:
        """(sqrt x)' = x' / (2 sqrt x)"""
        return self._chain(x, self.inner.sqrt, lambda _, result: self.inner.divide(self._number(0.5), result))

    def sin(self, x: Array) -> Array:
        """(sin x)' = cos x x'"""
        return self._chain(x, self.inner.sin, lambda value, _: self.inner.cos(value))

    def cos(self, x: Array) -> Array:
        """(cos x)' = -sin x x'"""
        return self._chain(x, self.inner.cos, lambda value, _: self.inner.negative(self.inner.sin(value)))

    def tanh(self, x: Array) -> Array:
        """(tanh x)' = (1 - tanh^2 x) x'"""
        return self._chain(
            x,
            self.inner.tanh,
            lambda _, result: self.inner.subtract(self._number(1.0), self.inner.multiply(result, result)),
        )

    def atan(self, x: Array) -> Array:
        """(atan x)' = x' / (1 + x^2)"""
        one = self._number(1.0)

        def slope(value: Array, _: Array) -> Array:
            return self.inner.divide(one, self.inner.add(one, self.inner.multiply(value, value)))

        return self._chain(x, self.inner.atan, slope)

    def erf(self, x: Array) -> Array:
        """(erf x)' = 2 / sqrt(pi) e^(-x^2) x'"""

        def slope(value: Array, _: Array) -> Array:
            bell = self.inner.exp(self.inner.negative(self.inner.multiply(value, value)))
            return self.inner.multiply(self.inner.divide(self._number(2.0), self.inner.sqrt(self.inner.pi())), bell)

        return self._chain(x, self.inner.erf, slope)

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two with its derivative; raises `Undecided` where that is not clear."""
        return np.where(self.less(a, b), b, a)

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two with its derivative; raises `Undecided` where that is not clear."""
        return np.where(self.less(b, a), b, a)

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b, of the values."""
        return self.inner.less(self.parts(a)[0], self.parts(b)[0])

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b, of the values."""
        return self.inner.less_equal(self.parts(a)[0], self.parts(b)[0])

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere."""
        return np.where(condition, a, b)
