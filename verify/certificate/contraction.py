"""Is f a contraction near its fixed point: a rigorous answer, in the Euclidean norm of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from verify.certificate.fixed_point import Enclosure, jacobian_of
from verify.certificate.kernel.fixed_points import NORM_BITS, norm_bound, spectral_bound, stretch, stretch_at
from verify.certificate.kernel.numbers import Failed
from verify.certificate.linear_algebra import exact_matrix, float_matrix, spectral_vectors
from verify.certificate.state_map import StateMap, all_finite, box, first_clause
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.precision import flint_precision


NEIGHBOURHOOD = 2.0**-7
"""Radius of the neighbourhood on which f is to contract, in units of the greatest component of the fixed point."""

SMALLEST = 2.0**-33
NARROWER = 4
"""The least radius that is tried where no bound below 1 is found on the whole neighbourhood, in the same units, and how
many radii are tried, the least last."""

STEP = 2.0**-6
"""The share of a radius that is tried next where a radius gives no bound at all."""

PROBES = 4
POWER_STEPS = 4
"""Corners of the neighbourhood at which an expansion is looked for, and steps of the power method at each."""


@dataclass(frozen=True)
class Expansion:
    """A point of the neighbourhood at which f is no contraction.

    Attributes:
        tape: of f, that holds there.
        point: float64, flat.
        vector: v, float64, flat.
        lower: ||K v|| / ||v|| is at least this.
    """

    tape: str
    point: NDArray[np.float64]
    vector: NDArray[np.float64]
    lower: arb


@dataclass(frozen=True)
class Bound:
    """A bound of ||df/dz||_2 over a box round the fixed point.

    Attributes:
        tape: of f, that holds over the box.
        radius: of the box.
        constant: upper bound of ||df/dz||_2, for every sample.
        vectors: approximate singular vectors with which it is proved, (left, right) as columns, for every sample.
    """

    tape: str
    radius: float
    constant: arb
    vectors: list[tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class Contraction:
    """How strongly f contracts near the fixed point.

    Attributes:
        near: the bound over the neighbourhood, if it is below 1, or None.
        nearby: a bound over a smaller box where a comparison, which may be a jump, is not decided over the whole
            neighbourhood, or where f expands somewhere in it, or None.
        expansion: where f expands in the neighbourhood, or None.
        otherwise: why there is no bound over the neighbourhood, a clause.
        lower, upper: rigorous bounds of ||df/dz||_2 at the fixed point, of the sample where it is greatest.
        vectors: with which they are proved, by samples.
        eigenvectors: approximate eigenvectors of df/dz, by samples, where `spectral_radius` is proved with them.
        radius: of the neighbourhood.
        spectral_radius: upper bound of the greatest |eigenvalue| of df/dz at the fixed point, where f is no contraction
            there; else infinite, for nothing is said of it.
        eigenvalues: float64 eigenvalues of df/dz at the fixed point, all samples (not rigorous).
    """

    near: Bound | None
    nearby: Bound | None
    expansion: Expansion | None
    otherwise: str
    radius: float
    lower: arb
    upper: arb
    vectors: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    eigenvectors: list[NDArray[np.complex128]]
    spectral_radius: arb
    eigenvalues: NDArray[np.complex128]

    @property
    def constant(self) -> arb:
        """The bound over the neighbourhood, or at the fixed point alone."""
        return self.upper if self.near is None else self.near.constant


def contraction(function: StateMap, enclosure: Enclosure) -> Contraction:
    """Bound df/dz at the fixed point and over a neighbourhood of it.

    Args:
        function: f in balls.
        enclosure: its fixed point.
    """
    with flint_precision(NORM_BITS):
        vectors, upper = _bound(enclosure.blocks)
        lower, spectral = arb(0), arb(0)
        for block, (_, right) in zip(enclosure.blocks, vectors, strict=True):
            lower = lower.max(stretch(block, [arb(x) for x in right[:, 0].tolist()]).lower())
        pairs = [spectral_vectors(block) for block in enclosure.blocks]
        eigenvectors = [pair[1] for pair in pairs] if lower >= 1 else []
        for block, x in zip(enclosure.blocks, eigenvectors, strict=False):
            parts = x.real.ravel().tolist(), x.imag.ravel().tolist()
            spectral = spectral.max(spectral_bound(block, *parts))
        spectral = spectral if eigenvectors else arb("inf")
    values = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, dtype=np.complex128)
    size = max(1.0, max((abs(float(ball)) for ball in enclosure.center), default=0.0))
    near, nearby, expansion, otherwise = None, None, None, "1 does not separate them"
    if upper < 1:
        whole = _over(function, enclosure, NEIGHBOURHOOD * size)
        near, otherwise = whole.bound, whole.otherwise
        if near is None:
            decided = whole.decided
            expansion = _expansion(function, enclosure, NEIGHBOURHOOD * size, vectors) if decided else None
            nearby = _nearby(function, enclosure, whole, upper, SMALLEST * size)
            if decided and expansion is None:
                near, nearby = nearby, None
    radius = NEIGHBOURHOOD * size
    return Contraction(
        near, nearby, expansion, otherwise, radius, lower, upper, vectors, eigenvectors, spectral, values
    )


def _bound(blocks: list[arb_mat]) -> tuple[list[tuple[NDArray[np.float64], NDArray[np.float64]]], arb]:
    upper = arb(0)
    vectors: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for block in blocks:
        left, _, right = np.linalg.svd(float_matrix(block))
        vectors.append((left, right.T))
        try:
            upper = upper.max(norm_bound(block, exact_matrix(left), exact_matrix(right.T)).upper())
        except Failed:
            upper = arb("inf")
    return vectors, upper


@dataclass(frozen=True)
class _Attempt:
    """A bound over a box.

    Attributes:
        radius: of the box.
        bound: below 1, or None.
        decided: whether every comparison in f is decided there.
        otherwise: why there is none, a clause.
        constant: what was found, if anything.
    """

    radius: float
    bound: Bound | None
    decided: bool
    otherwise: str
    constant: arb | None = None


def _nearby(function: StateMap, enclosure: Enclosure, tried: _Attempt, upper: arb, least: float) -> Bound | None:
    """The first bound below 1 over a narrower box.

    Where f is smooth, what the bound has over that at the fixed point falls at least as fast as the radius does.
    """
    for count in range(NARROWER):
        share = STEP if tried.constant is None else min(0.5, float((1 - upper) / (2 * (tried.constant - upper))))
        radius = max(share * tried.radius, least) if count + 1 < NARROWER else least
        tried = _over(function, enclosure, radius)
        if tried.bound is not None or radius == least:
            break
    return tried.bound


def _over(function: StateMap, enclosure: Enclosure, radius: float) -> _Attempt:
    def without(why: str, *, decided: bool = True, constant: arb | None = None) -> _Attempt:
        return _Attempt(radius, None, decided, f"within {radius:.1e} of it {why}", constant)

    try:
        run = function.run("f", box(enclosure.center, arb(radius)))
    except Undecided as undecided:
        return without(f"a comparison in f is not decided ({first_clause(undecided)})", decided=False)
    with flint_precision(NORM_BITS):
        try:
            blocks = jacobian_of(function, run, len(enclosure.blocks))
        except Failed as failed:
            return without(str(failed))
        if not all(all_finite(block.entries()) for block in blocks):
            return without("df/dz is not bounded")
        vectors, constant = _bound(blocks)
    if constant < 1:
        return _Attempt(radius, Bound(run.tape, radius, constant, vectors), True, "", constant)
    if not constant.is_finite():
        return without("df/dz is not bounded")
    return without(f"no bound below {float(constant.upper()):.6g} was found", constant=constant)


def _expansion(
    function: StateMap,
    enclosure: Enclosure,
    radius: float,
    vectors: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Expansion | None:
    """Look for a corner of the neighbourhood at which f expands, by the power method on K^T K."""
    center = np.array([float(ball) for ball in enclosure.center])
    first = np.concatenate([right[:, 0] for _, right in vectors])
    generator = np.random.default_rng(20260119)
    signs = [np.sign(first), -np.sign(first), *generator.choice([-1.0, 1.0], (PROBES - 2, center.size))]
    for sign in signs:
        # A little inside, for the center is rounded here.
        point = center + radius * (1 - 2.0**-20) * sign
        try:
            run = function.run("f", function.point(point))
        except Undecided:
            continue
        vector = first
        with flint_precision(function.bits):
            for _ in range(POWER_STEPS):
                image = function.machine.forward(run, function.point(vector), [])
                back = function.machine.reverse(run, [ball.mid() for ball in image])
                longer = np.array([float(ball) for ball in back])
                size = float(np.linalg.norm(longer))
                if not np.isfinite(size) or size == 0:
                    break
                vector = longer / size
            lower = stretch_at(function.machine, run, function.point(vector)).lower()
            if lower >= 1:
                return Expansion(run.tape, point, vector, lower)
    return None
