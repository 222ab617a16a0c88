"""Complex intermediate results: a pair of real arrays, and how operations act on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.errors import UnsupportedOperationError
from verify.reference.graph.operations.numbers import constant, real


@dataclass(frozen=True)
class Complex:
    """An array of complex numbers, real + i imaginary, both of one shape."""

    real: Array
    imaginary: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of either part."""
        return self.real.shape


ComplexRule = Callable[..., Any]

_rules: dict[str, ComplexRule] = {}

PARTWISE = frozenset({"shape", "indexing"})
"""Families of operations that move numbers about, and do the same to both parts."""


def for_complex(*operations: str) -> Callable[[ComplexRule], ComplexRule]:
    """Register what an operation does where one of its operands is complex."""

    def decorate(rule: ComplexRule) -> ComplexRule:
        _rules.update(dict.fromkeys(operations, rule))
        return rule

    return decorate


def has_complex(items: Any) -> bool:
    """Whether one of the arguments is complex, or one in a list of them."""
    if isinstance(items, dict):
        return has_complex(list(items.values()))
    return any(isinstance(item, (Complex, complex)) or (isinstance(item, list) and has_complex(item)) for item in items)


def complex_result(
    ops: Arithmetic,
    operation: str,
    location: str,
    rule: Callable[..., Any],
    family: str,
    arguments: list[Any],
    options: dict[str, Any],
) -> Any:
    """What an operation gives for complex operands.

    Raises:
        UnsupportedOperationError: it has no rule for them.
    """
    if operation in _rules:
        return _rules[operation](ops, *arguments, **options)
    if family == "fourier":
        return rule(ops, *arguments, **options)
    if family not in PARTWISE:
        raise UnsupportedOperationError(f"{operation} of complex numbers", location)
    parts: list[Any] = []
    for imaginary in (False, True):
        named = dict(zip(options, _parts(ops, list(options.values()), imaginary), strict=True))
        parts.append(rule(ops, *_parts(ops, arguments, imaginary), **named))
    if isinstance(parts[0], (tuple, list)):
        return tuple(Complex(x, y) for x, y in zip(*parts, strict=True))
    return Complex(parts[0], parts[1])


def _parts(ops: Arithmetic, items: list[Any], imaginary: bool) -> list[Any]:
    def part(item: Any) -> Any:
        if isinstance(item, list):
            return [part(one) for one in item]
        if isinstance(item, Complex):
            return item.imaginary if imaginary else item.real
        if imaginary and isinstance(item, np.ndarray) and item.dtype.kind not in "biu":
            return constant(ops, item.shape, 0.0)
        return item

    return [part(item) for item in items]


def as_complex(ops: Arithmetic, x: Any) -> Complex:
    """A number or a real array as a complex one."""
    if isinstance(x, Complex):
        return x
    if isinstance(x, complex):
        return Complex(real(ops, x.real), real(ops, x.imag))
    whole = real(ops, x)
    return Complex(whole, constant(ops, whole.shape, 0.0))


@for_complex("aten.add.Tensor", "aten.add.Scalar")
def _add(ops: Arithmetic, x: Any, y: Any, alpha: Any = 1) -> Complex:
    a, b = as_complex(ops, x), _scaled(ops, as_complex(ops, y), alpha)
    return Complex(ops.add(a.real, b.real), ops.add(a.imaginary, b.imaginary))


@for_complex("aten.sub.Tensor", "aten.sub.Scalar")
def _subtract(ops: Arithmetic, x: Any, y: Any, alpha: Any = 1) -> Complex:
    a, b = as_complex(ops, x), _scaled(ops, as_complex(ops, y), alpha)
    return Complex(ops.subtract(a.real, b.real), ops.subtract(a.imaginary, b.imaginary))


def _scaled(ops: Arithmetic, x: Complex, factor: Any) -> Complex:
    return x if factor == 1 else _multiply(ops, x, factor)


@for_complex("aten.mul.Tensor", "aten.mul.Scalar")
def _multiply(ops: Arithmetic, x: Any, y: Any) -> Complex:
    if not isinstance(x, (Complex, complex)):
        x, y = y, x
    a = as_complex(ops, x)
    if not isinstance(y, (Complex, complex)):
        factor = real(ops, y)
        return Complex(ops.multiply(a.real, factor), ops.multiply(a.imaginary, factor))
    b = as_complex(ops, y)
    return Complex(
        ops.subtract(ops.multiply(a.real, b.real), ops.multiply(a.imaginary, b.imaginary)),
        ops.add(ops.multiply(a.real, b.imaginary), ops.multiply(a.imaginary, b.real)),
    )


