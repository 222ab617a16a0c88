"""Is f a contraction near its fixed point: a rigorous answer, in the Euclidean norm of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.answers import Answer, Finding
from verify.certificate.fixed_point import Enclosure
from verify.certificate.linear_algebra import NormBound, euclidean_norm, matrix, spectral_radius_bound
from verify.certificate.state_map import StateMap, all_finite, box
from verify.reference.arithmetic import Array, Undecided


RADII = (2.0**-7, 2.0**-20, 2.0**-33)
"""Radii of the neighbourhood that are tried, largest first, in units of the greatest component of the fixed point."""


@dataclass(frozen=True)
class Contraction:
    """How strongly f contracts near the fixed point.

    Attributes:
        finding: the answer and its sentence.
        radius: of the box round the center on which `constant` holds; 0 where only the fixed point's enclosure does.
        constant: upper bound of |f(z) - f(w)| / |z - w| on that box, for every sample.
        at_fixed_point: rigorous bounds of ||df/dz||_2 at the fixed point, of the sample where it is greatest.
        bounds: one bound for each sample, with the vectors that prove it.
        spectral_radius: upper bound of the greatest |eigenvalue| of df/dz at the fixed point.
        eigenvalues: float64 eigenvalues of df/dz at the fixed point, all samples (not rigorous).
    """

    finding: Finding
    radius: float
    constant: arb
    at_fixed_point: tuple[arb, arb]
    bounds: tuple[NormBound, ...]
    spectral_radius: arb
    eigenvalues: NDArray[np.complex128]


def contraction(function: StateMap, enclosure: Enclosure) -> Contraction:
    """Bound df/dz at the fixed point and on a neighbourhood as large as the bound stays below 1.

    Args:
        function: f in balls.
        enclosure: its fixed point.
    """
    bits = enclosure.bits
    blocks = [matrix(block) for block in enclosure.jacobian]
    bounds = tuple(euclidean_norm(block, bits) for block in blocks)
    lower, upper = _greatest([bound.lower for bound in bounds]), _greatest([bound.upper for bound in bounds])
    spectral = _greatest([spectral_radius_bound(block, bits) for block in blocks])
    values = [
        np.linalg.eigvals(np.array([float(ball) for ball in block.ravel().tolist()]).reshape(block.shape))
        for block in enclosure.jacobian
    ]
    eigenvalues = np.concatenate(values).astype(np.complex128) if values else np.zeros(0, dtype=np.complex128)
    radius, constant, near = 0.0, upper, bounds
    if upper < 1:
        size = max(1.0, max((abs(float(ball)) for ball in enclosure.center.tolist()), default=0.0))
        for share in RADII:
            found = _over(function, enclosure, share * size)
            if found is not None and _greatest([bound.upper for bound in found]) < 1:
                radius, constant, near = share * size, _greatest([bound.upper for bound in found]), found
                break
    finding = _finding(lower, upper, constant, radius, spectral)
    return Contraction(finding, radius, constant, (lower, upper), near, spectral, eigenvalues)


def _greatest(values: list[arb]) -> arb:
    result = arb(0)
    for value in values:
        result = result.max(value)
    return result


def _over(function: StateMap, enclosure: Enclosure, radius: float) -> tuple[NormBound, ...] | None:
    try:
        derivative: Array = function.jacobian(box(enclosure.center, arb(radius)), enclosure.samples)
    except Undecided:
        return None
    if not all_finite(derivative):
        return None
    return tuple(euclidean_norm(matrix(block), enclosure.bits) for block in derivative)


def _finding(lower: arb, upper: arb, constant: arb, radius: float, spectral: arb) -> Finding:
    claim = "contraction"
    if constant < 1:
        where = f"within {radius:.1e} of it" if radius else "at the fixed point"
        return Finding(
            claim,
            Answer.CERTIFIED,
            f"f shortens distances to {float(constant):.6g} of theirs or less {where} (Euclidean norm)",
        )
    if lower >= 1:
        tail = (
            f"; all eigenvalues lie within {float(spectral):.6g}, so iterating converges from nearby all the same"
            if spectral < 1
            else "; an eigenvalue may lie outside the unit circle, so plain iteration need not converge"
        )
        return Finding(
            claim,
            Answer.REFUTED,
            f"f is not a contraction at its fixed point: ||df/dz||_2 is at least {float(lower):.6g}{tail}",
        )
    return Finding(
        claim,
        Answer.UNDECIDED,
        f"||df/dz||_2 at the fixed point lies in [{float(lower):.6g}, {float(upper):.6g}], which 1 does not separate",
    )
