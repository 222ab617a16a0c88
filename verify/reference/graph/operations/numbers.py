"""How a rule tells real arrays from exact integer and bool ones, and brings them together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.arithmetic.jets import WithHints
from verify.reference.graph.graph import Exact


def is_exact(x: Any) -> bool:
    """Whether x is an integer or bool: a numpy array of such a dtype, or a Python number."""
    return x.dtype.kind in "biu" if isinstance(x, np.ndarray) else isinstance(x, (bool, int, np.integer, np.bool_))


def is_real_dtype(dtype: str | None) -> bool:
    """Whether a recorded dtype name is a floating one."""
    return dtype is not None and dtype.startswith(("float", "bfloat"))


def real(ops: Arithmetic, x: Any) -> Array:
    """`x` as an array of the arithmetic; integers, bools and Python floats are converted exactly."""
    if isinstance(x, np.ndarray) and not is_exact(x):
        return x
    if isinstance(x, np.ndarray):
        return ops.convert(x)
    return ops.convert(np.asarray(x, dtype=np.int64 if is_exact(x) else np.float64))


def number(ops: Arithmetic, value: float) -> Array:
    """A Python number as a 0-d array of the arithmetic."""
    return ops.convert(np.asarray(value, dtype=np.float64))


def constant(ops: Arithmetic, shape: Any, value: float) -> Array:
    """An array of the arithmetic filled with one number."""
    with np.errstate(invalid="ignore"):  # NaN, where uninitialised memory is meant
        element = ops.convert(np.asarray(value, dtype=np.float64))
    return np.array(np.broadcast_to(element, tuple(shape)))


@runtime_checkable
class KnowsPi(Protocol):
    """An arithmetic that has the circle's number itself."""

    def pi(self) -> Array:
        """The circle's number, as a 0-d array."""
        ...


def hint(ops: Arithmetic, x: Array) -> NDArray[np.float64]:
    """Float64 numbers near x's, for a choice between two ways to write the same function, and for nothing else."""
    return ops.hint(x) if isinstance(ops, WithHints) else ops.to_float64(x)


def pi(ops: Arithmetic) -> Array:
    """The circle's number: the arithmetic's own, or x + sin x from float64, whose error falls as e^3 / 6.

    53 bits become 159, 477, 1431 and 4293, so four rounds serve every precision up to 1290 digits.
    """
    if isinstance(ops, KnowsPi):
        return ops.pi()
    x = number(ops, math.pi)
    for _ in range(4):
        x = ops.add(x, ops.sin(x))
    return x


def exact_number(ops: Arithmetic, value: Exact) -> Array:
    """A number that no float64 holds, as a 0-d array of the arithmetic.

    Raises:
        ValueError: its symbol is unknown.
    """
    fraction = ops.divide(ops.convert(np.asarray(value.numerator)), ops.convert(np.asarray(value.denominator)))
    match value.symbol:
        case "":
            return fraction
        case "2/sqrt(pi)":
            symbol = ops.divide(number(ops, 2.0), ops.sqrt(pi(ops)))
        case "sqrt(pi)/2":
            symbol = ops.divide(ops.sqrt(pi(ops)), number(ops, 2.0))
        case "log(2)":
            symbol = ops.log(number(ops, 2.0))
        case "log(10)":
            symbol = ops.log(number(ops, 10.0))
        case _:
            raise ValueError(
                f"the graph names the number {value.symbol!r}; known are 2/sqrt(pi), sqrt(pi)/2, log(2) and log(10)"
            )
    return ops.multiply(symbol, fraction)


def like_dtype(ops: Arithmetic, x: Array, dtype: str | None) -> Array:
    """`x` as torch's dtype asks: real arrays stay real whatever the floating dtype (casts are stripped on purpose)."""
    if dtype is None:
        return x
    if is_real_dtype(dtype):
        return real(ops, x)
    if dtype == "bool":
        return x.astype(np.bool_) if is_exact(x) else np.logical_not(equal(ops, x, number(ops, 0.0)))
    if is_exact(x):
        return x.astype(np.int64)
    return truncated(ops, x)


def truncated(ops: Arithmetic, x: Array) -> Array:
    """The integers between 0 and x next to x, as int64, decided rigorously.

    Raises:
        Undecided: a ball reaches across an integer, or is not finite.
    """
    size = ops.absolute(x)
    near = np.floor(hint(ops, size))
    if not np.all(near < 2.0**62):
        raise Undecided("the integer part of a number is too large for float64 to find it, or not finite")
    below = near.astype(np.int64)
    # The rounding to float64 may have gone across an integer, so the neighbour is tried by an exact comparison.
    below = below - np.asarray(ops.less(size, ops.convert(below)), dtype=np.int64)
    below = below + np.asarray(ops.less_equal(ops.convert(below + 1), size), dtype=np.int64)
    inside = np.logical_and(ops.less_equal(ops.convert(below), size), ops.less(size, ops.convert(below + 1)))
    if not np.all(inside):
        raise Undecided("the integer part of a number is too large for float64 to find it")
    return np.where(ops.less(x, number(ops, 0.0)), -below, below)


def equal(ops: Arithmetic, a: Array, b: Array) -> Array:
    """Elementwise a == b of real arrays, decided rigorously.

    Raises:
        Undecided: balls overlap without being equal exact numbers.
    """
    return np.logical_and(ops.less_equal(a, b), ops.less_equal(b, a))


def binary(
    ops: Arithmetic, a: Any, b: Any, of_reals: Callable[[Array, Array], Array], of_exact: Callable[[Any, Any], Any]
) -> Array:
    """One operation of two operands: numpy's where both are exact, the arithmetic's otherwise."""
    if is_exact(a) and is_exact(b):
        return np.asarray(of_exact(a, b))
    return of_reals(real(ops, a), real(ops, b))
