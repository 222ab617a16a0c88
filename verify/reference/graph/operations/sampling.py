"""Images at places that are given, between their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from verify.reference.arithmetic import Arithmetic, Array, BoolArray
from verify.reference.graph.operations.indexing import accumulated
from verify.reference.graph.operations.numbers import constant, number, real, truncated
from verify.reference.graph.registry import register


BILINEAR, NEAREST = 0, 1
ZEROS, BORDER = 0, 1


class Places:
    """Where a grid of shape (samples, rows, columns, 2) lies in an image, and what it is made of there.

    Args:
        ops: the arithmetic.
        shape: of the image, (samples, channels, rows, columns).
        grid: horizontal and vertical places, -1 and 1 the borders.
        mode: `BILINEAR` or `NEAREST`.
        padding: `ZEROS` or `BORDER`.
        aligned: whether -1 and 1 are the middles of the outermost pixels, rather than their outer edges.

    Raises:
        NotImplementedError: another mode or padding.
    """

    def __init__(
        self, ops: Arithmetic, shape: tuple[int, ...], grid: Array, mode: int, padding: int, aligned: bool
    ) -> None:
        if mode not in (BILINEAR, NEAREST) or padding not in (ZEROS, BORDER):
            raise NotImplementedError("grid_sample is covered bilinear or nearest, with zeros or the border outside")
        self.ops, self.mode, self.sizes = ops, mode, shape[:1:-1]
        self.samples = np.broadcast_to(np.arange(shape[0])[:, None, None], grid.shape[:3])
        self.slopes: list[Array] = []
        self.first: list[Array] = []
        self.shares: list[Array] = []
        for axis, size in enumerate(self.sizes):
            slope = number(ops, (size - aligned) / 2)
            middle = number(ops, (size - 1) / 2)
            at = ops.add(ops.multiply(np.ascontiguousarray(grid[..., axis]), slope), middle)
            slopes = np.broadcast_to(slope, at.shape)
            if padding == BORDER:
                low, high = number(ops, 0.0), number(ops, size - 1.0)
                inside = np.logical_and(ops.less(low, at), ops.less(at, high))
                at = ops.minimum(ops.maximum(at, low), high)
                slopes = ops.where(inside, slopes, constant(ops, at.shape, 0.0))
            first = self._floor(at)
            share = ops.subtract(at, ops.convert(first))
            if mode == NEAREST:
                # torch rounds halves to even.
                half = number(ops, 0.5)
                up = np.logical_or(ops.less(half, share), np.logical_and(ops.less_equal(half, share), first % 2 == 1))
                first, share = first + up, constant(ops, at.shape, 0.0)
            self.slopes.append(slopes)
            self.first.append(first)
            self.shares.append(share)

    def _floor(self, x: Array) -> Array:
        whole = truncated(self.ops, x)
        return whole - np.asarray(self.ops.less(x, self.ops.convert(whole)), dtype=np.int64)

    def weight(self, axis: int, further: int) -> Array:
        """The share of the nearer (0) or further (1) pixel along an axis."""
        share = self.shares[axis]
        return share if further else self.ops.subtract(number(self.ops, 1.0), share)

    def corners(self) -> Iterator[tuple[int, int, BoolArray, tuple[Any, ...]]]:
        """Offsets to the right and down of each pixel that takes part, whether it is inside, and its index."""
        offsets = (0, 1) if self.mode == BILINEAR else (0,)
        for right in offsets:
            for down in offsets:
                x, y = self.first[0] + right, self.first[1] + down
                inside = (x >= 0) & (x < self.sizes[0]) & (y >= 0) & (y < self.sizes[1])
                index = (self.samples, slice(None), np.clip(y, 0, self.sizes[1] - 1), np.clip(x, 0, self.sizes[0] - 1))
                yield right, down, inside, index


@register("aten.grid_sampler_2d.default")
def grid_sampler(ops: Arithmetic, x: Array, grid: Array, mode: int, padding: int, aligned: bool) -> Array:
    """The image at the places of a grid, between its pixels or at the nearest"""
    x, places = real(ops, x), Places(ops, x.shape, real(ops, grid), mode, padding, aligned)
    total = constant(ops, (*grid.shape[:3], x.shape[1]), 0.0)
    for right, down, inside, index in places.corners():
        weight = ops.multiply(places.weight(0, right), places.weight(1, down))
        weight = ops.where(inside, weight, constant(ops, weight.shape, 0.0))
        total = ops.add(total, ops.multiply(np.ascontiguousarray(x[index]), weight[..., None]))
    return np.ascontiguousarray(np.moveaxis(total, -1, 1))


@register("aten.grid_sampler_2d_backward.default")
def grid_sampler_backward(
    ops: Arithmetic, g: Array, x: Array, grid: Array, mode: int, padding: int, aligned: bool, wanted: list[bool]
) -> tuple[Array | None, Array]:
    """The gradients added up at the pixels, and what moving each place would change"""
    places = Places(ops, x.shape, real(ops, grid), mode, padding, aligned)
    pulled = np.ascontiguousarray(np.moveaxis(g, 1, -1))
    image = constant(ops, x.shape, 0.0)
    along = [constant(ops, grid.shape[:3], 0.0) for _ in range(2)]
    for right, down, inside, index in places.corners():
        nothing = constant(ops, inside.shape, 0.0)
        weights = places.weight(0, right), places.weight(1, down)
        share = ops.where(inside, ops.multiply(*weights), nothing)
        if wanted[0]:
            # The channels lie last where an index by arrays has a slice between them.
            image = accumulated(ops, image, index, ops.multiply(pulled, share[..., None]))
        if mode == BILINEAR:
            change = ops.where(inside, ops.sum(ops.multiply(pulled, np.ascontiguousarray(x[index])), axis=-1), nothing)
            for axis, (other, further) in enumerate(((weights[1], right), (weights[0], down))):
                part = ops.multiply(change, other)
                along[axis] = ops.add(along[axis], part) if further else ops.subtract(along[axis], part)
    moved = np.stack([ops.multiply(part, slope) for part, slope in zip(along, places.slopes, strict=True)], -1)
    return image if wanted[0] else None, moved
