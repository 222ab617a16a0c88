"""Linear equations, inverses, determinants and triangular factors, by elimination; the exponential of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.graph.operations.elementwise import sign
from verify.reference.graph.operations.numbers import hint, number
from verify.reference.graph.registry import register


def _flat(x: Array, columns: int | None = None) -> Array:
    return x.reshape(-1, x.shape[-2], x.shape[-1] if columns is None else columns)


def _each(function: Callable[..., Array], shape: tuple[int, ...], *matrices: Array) -> Array:
    """The function of every matrix of a batch."""
    batches = [np.broadcast_to(m, (*shape, *m.shape[-2:])).reshape(-1, *m.shape[-2:]) for m in matrices]
    results = [function(*parts) for parts in zip(*batches, strict=True)]
    if not results:
        return np.zeros((*shape, *matrices[-1].shape[-2:]), dtype=matrices[-1].dtype)
    return np.stack(results).reshape(*shape, *results[0].shape)


def solved(ops: Arithmetic, a: Array, b: Array) -> Array:
    """a^-1 b by elimination; the pivots are chosen by what the numbers look like, and any choice gives the same."""
    a, b = np.array(a), np.array(b)
    size = len(a)
    for place in range(size):
        pivot = place + int(np.argmax(np.abs(hint(ops, np.ascontiguousarray(a[place:, place])))))
        a[[place, pivot]], b[[place, pivot]] = a[[pivot, place]], b[[pivot, place]]
        for row in range(place + 1, size):
            factor = ops.divide(np.asarray(a[row, place]), np.asarray(a[place, place]))
            if place + 1 < size:
                a[row, place + 1 :] = ops.subtract(a[row, place + 1 :], ops.multiply(factor, a[place, place + 1 :]))
            b[row] = ops.subtract(b[row], ops.multiply(factor, b[place]))
    return _back_substituted(ops, a, b)


def _back_substituted(ops: Arithmetic, a: Array, b: Array) -> Array:
    """The solution of an upper triangular system."""
    b = np.array(b)
    for place in reversed(range(len(a))):
        b[place] = ops.divide(b[place], np.asarray(a[place, place]))
        for row in range(place):
            b[row] = ops.subtract(b[row], ops.multiply(np.asarray(a[row, place]), b[place]))
    return b


def _factored(ops: Arithmetic, a: Array) -> tuple[Array, Array]:
    """L and U in one matrix, and the rows exchanged, as torch gives them: the greatest pivot, decided.

    Raises:
        Undecided: two pivots overlap.
    """
    a = np.array(a)
    pivots = np.arange(1, len(a) + 1)
    for place in range(len(a)):
        sizes = ops.absolute(np.ascontiguousarray(a[place:, place]))
        best = 0
        for row in range(1, len(sizes)):
            if ops.less(np.asarray(sizes[best]), np.asarray(sizes[row])):
                best = row
        pivots[place] = place + best + 1
        a[[place, place + best]] = a[[place + best, place]]
        for row in range(place + 1, len(a)):
            a[row, place] = ops.divide(np.asarray(a[row, place]), np.asarray(a[place, place]))[()]
            if place + 1 < len(a):
                scaled = ops.multiply(np.asarray(a[row, place]), a[place, place + 1 :])
                a[row, place + 1 :] = ops.subtract(a[row, place + 1 :], scaled)
    return a, pivots


def factored_or_undecided(ops: Arithmetic, a: Array) -> tuple[Any, Any]:
    """`_factored` of a batch, or its exception as a value, which is raised only if somebody asks for the factors."""
    try:
        parts = [_factored(ops, matrix) for matrix in _flat(a)]
    except Undecided as undecided:
        return undecided, undecided
    factors = np.stack([part[0] for part in parts]).reshape(a.shape)
    return factors, np.stack([part[1] for part in parts]).reshape(a.shape[:-1])


def _is_vector(a: Array, b: Array) -> bool:
    return b.ndim == 1 or (b.ndim + 1 == a.ndim and b.shape == a.shape[:-1])


@register("aten._linalg_solve_ex.default")
def solve(
    ops: Arithmetic, a: Array, b: Array, left: bool = True, check_errors: bool = False
) -> tuple[Array, Any, Any, Array]:
    """a^-1 b, or b a^-1; with the factors of a"""
    del check_errors
    vector = _is_vector(a, b)
    right = b[..., None] if vector else b
    matrix = a
    if not left:
        matrix, right = np.swapaxes(a, -1, -2), np.swapaxes(right, -1, -2)
    batch = np.broadcast_shapes(a.shape[:-2], right.shape[:-2])
    found = _each(partial(solved, ops), batch, matrix, right)
    found = found if left else np.swapaxes(found, -1, -2)
    factors, pivots = factored_or_undecided(ops, a)
    return found[..., 0] if vector else found, factors, pivots, np.zeros(a.shape[:-2], dtype=np.int64)


@register("aten.linalg_lu_solve.default")
def solve_by_factors(
    ops: Arithmetic, factors: Any, pivots: Any, b: Array, left: bool = True, adjoint: bool = False
) -> Array:
    """a^-1 b, or b a^-1, or with the transpose of a, from the factors of a"""
    if isinstance(factors, Determined):
        return solve(ops, np.swapaxes(factors.matrix, -1, -2), b, left)[0]

    def one(packed: Array, rows: Array, right: Array) -> Array:
        lower = np.array(np.tril(packed, -1))
        zero, unit = number(ops, 0.0)[()], number(ops, 1.0)[()]
        size = len(packed)
        upper = np.array(packed)
        for row in range(size):
            lower[row, row:], upper[row, :row] = zero, zero
            lower[row, row] = unit
        whole = ops.matmul(lower, upper)
        for place in reversed(range(size)):
            other = int(rows[0, place]) - 1
            whole[[place, other]] = whole[[other, place]]
        matrix = whole.T if adjoint else whole
        return solved(ops, matrix, right) if left else solved(ops, matrix.T, right.T).T

    return _each(one, np.broadcast_shapes(factors.shape[:-2], b.shape[:-2]), factors, pivots[..., None, :], b)


@register("aten._linalg_check_errors.default")
def checked(ops: Arithmetic, info: Array, api_name: str, is_matrix: bool = False) -> None:
    """Nothing: a matrix that cannot be inverted gives no finite number here"""
    del ops, info, api_name, is_matrix


@register("aten.linalg_inv_ex.default")
def inverse(ops: Arithmetic, a: Array, check_errors: bool = False) -> tuple[Array, Array]:
    """The inverse of each matrix"""
    del check_errors
    unit = ops.convert(np.eye(a.shape[-1]))
    return _each(partial(solved, ops, b=unit), a.shape[:-2], a), np.zeros(a.shape[:-2], dtype=np.int64)


@dataclass(frozen=True)
class Determined:
    """In place of the factors that a determinant hands to its derivative: the matrix itself.

    torch factors the matrix or its transpose, as they lie in memory, and asks for what a^-T makes of a right side.
    """

    matrix: Array


@register("aten._linalg_det.default")
def determinant(ops: Arithmetic, a: Array) -> tuple[Array, Any, None]:
    """The determinant"""

    def one(matrix: Array) -> Array:
        matrix = np.array(matrix)
        product = number(ops, 1.0)
        for place in range(len(matrix)):
            pivot = place + int(np.argmax(np.abs(hint(ops, np.ascontiguousarray(matrix[place:, place])))))
            if pivot != place:
                matrix[[place, pivot]], product = matrix[[pivot, place]], ops.negative(product)
            product = ops.multiply(product, np.asarray(matrix[place, place]))
            for row in range(place + 1, len(matrix)):
                factor = ops.divide(np.asarray(matrix[row, place]), np.asarray(matrix[place, place]))
                matrix[row] = ops.subtract(matrix[row], ops.multiply(factor, matrix[place]))
        return product.reshape(1, 1)

    return _each(one, a.shape[:-2], a)[..., 0, 0], Determined(a), None


@register("aten._linalg_slogdet.default")
def sign_and_logarithm_of_determinant(ops: Arithmetic, a: Array) -> tuple[Array, Array, Any, None]:
    """The sign of the determinant and the logarithm of its size"""
    whole, factors, _ = determinant(ops, a)
    return sign(ops, whole), ops.log(ops.absolute(whole)), factors, None


@register("aten.linalg_cholesky_ex.default")
def cholesky(ops: Arithmetic, a: Array, upper: bool = False, check_errors: bool = False) -> tuple[Array, Array]:
    """The lower (or upper) triangular L with L L^T = a, from one triangle of a"""
    del check_errors

    def one(matrix: Array) -> Array:
        matrix = np.array(matrix.T if upper else matrix)
        size = len(matrix)
        for place in range(size):
            matrix[place, place] = ops.sqrt(np.asarray(matrix[place, place]))[()]
            for row in range(place + 1, size):
                matrix[row, place] = ops.divide(np.asarray(matrix[row, place]), np.asarray(matrix[place, place]))[()]
            for column in range(place + 1, size):
                scaled = ops.multiply(np.ascontiguousarray(matrix[column:, place]), np.asarray(matrix[column, place]))
                matrix[column:, column] = ops.subtract(np.ascontiguousarray(matrix[column:, column]), scaled)
            matrix[place, place + 1 :] = number(ops, 0.0)[()]
        return np.ascontiguousarray(matrix.T) if upper else matrix

    return _each(one, a.shape[:-2], a), np.zeros(a.shape[:-2], dtype=np.int64)


@register("aten.linalg_solve_triangular.default")
def solve_triangular(
    ops: Arithmetic, a: Array, b: Array, upper: bool, left: bool = True, unitriangular: bool = False
) -> Array:
    """a^-1 b, or b a^-1, for one triangle of a"""

    def one(matrix: Array, right: Array) -> Array:
        matrix, right = np.array(matrix), np.array(right)
        if unitriangular:
            for place in range(len(matrix)):
                matrix[place, place] = number(ops, 1.0)[()]
        flipped = not upper
        if not left:
            matrix, right, flipped = matrix.T, right.T, not flipped
        # Backwards in both directions a lower triangular system is an upper one.
        found = (
            _back_substituted(ops, matrix[::-1, ::-1], right[::-1])[::-1]
            if flipped
            else _back_substituted(ops, matrix, right)
        )
        return np.ascontiguousarray(found if left else found.T)

    return _each(one, np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a, b)


@runtime_checkable
class KnowsMatrixExponential(Protocol):
    """An arithmetic that has the exponential of a matrix itself."""

    def matrix_exponential(self, x: Array) -> Array:
        """Exp of a square matrix."""
        ...


TERMS = 40


@register("aten.linalg_matrix_exp.default")
def matrix_exponential(ops: Arithmetic, a: Array) -> Array:
    """The exponential of each matrix: the arithmetic's own, or where it encloses nothing, a series of a scaled one"""

    def one(matrix: Array) -> Array:
        if isinstance(ops, KnowsMatrixExponential):
            return ops.matrix_exponential(matrix)
        size = float(np.max(np.sum(np.abs(ops.to_float64(matrix)), axis=1), initial=0.0))
        halvings = max(0, int(np.ceil(np.log2(size))) + 4) if size > 0 and np.isfinite(size) else 0
        scaled = ops.multiply(matrix, number(ops, 2.0**-halvings))
        result = term = ops.convert(np.eye(len(matrix)))
        for count in range(1, TERMS):
            term = ops.divide(ops.matmul(term, scaled), number(ops, float(count)))
            result = ops.add(result, term)
        for _ in range(halvings):
            result = ops.matmul(result, result)
        return result

    return _each(one, a.shape[:-2], a)
