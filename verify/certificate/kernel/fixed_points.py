"""What is proved of a fixed point: that it exists, that it does not, the norm of the derivative, the adjoint system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flint
from flint import arb, arb_mat

from verify.certificate.kernel.code import Gradient, Run
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.numbers import Failed
from verify.certificate.kernel.rows import split, stacked


def identity(size: int) -> arb_mat:
    """The identity matrix."""
    return arb_mat(size, size, [int(row == column) for row in range(size) for column in range(size)])


def inf_norm(matrix: Any) -> arb:
    """An upper bound of the greatest row sum of absolute values."""
    result = arb(0)
    for row in matrix.tolist():
        result = result.max(sum((abs(entry) for entry in row), arb(0)).abs_upper())
    return result


def ball_radius(radius: arb) -> arb:
    """The radius rounded up to what a ball can hold, so that a box has exactly this radius."""
    return arb(0, radius).rad()


NORM_BITS = 64
"""Bits at which norms are bounded: over a neighbourhood, whose balls are wide, more would be lost."""

GROUP = 256
"""Rows of K that are pulled back at once."""


def jacobian(machine: Machine, run: Run, samples: int, progress: Callable[[int], None] | None = None) -> list[arb_mat]:
    """K over what was run, one block for each sample, after it was seen that samples do not act on each other there.

    Args:
        machine: the program.
        run: of f.
        samples: number of blocks.
        progress: called with the number of rows that are done.

    Raises:
        Failed: samples act on each other.
    """
    size = len(run.output())
    width = size // samples
    _see_independent(lambda c: machine.reverse(run, c), size, samples)
    blocks: list[list[arb]] = [[] for _ in range(samples)]
    for first in range(0, width, GROUP):
        rows = split(identity(width))[first : first + GROUP]
        seeds = split(stacked(rows, width).transpose())
        image = machine.reverse_rows(run, [seeds[place % width] for place in range(size)])
        for sample in range(samples):
            columns = stacked(image[sample * width : (sample + 1) * width], len(rows))
            blocks[sample] += columns.transpose().entries()
        if progress is not None:
            progress(first + len(rows))
    return [arb_mat(width, width, block) for block in blocks]


def jacobian_by(pull: Callable[[list[arb]], list[arb]], size: int, samples: int) -> list[arb_mat]:
    """`jacobian` from what gives K^T c for one c after another."""
    width = size // samples
    _see_independent(pull, size, samples)
    blocks: list[list[arb]] = [[] for _ in range(samples)]
    for row in range(width):
        image = pull([arb(place % width == row) for place in range(size)])
        for sample in range(samples):
            blocks[sample] += image[sample * width : (sample + 1) * width]
    return [arb_mat(width, width, block) for block in blocks]


def _see_independent(pull: Callable[[list[arb]], list[arb]], size: int, samples: int) -> None:
    if samples > 1 and independent(pull, size, samples) != samples:
        raise Failed("the samples are not independent")


def independent(pull: Callable[[list[arb]], list[arb]], size: int, samples: int) -> int:
    """The number of samples, or 1 where one of them acts on another somewhere in the box.

    The pullback of the cube [-1, 1]^m of cotangents on one sample encloses K^T c for all of them.
    """
    width = size // samples
    for sample in range(samples):
        inside = range(sample * width, (sample + 1) * width)
        image = pull([arb(0, place in inside) for place in range(size)])
        if any(not ball.is_zero() for place, ball in enumerate(image) if place not in inside):
            return 1
    return samples


def fixed_point(
    machine: Machine, tape: str, center: list[arb], radius: arb, inverses: list[arb_mat]
) -> tuple[list[arb], list[arb_mat], Run]:
    """Krawczyk's operator maps the box into its interior.

    Returns:
        Balls that contain the one fixed point in the box, K over the box by samples, and f over the box.

    Raises:
        Failed: it does not.
    """
    size, samples = len(center), len(inverses)
    width = size // samples
    region = [arb(point, radius) for point in center]
    over = machine.run(tape, region)
    derivative = jacobian(machine, over, samples)
    image = machine.run(tape, center).output()
    proved: list[arb] = []
    for sample, block in enumerate(derivative):
        inside = slice(sample * width, (sample + 1) * width)
        defect = [point - value for point, value in zip(center[inside], image[inside], strict=True)]
        moved = (inverses[sample] * arb_mat(width, 1, defect)).entries()
        remainder = identity(width) - inverses[sample] * (identity(width) - block)
        for point, step, row in zip(center[inside], moved, remainder.tolist(), strict=True):
            spread = (sum((abs(entry) for entry in row), arb(0)) * radius).abs_upper()
            proved.append(point - step + arb(0, spread))
    for outer, inner in zip(region, proved, strict=True):
        if not (inner.is_finite() and outer.contains_interior(inner)):
            raise Failed("Krawczyk's operator does not map the box into its interior")
    return proved, derivative, over


def absence(machine: Machine, tape: str, start: list[arb], reach: arb, place: int) -> None:
    """f(z) - z keeps its sign in one component over the whole box, so f has no fixed point there."""
    if not 0 <= place < len(start):
        raise Failed(f"the state has no component {place}")
    seed = [arb(1) if other == place else None for other in range(len(start))]
    row = machine.reverse(machine.run(tape, [arb(point, reach) for point in start]), seed)
    here = machine.run(tape, start).output()[place]
    slopes = sum((abs(entry - (other == place)) for other, entry in enumerate(row)), arb(0))
    total = here - start[place] + arb(0, (slopes * reach).abs_upper())
    if not (total > 0 or total < 0):
        raise Failed(f"f(z) - z in component {place} lies in {total}, which does not exclude 0")


def norm_bound(block: arb_mat, left: arb_mat, right: arb_mat) -> arb:
    """An upper bound of ||A||_2 for every A of the enclosure, by approximate singular vectors."""
    b = left.transpose() * block * right
    defect = arb(1)
    for matrix in (left, right):
        off = matrix.transpose() * matrix - identity(block.nrows())
        defect *= 1 - (inf_norm(off) * inf_norm(off.transpose())).sqrt()
    if not defect > 0:
        raise Failed("the singular vectors are not orthogonal enough")
    return (inf_norm(b) * inf_norm(b.transpose()) / defect).sqrt()


def stretch(block: arb_mat, vector: list[arb]) -> arb:
    """||A v|| / ||v|| for every A of the enclosure."""
    return length((block * arb_mat(len(vector), 1, vector)).entries()) / length(vector)


def length(vector: list[arb]) -> arb:
    """The Euclidean norm; a sum of squares is not negative, whatever its ball says."""
    return sum((abs(x) * abs(x) for x in vector), arb(0)).nonnegative_part().sqrt()


def stretch_at(machine: Machine, run: Run, vector: list[arb]) -> arb:
    """||K v|| / ||v|| at the state of a run."""
    return length(machine.forward(run, vector, [])) / length(vector)


def spectral_bound(block: arb_mat, real: list[float], imaginary: list[float]) -> arb:
    """An upper bound of the spectral radius, ||X^-1 A X||_inf with approximate eigenvectors X; infinite if singular."""
    size = block.nrows()
    x = flint.acb_mat(size, size, [flint.acb(a, b) for a, b in zip(real, imaginary, strict=True)])
    try:
        bound = inf_norm(x.solve(flint.acb_mat(block) * x))
    except ZeroDivisionError:
        return arb("inf")
    return bound if bound.is_finite() else arb("inf")


def adjoint(blocks: list[arb_mat], cotangent: list[arb]) -> list[arb]:
    """W with (I - K^T) w = c, by samples.

    Raises:
        Failed: the balls do not exclude a singular system.
    """
    width = len(cotangent) // len(blocks)
    w: list[arb] = []
    for sample, block in enumerate(blocks):
        right = cotangent[sample * width : (sample + 1) * width]
        try:
            w += (identity(width) - block.transpose()).solve(arb_mat(width, 1, right)).entries()
        except ZeroDivisionError as error:
            raise Failed("the balls do not exclude that I - df/dz is singular") from error
    return w


def implicit(machine: Machine, run: Run, w: list[arb]) -> tuple[dict[str, list[arb]], list[arb]]:
    """(df/dtheta)^T w by leaf, and K^T w, for f as it was run."""
    gradient = Gradient(len(machine.base))
    back = machine.reverse(run, w, gradient)
    return machine.leaves(gradient), back
