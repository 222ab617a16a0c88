"""Special functions that only some arithmetics have."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from verify.reference.arithmetic import Arithmetic, Array
from verify.reference.graph.operations.numbers import real
from verify.reference.graph.registry import register


@runtime_checkable
class KnowsSpecialFunctions(Protocol):
    """An arithmetic that has lgamma, digamma and erfinv itself."""

    def special(self, name: str, x: Array) -> Array:
        """The function of that name, elementwise."""
        ...


def _special(ops: Arithmetic, name: str, x: Array) -> Array:
    if not isinstance(ops, KnowsSpecialFunctions):
        raise NotImplementedError(f"{ops.name} has no {name}")
    return ops.special(name, real(ops, x))


@register("aten.lgamma.default")
def lgamma(ops: Arithmetic, x: Array) -> Array:
    """The logarithm of the gamma function, for x > 0"""
    return _special(ops, "lgamma", x)


@register("aten.digamma.default")
def digamma(ops: Arithmetic, x: Array) -> Array:
    """The derivative of the logarithm of the gamma function"""
    return _special(ops, "digamma", x)


@register("aten.erfinv.default")
def erfinv(ops: Arithmetic, x: Array) -> Array:
    """The inverse of the error function"""
    return _special(ops, "erfinv", x)