@for_complex("aten.div.Tensor", "aten.div.Scalar")
def _divide(ops: Arithmetic, x: Any, y: Any) -> Complex:
    if not isinstance(y, (Complex, complex)):
        a, divisor = as_complex(ops, x), real(ops, y)
        return Complex(ops.divide(a.real, divisor), ops.divide(a.imaginary, divisor))
    b = as_complex(ops, y)
    size = ops.add(ops.power(b.real, 2), ops.power(b.imaginary, 2))
    turned = _multiply(ops, as_complex(ops, x), Complex(b.real, ops.negative(b.imaginary)))
    return Complex(ops.divide(turned.real, size), ops.divide(turned.imaginary, size))


@for_complex("aten.reciprocal.default")
def _reciprocal(ops: Arithmetic, x: Complex) -> Complex:
    return _divide(ops, 1.0, x)


@for_complex("aten.neg.default", "aten._neg_view.default", "aten._neg_view_copy.default")
def _negative(ops: Arithmetic, x: Complex) -> Complex:
    return Complex(ops.negative(x.real), ops.negative(x.imaginary))


@for_complex("aten.abs.default")
def _absolute(ops: Arithmetic, x: Complex) -> Array:
    return ops.sqrt(ops.add(ops.power(x.real, 2), ops.power(x.imaginary, 2)))


@for_complex("aten.exp.default")
def _exponential(ops: Arithmetic, x: Complex) -> Complex:
    size = ops.exp(x.real)
    return Complex(ops.multiply(size, ops.cos(x.imaginary)), ops.multiply(size, ops.sin(x.imaginary)))


@for_complex("aten.sum.dim_IntList", "aten.sum.default")
def _total(ops: Arithmetic, x: Complex, dim: Any = None, keepdim: bool = False, dtype: str | None = None) -> Complex:
    from verify.reference.graph.operations.reduction import total

    del dtype
    return Complex(total(ops, x.real, dim, keepdim), total(ops, x.imaginary, dim, keepdim))


@for_complex("aten.mm.default", "aten.bmm.default", "aten.matmul.default")
def _product(ops: Arithmetic, x: Any, y: Any) -> Complex:
    a, b = as_complex(ops, x), as_complex(ops, y)
    return Complex(
        ops.subtract(ops.matmul(a.real, b.real), ops.matmul(a.imaginary, b.imaginary)),
        ops.add(ops.matmul(a.real, b.imaginary), ops.matmul(a.imaginary, b.real)),
    )


@for_complex("aten.zeros_like.default", "aten.full_like.default", "aten.ones_like.default")
def _like(ops: Arithmetic, x: Complex, value: Any = 0.0, **options: Any) -> Complex:
    del options
    return Complex(constant(ops, x.shape, float(value)), constant(ops, x.shape, 0.0))


@for_complex("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def _where(ops: Arithmetic, condition: Array, x: Any, y: Any) -> Complex:
    a, b = as_complex(ops, x), as_complex(ops, y)
    return Complex(
        ops.where(condition, *np.broadcast_arrays(a.real, b.real)),
        ops.where(condition, *np.broadcast_arrays(a.imaginary, b.imaginary)),
    )


@for_complex("aten.sgn.default")
def _direction(ops: Arithmetic, x: Complex) -> Complex:
    return _divide(ops, x, _absolute(ops, x))


@for_complex("aten._to_copy.default")
def _cast(ops: Arithmetic, x: Complex, dtype: str | None = None) -> Any:
    del ops
    return x if dtype is None or dtype.startswith("complex") else x.real


@for_complex(
    "aten._conj.default",
    "aten._conj_copy.default",
    "aten._conj_physical.default",
    "aten.conj_physical.default",
    "aten.conj.default",
)
def _conjugate(ops: Arithmetic, x: Any) -> Complex:
    x = as_complex(ops, x)
    return Complex(x.real, ops.negative(x.imaginary))


@for_complex("aten.view_as_real.default", "aten.view_as_real_copy.default")
def _pair(ops: Arithmetic, x: Complex) -> Array:
    del ops
    return np.stack([x.real, x.imaginary], axis=-1)


@for_complex("aten.real.default")
def _real_part(ops: Arithmetic, x: Complex) -> Array:
    del ops
    return x.real


@for_complex("aten.imag.default")
def _imaginary_part(ops: Arithmetic, x: Complex) -> Array:
    del ops
    return x.imaginary
