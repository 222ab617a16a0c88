"""Proof that a fixed point exists and is unique in a box, by Krawczyk's operator, and an enclosure of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from verify.certificate.answers import Answer, Finding
from verify.certificate.linear_algebra import exact_matrix, identity, matrix
from verify.certificate.state_map import (
    StateMap,
    all_finite,
    as_radius,
    box,
    first_clause,
    greatest_radius,
    greatest_size,
    midpoints,
)
from verify.reference.arithmetic import Array, Undecided
from verify.reference.arithmetic.balls import filled
from verify.reference.arithmetic.precision import flint_precision


REFINEMENTS = 80
"""Chord steps; each gains the digits of the float64 inverse, some 40 bits, so 3000 bits take 75."""
INFLATIONS = 6

CANDIDATES = 32
"""Components that are tried for a proof that there is no fixed point."""


@dataclass(frozen=True)
class Enclosure:
    """A box in which f has exactly one fixed point, and a tighter box that contains it.

    Attributes:
        center: exact midpoints, shape (n,).
        radius: of the box in which the fixed point is unique.
        inverses: approximate inverses of I - K at the center, float64, shape (samples, m, m).
        solution: balls that contain the fixed point.
        jacobian: df/dz over the whole box, balls of shape (samples, m, m).
        samples: number of independent blocks.
        bits: working precision.
    """

    center: Array
    radius: arb
    inverses: NDArray[np.float64]
    solution: Array
    jacobian: Array
    samples: int
    bits: int


def enclose_fixed_point(function: StateMap, start: NDArray[np.float64]) -> tuple[Enclosure | None, str]:
    """Refine an approximate fixed point and prove one nearby.

    Krawczyk's operator of G(z) = z - f(z) on the box Z with center c and an approximate inverse C of I - K(c):

        N(Z) = c - C (c - f(c)) + (I - C (I - K(Z))) (Z - c)

    N(Z) in the interior of Z proves that f has one and only one fixed point in Z, and that it lies in N(Z).

    Args:
        function: f in balls.
        start: approximate fixed point, float64, flat.

    Returns:
        The enclosure, or None, and a sentence: what was proved or why nothing was.

    References:
        R. Krawczyk, Computing 4 (1969), doi:10.1007/BF02234767; R. E. Moore, SIAM J. Numer. Anal. 14 (1977),
        doi:10.1137/0714040.
    """
    bits = function.ops.bits
    if not np.all(np.isfinite(start)):
        return None, "the approximate fixed point is not finite"
    center = function.ops.convert(start)
    try:
        samples = function.independent_samples(box(center, arb(0)))
        rough = function.jacobian(center, samples)
    except Undecided as undecided:
        return None, f"the Jacobian at the approximate fixed point is undecided ({first_clause(undecided)})"
    if not all_finite(rough):
        return None, "the Jacobian at the approximate fixed point is not finite"
    width = rough.shape[1]
    system = np.eye(width) - np.array([float(ball) for ball in rough.ravel().tolist()]).reshape(rough.shape)
    if any(np.linalg.matrix_rank(block) < width for block in system):
        return None, "I - df/dz is singular at the approximate fixed point, so it may not be isolated"
    inverses = np.linalg.inv(system).astype(np.float64)
    preconditioners = [exact_matrix(block) for block in inverses]
    center, step = _refined(function, center, preconditioners)
    with flint_precision(bits):
        rounding = greatest_size(center).max(arb(1)) * arb(2) ** (8 - bits)
        radius = as_radius((8 * step + rounding).upper())
    for _ in range(INFLATIONS):
        try:
            region = box(center, radius)
            derivative = function.jacobian(region, samples)
            image = _krawczyk(function, center, radius, preconditioners, derivative)
        except Undecided as undecided:
            return None, f"the fixed point lies on a kink, or too near to one to tell ({first_clause(undecided)})"
        if not all_finite(image):
            return None, "the Jacobian over the box is not finite"
        if all(outer.contains_interior(inner) for outer, inner in zip(region.tolist(), image.tolist(), strict=True)):
            sentence = f"one and only one fixed point within {float(radius):.1e} of the center, enclosed"
            return Enclosure(center, radius, inverses, image, derivative, samples, bits), sentence
        with flint_precision(bits):
            radius = as_radius((16 * radius).upper())
    return None, f"Krawczyk's operator does not map the box into itself at {bits} bits"


def _steps(function: StateMap, center: Array, preconditioners: list[arb_mat]) -> Array:
    """C (c - f(c)), blockwise."""
    defect = function.ops.subtract(center, function.value(center)).reshape(len(preconditioners), -1)
    with flint_precision(function.ops.bits):
        parts = [(c * matrix(rows[:, None])).entries() for c, rows in zip(preconditioners, defect, strict=True)]
    return filled([entry for part in parts for entry in part], center.shape)


def _refined(function: StateMap, center: Array, preconditioners: list[arb_mat]) -> tuple[Array, arb]:
    """Chord steps until they stop shrinking; the exact center and the size of the last step."""
    last: arb | None = None
    for _ in range(REFINEMENTS):
        step = _steps(function, center, preconditioners)
        size = greatest_size(step)
        if not all_finite(step) or (last is not None and not 2 * size < last):
            return center, size if last is None or size.is_finite() else last
        center = midpoints(function.ops.subtract(center, step))
        last = size
    return center, last if last is not None else arb(0)


def _krawczyk(
    function: StateMap, center: Array, radius: arb, preconditioners: list[arb_mat], derivative: Array
) -> Array:
    moved = function.ops.subtract(center, _steps(function, center, preconditioners))
    spread: list[arb] = []
    with flint_precision(function.ops.bits):
        unit = identity(derivative.shape[1])
        for c, block in zip(preconditioners, derivative, strict=True):
            remainder = unit - c * (unit - matrix(block))
            for row in remainder.tolist():
                # (remainder) (Z - c) with Z - c = [-r, r] in every component.
                spread.append((sum((abs(entry) for entry in row), arb(0)) * radius).abs_upper())
        return filled([point + arb(0, size) for point, size in zip(moved.tolist(), spread, strict=True)], moved.shape)


@dataclass(frozen=True)
class Absence:
    """A proof that f has no fixed point near its start.

    Attributes:
        finding: the answer and its sentence.
        reach: there is none with |z - z0| <= reach in every component.
        component: of f(z) - z, which keeps its sign there.
    """

    finding: Finding
    reach: float
    component: int


def refute_fixed_point(function: StateMap, reach: float) -> Absence | None:
    """Try to prove that f has no fixed point with |z - z0| <= reach in every component.

    f(z) - z lies in f(z0) - z0 + (K(Z) - I) (Z - z0) for every z of the box Z; where a component excludes 0 there is
    none. The components with the greatest |f(z0) - z0| are tried, one pullback each. None is returned where nothing is
    proved.
    """
    try:
        start = function.ops.convert(function.start)
        residual = function.ops.subtract(function.value(start), start).tolist()
        order = sorted(range(function.size), key=lambda place: -abs(float(residual[place])))
        pullback = function.pullback_at(box(start, arb(reach)))
        for place in order[:CANDIDATES]:
            seed = np.zeros(function.size)
            seed[place] = 1.0
            slopes = function.ops.subtract(pullback(function.ops.convert(seed)), function.ops.convert(seed))
            with flint_precision(function.ops.bits):
                spread = (sum((abs(entry) for entry in slopes.tolist()), arb(0)) * reach).abs_upper()
                total = residual[place] + arb(0, spread)
                decided = total > 0 or total < 0
            if decided:
                sentence = (
                    f"f has no fixed point within {reach:g} of z0 in every component: there f(z) - z keeps its sign in "
                    f"component {place}; further away nothing is known"
                )
                return Absence(Finding("fixed point", Answer.REFUTED, sentence), reach, place)
    except Undecided:
        return None
    return None


def center_of(enclosure: Enclosure) -> NDArray[np.float64]:
    """The float64 nearest to the center."""
    return np.array([float(ball) for ball in enclosure.center.tolist()])


def enclosed_radius(enclosure: Enclosure) -> arb:
    """The greatest radius of the solution's balls."""
    return greatest_radius(enclosure.solution)
