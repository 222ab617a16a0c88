"""Numbers of a certificate, and the operations of its program with their derivatives."""

from __future__ import annotations

import base64
import operator
import struct
from collections.abc import Callable, Iterable
from typing import Any

from flint import arb, arb_mat


class Failed(Exception):
    """A claim of the certificate does not hold, or its program does not run."""


class OtherBranch(Failed):
    """A recorded comparison goes the other way at these numbers, or is not decided over these balls."""


def number(text: str) -> arb:
    """An exact number from 'mantissa:exponent' in hexadecimal, or inf, -inf, nan."""
    if ":" not in text:
        return arb(text)
    mantissa, exponent = text.split(":")
    return arb((int(mantissa, 16), int(exponent)))


def unpacked(text: str) -> list[float]:
    """Float64 numbers from base64 of their little-endian bytes."""
    raw = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(raw) // 8}d", raw))


def packed(values: Iterable[float]) -> str:
    """The inverse of `unpacked`."""
    numbers = list(values)
    return base64.b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode("ascii")


def exact(text: str) -> list[arb]:
    """Float64 numbers as exact balls."""
    return [arb(value) for value in unpacked(text)]


def expanded(runs: list[int]) -> list[int]:
    """Slot numbers from runs of (first, count, step)."""
    places: list[int] = []
    for index in range(0, len(runs), 3):
        first, count, step = runs[index : index + 3]
        places += [first + step * place for place in range(count)]
    return places


def power(x: arb, exponent: float) -> arb:
    """X ** exponent: integers by products, halves by roots, others by exp(exponent log x)."""
    if not (2 * exponent).is_integer():
        return (x.log() * arb(exponent)).exp()
    base, left = (x, abs(int(exponent))) if exponent.is_integer() else (x.sqrt(), abs(int(2 * exponent)))
    result = arb(1)
    while left:
        if left & 1:
            result = result * base
        base, left = base * base, left >> 1
    return 1 / result if exponent < 0 else result


def power_slope(x: arb, value: arb, exponent: float) -> arb:
    """The derivative p x^(p - 1); p - 1 is exact for integers and halves, else it is p x^p / x."""
    if exponent == 0:
        return arb(0)
    lower = power(x, exponent - 1) if (2 * exponent).is_integer() else value / x
    return arb(exponent) * lower


def exponential_slope(matrix: arb_mat, way: list[Any]) -> arb_mat:
    """The derivative of exp at A along E, which is the upper right block of exp [[A, E], [0, A]]."""
    size = matrix.nrows()
    rows = matrix.tolist()
    zero = [arb(0)] * size
    along = [arb(0) if value is None else value for value in way]
    upper = [row + along[place * size : (place + 1) * size] for place, row in enumerate(rows)]
    whole = arb_mat(upper + [zero + row for row in rows]).exp().tolist()
    return arb_mat([row[size:] for row in whole[:size]])


UNARY: dict[str, tuple[Callable[[arb], arb], Callable[[arb, arb], arb]]] = {
    "negative": (operator.neg, lambda x, y: arb(-1)),
    "exp": (arb.exp, lambda x, y: y),
    "expm1": (arb.expm1, lambda x, y: x.exp()),
    "log": (arb.log, lambda x, y: 1 / x),
    "log1p": (arb.log1p, lambda x, y: 1 / (1 + x)),
    "sqrt": (arb.sqrt, lambda x, y: 1 / (2 * y)),
    "sin": (arb.sin, lambda x, y: x.cos()),
    "cos": (arb.cos, lambda x, y: -x.sin()),
    "tanh": (arb.tanh, lambda x, y: 1 - y * y),
    "atan": (arb.atan, lambda x, y: 1 / (1 + x * x)),
    "lgamma": (arb.lgamma, lambda x, y: x.digamma()),
    "digamma": (arb.digamma, lambda x, y: arb(2).zeta(x)),
    "erfinv": (arb.erfinv, lambda x, y: arb.pi().sqrt() / 2 * (y * y).exp()),
    "erf": (arb.erf, lambda x, y: 2 / arb.pi().sqrt() * (-x * x).exp()),
}
"""Each function, and its derivative at x where its value is y."""


BINARY: dict[str, Callable[[arb, arb], arb]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "maximum": lambda x, y: x if x >= y else y if y >= x else x.max(y),
    "minimum": lambda x, y: x if x <= y else y if y <= x else x.min(y),
}


HULL = arb(0.5, 0.5)
"""[0, 1]: the slope of a maximum by an argument that may be the greater one."""
