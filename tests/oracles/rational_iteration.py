"""The coupled iteration, its inverse and its adjoint on lists of exact scalars: what the theorems are about.

Scalars are anything that adds and multiplies: python-flint's fmpq for arithmetic without rounding, arb for balls. It is
kept apart from the solver on purpose: the theorems are tested on this page's formulas, the solver on the theorems.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from flint import fmpq, fmpq_mat


Vector = list[Any]
Map = Callable[[Vector], Vector]


def rational(number: Fraction) -> Any:
    """Return the number as python-flint's exact rational."""
    return fmpq(number.numerator, number.denominator)


def half_step(state: Vector, value: Vector, beta: Any) -> Vector:
    """(1 - beta) state + beta value."""
    return [(1 - beta) * s + beta * v for s, v in zip(state, value, strict=True)]


def undo_half_step(state: Vector, value: Vector, beta: Any) -> Vector:
    """(state - beta value) / (1 - beta)."""
    return [(s - beta * v) / (1 - beta) for s, v in zip(state, value, strict=True)]


def step(f: Map, y: Vector, z: Vector, beta: Any) -> tuple[Vector, Vector]:
    """One step: y' = a y + beta f(z), z' = a z + beta f(y')."""
    y = half_step(y, f(z), beta)
    return y, half_step(z, f(y), beta)


def undo_step(f: Map, y: Vector, z: Vector, beta: Any) -> tuple[Vector, Vector]:
    """The inverse: z = (z' - beta f(y')) / a, y = (y' - beta f(z)) / a."""
    z = undo_half_step(z, f(y), beta)
    return undo_half_step(y, f(z), beta), z


def matrix(rows: Sequence[Sequence[Fraction]]) -> Any:
    """Return rows of Fractions as an exact rational matrix."""
    return fmpq_mat([[rational(entry) for entry in row] for row in rows])


def identity(dimension: int) -> Any:
    """Return the exact identity matrix."""
    return fmpq_mat(dimension, dimension, [int(i == j) for i in range(dimension) for j in range(dimension)])


def step_jacobian(first: Any, second: Any, beta: Any) -> Any:
    """Return [[a I, beta K1], [a beta K2, a I + beta^2 K2 K1]], the step's Jacobian with K1 at z and K2 at y'."""
    a, dimension = 1 - beta, first.nrows()
    unit = identity(dimension)
    return _stack([[a * unit, beta * first], [a * beta * second, a * unit + beta * beta * (second * first)]])


def adjoint_jacobian(first: Any, second: Any, beta: Any) -> Any:
    """Return the matrix of the adjoint recursion, q = p_y + beta K2^T p_z, p_y <- a q, p_z <- a p_z + beta K1^T q."""
    a, dimension = 1 - beta, first.nrows()
    unit = identity(dimension)
    one, two = first.transpose(), second.transpose()
    return _stack([[a * unit, a * beta * two], [beta * one, a * unit + beta * beta * (one * two)]])


def characteristic(square: Any, point: Any) -> Any:
    """Return det(point I - square)."""
    return (point * identity(square.nrows()) - square).det()


def _stack(blocks: Sequence[Sequence[Any]]) -> Any:
    rows: list[list[Any]] = []
    for band in blocks:
        tables = [block.table() for block in band]
        rows += [[entry for table in tables for entry in table[i]] for i in range(len(tables[0]))]
    return fmpq_mat(rows)
