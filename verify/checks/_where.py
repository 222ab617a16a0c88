"""Conditions on a case that say where a check is measured, and the shapes of what it compares there."""

from __future__ import annotations

from verify.case import Case
from verify.methods import METHODS
from verify.problems import get_problem
from verify.trial.grid import GRID
from verify.trial.reach import ENVELOPE


PROBE_STEPS = 4
"""The step count of the checks that need one case per problem and beta."""

BETAS = (0.5, 0.8)
"""Those at which every profile measures every problem."""

FINE = "float64"
"""The dtype whose rounding leaves room to see anything else."""


def of_problem(case: Case) -> bool:
    """Whether the case is the reversible iteration on a problem, and not of the grid, the envelope or a method."""
    return case.problem not in (GRID, ENVELOPE) and case.solver not in METHODS


def of_method(case: Case) -> bool:
    """The cases of methods."""
    return case.solver in METHODS


def fixed_steps(case: Case) -> bool:
    """The cases of methods that take a fixed number of steps."""
    return of_method(case) and not METHODS[case.solver].to_tolerance


def tolerance(case: Case) -> bool:
    """The cases of methods that end by a tolerance."""
    return of_method(case) and METHODS[case.solver].to_tolerance


def defined(case: Case) -> bool:
    """The cases of methods whose states are those of their definition: all but extrapolations up to a tolerance."""
    return of_method(case) and (METHODS[case.solver].stable or not METHODS[case.solver].to_tolerance)


def floating(case: Case) -> bool:
    """The cases of problems in floating-point states."""
    return of_problem(case) and case.arithmetic == "floating"


def bitwise(case: Case) -> bool:
    """The cases of problems in integer states."""
    return of_problem(case) and case.arithmetic == "bitwise"


def referred(case: Case) -> bool:
    """The cases of problems that references judge: in floating-point states, and in integer states with few steps."""
    return floating(case) or (bitwise(case) and case.num_steps == PROBE_STEPS)


def referred_in_float64(case: Case) -> bool:
    """The cases of problems that references judge and in which f is evaluated in float64."""
    return referred(case) and case.dtype == FINE


def probe(case: Case) -> bool:
    """The one case in floating-point states and float64 of a problem and a beta."""
    return floating(case) and case.num_steps == PROBE_STEPS and case.dtype == FINE


def probe_at_half(case: Case) -> bool:
    """The one case in floating-point states and float64 of a problem, at beta 1/2."""
    return probe(case) and case.beta == BETAS[0]


def bitwise_probe(case: Case) -> bool:
    """The one case in integer states, f in float64, of a problem and a beta."""
    return bitwise(case) and case.num_steps == PROBE_STEPS and case.dtype == FINE


def state_shape(case: Case) -> tuple[int, ...]:
    """Shape of z0."""
    return get_problem(case.problem).z0.shape


def leaf_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """The leaves of a gradient with their shapes."""
    problem = get_problem(case.problem)
    return {"z0": problem.z0.shape} | {f"args.{name}": value.shape for name, value in problem.args.items()}


def rebuilt_steps(case: Case) -> list[int]:
    """The steps at which rebuilt states are compared: the start and the middle."""
    return sorted({0, case.num_steps // 2} - {case.num_steps})
