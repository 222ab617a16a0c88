"""Sorting: values are continuous and need no decision, the places they came from need one."""

from __future__ import annotations

from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, Undecided
from verify.reference.graph.operations.numbers import hint, is_exact
from verify.reference.graph.registry import register


def _order(ops: Arithmetic, rows: Array, descending: bool) -> Array:
    """The places of each row's numbers in order, every neighbouring pair compared.

    Raises:
        Undecided: two numbers overlap.
    """
    seen = rows.astype(np.float64) if is_exact(rows) else hint(ops, rows)
    places = np.argsort(-seen if descending else seen, axis=-1, kind="stable")
    if not is_exact(rows) and rows.shape[-1] > 1:
        ordered = np.take_along_axis(rows, places, -1)
        low, high = (ordered[:, 1:], ordered[:, :-1]) if descending else (ordered[:, :-1], ordered[:, 1:])
        if not np.all(ops.less_equal(low, high)):
            raise Undecided("the order of two numbers cannot be seen in float64")
    return places


def _network(ops: Arithmetic, rows: Array, descending: bool) -> Array:
    """Each row in order, by exchanges of neighbours, which are maxima and minima."""
    columns = [np.ascontiguousarray(rows[:, place]) for place in range(rows.shape[1])]
    for turn in range(len(columns)):
        for place in range(turn % 2, len(columns) - 1, 2):
            low = ops.minimum(columns[place], columns[place + 1])
            high = ops.maximum(columns[place], columns[place + 1])
            columns[place], columns[place + 1] = (high, low) if descending else (low, high)
    return np.stack(columns, axis=1)


def ordered(ops: Arithmetic, x: Array, dim: int, descending: bool) -> tuple[Array, Array | Undecided]:
    """`x` in order along an axis, and where its numbers were, or why that cannot be said."""
    if x.ndim == 0:
        return x, np.zeros((), dtype=np.int64)
    moved = np.moveaxis(x, dim, -1)
    rows = moved.reshape(-1, moved.shape[-1])

    def back(values: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(values.reshape(moved.shape), -1, dim))

    try:
        places = _order(ops, rows, descending)
    except Undecided as undecided:
        return back(_network(ops, rows, descending)), undecided
    return back(np.take_along_axis(rows, places, -1)), back(places)


@register("aten.sort.default", "aten.sort.stable")
def sort(
    ops: Arithmetic, x: Array, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> tuple[Array, Any]:
    """`x` in order along an axis, and where its numbers were"""
    del stable
    return ordered(ops, x, dim, descending)


@register("aten.topk.default")
def greatest_few(
    ops: Arithmetic, x: Array, k: int, dim: int = -1, largest: bool = True, in_order: bool = True
) -> tuple[Array, Any]:
    """The k greatest or least numbers along an axis, in order, and where they were"""
    del in_order
    values, places = ordered(ops, x, dim, largest)
    if x.ndim == 0:
        return values, places
    cut = (*(slice(None),) * (dim % x.ndim), slice(0, k))
    return values[cut], places[cut] if isinstance(places, np.ndarray) else places
