"""How much rounding should cause in what a method returns: its definition in perturbed arithmetic, many times over."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from verify.reference.arithmetic.perturbed import Perturbed
from verify.reference.method_run import Asked, method_run, run_in
from verify.rounding.scale import REFERENCE_DIGITS, in_carrier, rms, validate_roundoffs


if TYPE_CHECKING:
    from verify.problems.problem import Problem


@lru_cache(maxsize=64)
def method_scale(problem: Problem, asked: Asked, *, unit_roundoff: float, seeds: int = 8) -> dict[str, float]:
    """RMS errors that rounding should cause, for "z1", "y1" and every leaf, where states are as wide as f.

    Rounding happens in every operation of the definition and of its derivative, disturbed independently (M0), at stored
    states: an adjoint that takes the steps again has the same. What a subject chose, betas and numbers of steps, is
    given, and no rounding of it counts.

    Args:
        problem: the problem.
        asked: the solve.
        unit_roundoff: u of f and of the states.
        seeds: how many simulated runs, at least 8.

    Raises:
        ValueError: fewer than 8 seeds.
    """
    validate_roundoffs(unit_roundoff, unit_roundoff, seeds)
    at = Perturbed(unit_roundoff, seed=7)
    exact = method_run(problem, asked, REFERENCE_DIGITS).values
    found = run_in(problem, asked, at, seeds)
    return {name: rms(value, in_carrier(at, exact[name]), at) for name, value in found.items()}
