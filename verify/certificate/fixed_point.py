"""Where a fixed point is, refined until it can be proved, or a proof that there is none near the start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

from verify.certificate.kernel.code import Run
from verify.certificate.kernel.enclosures import size_of
from verify.certificate.kernel.fixed_points import NORM_BITS, absence, ball_radius, fixed_point, independent, jacobian
from verify.certificate.kernel.numbers import Failed, OtherBranch
from verify.certificate.linear_algebra import exact_matrix, float_matrix
from verify.certificate.state_map import StateMap, all_finite, box, first_clause
from verify.reference.arithmetic import Undecided
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
        tape: of f, that holds over the box.
        center: exact midpoints, n of them.
        radius: of the box in which the fixed point is unique.
        inverses: approximate inverses of I - K at the center, float64, shape (samples, m, m).
        solution: balls that contain the fixed point.
        blocks: df/dz over the whole box, by samples.
    """

    tape: str
    center: list[arb]
    radius: arb
    inverses: NDArray[np.float64]
    solution: list[arb]
    blocks: list[arb_mat]


def enclose_fixed_point(
    function: StateMap, start: NDArray[np.float64], samples: int | None = None
) -> tuple[Enclosure | None, str]:
    """Refine an approximate fixed point and prove one nearby, by the kernel's `fixed_point`.

    Args:
        function: f in balls.
        start: approximate fixed point, float64, flat.
        samples: blocks into which the state is parted; None for as many as do not act on each other.

    Returns:
        The enclosure, or None, and why there is none.
    """
    if not np.all(np.isfinite(start)):
        return None, "the approximate fixed point is not finite"
    center = function.point(start)
    try:
        run = function.run("f", center)
    except Undecided as undecided:
        return None, f"the Jacobian at the approximate fixed point is undecided ({first_clause(undecided)})"
    with flint_precision(function.bits):
        samples = samples or independent(lambda c: function.machine.reverse(run, c), function.size, batch_of(function))
    with flint_precision(NORM_BITS):
        rough = jacobian_of(function, run, samples)
    if not all(all_finite(block.entries()) for block in rough):
        return None, "the Jacobian at the approximate fixed point is not finite"
    try:
        return _proved(function, center, _inverses(rough))
    except np.linalg.LinAlgError:
        return None, "I - df/dz is singular at the approximate fixed point, so it may not be isolated"
    except Undecided as undecided:
        return None, f"the fixed point lies on a kink, or too near to one to tell ({first_clause(undecided)})"


def _inverses(blocks: list[arb_mat]) -> NDArray[np.float64]:
    """Approximate inverses of I - K.

    Raises:
        LinAlgError: one is singular.
    """
    system = np.eye(blocks[0].nrows()) - np.stack([float_matrix(block) for block in blocks])
    if any(np.linalg.matrix_rank(block) < len(block) for block in system):
        raise np.linalg.LinAlgError
    return np.linalg.inv(system).astype(np.float64)


def batch_of(function: StateMap) -> int:
    """The number of samples, of a state that is one leaf with the batch in front; else 1."""
    shapes = list(function.recorder.shapes.values())
    return int(shapes[0][0]) if len(shapes) == 1 and len(shapes[0]) >= 2 and shapes[0][0] >= 2 else 1


def jacobian_of(function: StateMap, run: Run, samples: int) -> list[arb_mat]:
    """df/dz over what was run, by samples; the precision is the caller's."""

    def say(rows: int) -> None:
        function.progress(f"proving the fixed point: row {rows} of df/dz at {function.bits} bits")

    return jacobian(function.machine, run, samples, say)


def _proved(function: StateMap, center: list[arb], inverses: NDArray[np.float64]) -> tuple[Enclosure | None, str]:
    preconditioners = [exact_matrix(block) for block in inverses]
    with flint_precision(function.bits):
        center, step = _refined(function, center, preconditioners)
        rounding = size_of(center).max(arb(1)) * arb(2) ** (8 - function.bits)
        radius = ball_radius((8 * step + rounding).upper())
    reason = f"Krawczyk's operator does not map the box into itself at {function.bits} bits"
    for _ in range(INFLATIONS):
        over = function.run("f", box(center, radius))
        with flint_precision(function.bits):
            try:
                proved = fixed_point(function.machine, over.tape, center, radius, preconditioners)
            except OtherBranch as other:
                raise Undecided(str(other)) from other
            except Failed as failed:
                if "independent" in str(failed) and len(inverses) > 1:
                    return None, str(failed)
                if function.machine.hulls:
                    # On a kink the middle of all slopes over the box preconditions better than one of them.
                    inverses = _inverses(jacobian_of(function, over, len(inverses)))
                    preconditioners = [exact_matrix(block) for block in inverses]
                radius = ball_radius((16 * radius).upper())
                continue
        return Enclosure(over.tape, center, radius, inverses, proved[0], proved[1]), ""
    if function.machine.hulls:
        reason = "the fixed point lies on a kink, or too near to one to tell"
    return None, reason


def _steps(function: StateMap, center: list[arb], preconditioners: list[arb_mat]) -> list[arb]:
    """C (c - f(c)), by samples."""
    value = function.value(center)
    defect = [point - image for point, image in zip(center, value, strict=True)]
    width = len(center) // len(preconditioners)
    return [
        entry
        for sample, c in enumerate(preconditioners)
        for entry in (c * arb_mat(width, 1, defect[sample * width : (sample + 1) * width])).entries()
    ]


def _refined(function: StateMap, center: list[arb], preconditioners: list[arb_mat]) -> tuple[list[arb], arb]:
    """Chord steps until they stop shrinking; the exact center and the size of the last step."""
    last: arb | None = None
    for _ in range(REFINEMENTS):
        step = _steps(function, center, preconditioners)
        size = size_of(step)
        if not all_finite(step) or (last is not None and not 2 * size < last):
            return center, size if last is None or size.is_finite() else last
        center = [(point - part).mid() for point, part in zip(center, step, strict=True)]
        last = size
    return center, last if last is not None else arb(0)


@dataclass(frozen=True)
class Absence:
    """A proof that f has no fixed point near its start.

    Attributes:
        tape: of f, that holds over the box.
        reach: there is none with |z - z0| <= reach in every component.
        component: of f(z) - z, which keeps its sign there.
    """

    tape: str
    reach: float
    component: int


def refute_fixed_point(function: StateMap, reach: float) -> Absence | None:
    """Try to prove that f has no fixed point with |z - z0| <= reach in every component, by the kernel's `absence`.

    The components with the greatest |f(z0) - z0| are tried. None is returned where nothing is proved.
    """
    start = function.point(function.start)
    try:
        tape = function.run("f", box(start, arb(reach))).tape
        image = function.value(start)
    except Undecided:
        return None
    residual = [float(value) - float(point) for value, point in zip(image, start, strict=True)]
    with flint_precision(function.bits):
        for place in sorted(range(function.size), key=lambda place: -abs(residual[place]))[:CANDIDATES]:
            try:
                absence(function.machine, tape, start, arb(reach), place)
            except Failed:
                continue
            return Absence(tape, reach, place)
    return None
