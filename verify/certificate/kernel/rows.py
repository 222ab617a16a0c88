"""Many cotangents at once: in place of each number a row, an arb_mat of one number for every cotangent."""

from __future__ import annotations

from typing import Any

from flint import arb, arb_mat

from verify.certificate.kernel.numbers import exponential_slope


def are_rows(values: list[Any]) -> bool:
    """Whether what is not None is rows, rather than numbers."""
    return isinstance(next((value for value in values if value is not None), None), arb_mat)


def stacked(rows: list[Any], count: int) -> arb_mat:
    """Rows of `count` numbers one below the other, None for zeros."""
    zeros = [arb(0)] * count
    return arb_mat(len(rows), count, [x for row in rows for x in (zeros if row is None else row.entries())])


def split(matrix: arb_mat) -> list[arb_mat]:
    """The rows of a matrix."""
    return [arb_mat(1, matrix.ncols(), row) for row in matrix.tolist()]


def product_rows(received: list[Any], side: int, other: arb_mat) -> list[Any]:
    """What reaches one factor of a product A B.

    Args:
        received: the rows that reach the product, row-major, None for zeros.
        side: 0 for A, 1 for B.
        other: B for A, the transpose of A for B.

    Returns:
        Rows for each number of the factor, row-major.
    """
    height, width = other.nrows(), other.ncols()
    lines = [received[first : first + width] for first in range(0, len(received), width)]
    if side == 1:
        lines = [received[first :: len(received) // width] for first in range(len(received) // width)]
    count = next(row.ncols() for row in received if row is not None)
    found = [
        [None] * height if all(row is None for row in line) else split(other * stacked(line, count)) for line in lines
    ]
    return [row for line in (found if side == 0 else zip(*found, strict=True)) for row in line]


def exponential_rows(matrix: arb_mat, received: list[Any]) -> list[arb_mat]:
    """`exponential_slope` along the matrix that each cotangent gives."""
    count = next(row.ncols() for row in received if row is not None)
    ways = [[None if row is None else row[0, place] for row in received] for place in range(count)]
    found = [exponential_slope(matrix, way).entries() for way in ways]
    return [arb_mat(1, count, [part[place] for part in found]) for place in range(len(received))]
