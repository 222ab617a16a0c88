"""A traced function in balls, with its state as one flat vector and its Jacobian by blocks of independent samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.settings import Progress, silent
from verify.reference.arithmetic import Array, Undecided
from verify.reference.arithmetic.balls import Balls, filled
from verify.reference.graph import Program, Traced


class StateMap:
    """f and its VJP at a working precision.

    Args:
        traced: the recorded function.
        bits: working precision of the balls.
        progress: called with a few words now and then while a Jacobian is made or steps are taken.

    Attributes:
        ops: the ball arithmetic.
        size: number of components of the state.
    """

    def __init__(self, traced: Traced, bits: int, progress: Progress = silent) -> None:
        self.traced = traced
        self.progress = progress
        self.ops = Balls(bits)
        arrays = traced.arrays()
        real = {entry.name for entry in traced.forward.inputs if entry.type.is_real}
        fixed = {
            name: self.ops.convert(values) if name in real else values
            for name, values in arrays.items()
            if name not in traced.state
        }
        self._forward = Program(traced.forward, self.ops, fixed)
        self._linearised = Program(traced.linearised, self.ops, fixed)
        self._pullback_of_state = Program(traced.vjp.restricted(traced.state), self.ops, fixed)
        self._shapes = {name: arrays[name].shape for name in traced.state}
        self.size = sum(math.prod(shape) for shape in self._shapes.values())
        self.start = np.concatenate([arrays[name].ravel() for name in traced.state])

    def split(self, z: Array) -> dict[str, Array]:
        """The state's leaves by name, from a flat vector."""
        leaves: dict[str, Array] = {}
        first = 0
        for name, shape in self._shapes.items():
            leaves[name] = z[first : first + math.prod(shape)].reshape(shape)
            first += math.prod(shape)
        return leaves

    def join(self, leaves: Mapping[str, Array]) -> Array:
        """A flat vector, from the state's leaves by name."""
        return np.concatenate([leaves[name].reshape(-1) for name in self._shapes])

    def value(self, z: Array) -> Array:
        """f(z), flat; z flat, balls or float64."""
        return self.join(self._forward(self.split(z)))

    def pullback_at(self, z: Array) -> Callable[[Array], Array]:
        """The map c -> K(z)^T c, flat to flat; what depends on z alone is computed once."""
        program = self._pullback_of_state.at(self.split(z))
        return lambda cotangent: self.join(program(self._split_cotangent(cotangent)))

    def linearised(self, z: Array) -> tuple[Array, Callable[[Array], dict[str, Array]]]:
        """f(z), flat, and the map from c to the gradient of <c, f> by every leaf; f is evaluated once for both."""
        program = self._linearised.at(self.split(z))
        known = program.known
        value = np.concatenate([known[name.replace("z0", "f", 1)].reshape(-1) for name in self._shapes])

        def pullback(cotangent: Array) -> dict[str, Array]:
            results = program(self._split_cotangent(cotangent))
            return {name: results[name] for name in self.traced.leaves}

        return value, pullback

    def _split_cotangent(self, cotangent: Array) -> dict[str, Array]:
        return {name.replace("z0", "cotangent", 1): leaf for name, leaf in self.split(cotangent).items()}

    def independent_samples(self, z: Array) -> int:
        """How many equal blocks the state falls into that do not see each other, proved on the box z.

        The state's single leaf has the batch first. For each sample i the pullback of the cube [-1, 1]^m of cotangents
        on that sample encloses K^T c for every such c; where it is exactly 0 outside sample i, no other sample acts on
        f_i anywhere in the box.

        Returns:
            The batch size, or 1 where the samples are not independent or the state is not one batched leaf.
        """
        shapes = list(self._shapes.values())
        if len(shapes) != 1 or len(shapes[0]) < 2 or shapes[0][0] < 2:
            return 1
        batch, width = shapes[0][0], self.size // shapes[0][0]
        pullback = self.pullback_at(z)
        for sample in range(batch):
            inside = range(sample * width, (sample + 1) * width)
            cotangent = [arb(0, 1) if place in inside else arb(0) for place in range(self.size)]
            gradient = pullback(filled(cotangent, (self.size,)))
            others = (ball for place, ball in enumerate(gradient.tolist()) if place not in inside)
            if not all(ball.is_zero() for ball in others):
                return 1
        return batch

    def jacobian(self, z: Array, samples: int) -> Array:
        """df/dz at a point or over a box, by blocks whose independence is proved there.

        Args:
            z: flat, shape (n,).
            samples: number of independent blocks; 1 for the whole matrix.

        Returns:
            Balls of shape (samples, n / samples, n / samples), [b, i, j] = df_i / dz_j in block b.

        Raises:
            Undecided: a comparison is, or the samples cannot be shown to be independent on this box.
        """
        if samples > 1 and self.independent_samples(z) != samples:
            raise Undecided("the samples act on each other somewhere in the box; take one sample at a time")
        width = self.size // samples
        rows: list[Array] = []
        pullback = self.pullback_at(z)
        for row in range(width):
            if row and row % 64 == 0:
                self.progress(f"proving the fixed point: row {row} of {width} of df/dz at {self.ops.bits} bits")
            seeds = np.zeros((samples, width))
            seeds[:, row] = 1.0
            rows.append(pullback(self.ops.convert(seeds.ravel())).reshape(samples, width))
        return np.stack(rows, axis=1) if rows else np.empty((samples, 0, 0), dtype=object)


def first_clause(undecided: Undecided) -> str:
    """What could not be decided, without the advice that follows it."""
    return str(undecided).partition(":")[0]


def box(center: NDArray[np.object_], radius: arb) -> Array:
    """Balls of one radius round exact midpoints; a separate object for each component."""
    return filled([arb(point, radius) for point in center.tolist()], center.shape)


def as_radius(size: arb) -> arb:
    """The size rounded up to what the radius of a ball can hold, so that `box` has exactly this radius."""
    return arb(0, size).rad()


def midpoints(balls: Array) -> Array:
    """The exact midpoints, as balls of radius 0."""
    return filled([ball.mid() for ball in balls.ravel().tolist()], balls.shape)


def largest(values: Iterable[arb]) -> arb:
    """The greatest of exact nonnegative balls; 0 of none."""
    result = arb(0)
    for value in values:
        if not value <= result:
            result = value
    return result


def greatest_radius(balls: Array) -> arb:
    """The greatest radius, rounded up; 0 for an empty array."""
    return largest(ball.rad() for ball in balls.ravel().tolist())


def greatest_size(balls: Array) -> arb:
    """An upper bound of the greatest absolute value; 0 for an empty array."""
    return largest(ball.abs_upper() for ball in balls.ravel().tolist())


def all_finite(balls: Array) -> bool:
    """Whether every ball is finite."""
    return all(ball.is_finite() for ball in balls.ravel().tolist())
