"""What the profiles measure stays within the range of numbers, and what diverges ends a curve instead of a run."""

import math
from collections.abc import Iterator

import pytest
import torch

from revdeq.arithmetic import half_step
from verify.case import Case
from verify.checks import Trial
from verify.curves import measure_curves
from verify.problems import get_problem
from verify.profiles import LONG_CURVE_STEPS, PROFILES
from verify.subject import load_subject
from verify.tasks import ProblemTask
from verify.trial.decay import iterates


def states(name: str, beta: float, num_steps: int) -> Iterator[torch.Tensor]:
    """z_1, z_2, ... of a problem in float64, without the solver."""
    problem = get_problem(name)
    z, args = problem.inputs(torch.float64, "cpu")
    y = z
    with torch.no_grad():
        for _ in range(num_steps):
            y = (1 - beta) * y + beta * problem.function(z, args)
            z = (1 - beta) * z + beta * problem.function(y, args)
            yield z


def is_finite_throughout(name: str, beta: float) -> bool:
    return all(bool(torch.isfinite(z).all()) for z in states(name, beta, max(LONG_CURVE_STEPS)))


def trial(name: str, beta: float, dtype: str = "float64") -> Trial:
    return Trial(Case(name, beta, 1, dtype, dtype, "cpu"), load_subject("revdeq"), get_problem(name))


FULL = PROFILES["full"]
OUTSIDE = [(name, beta) for name in FULL.problems for beta in get_problem(name).scope.outside]
CORRELATED = [(name, *key) for name in FULL.problems for key in get_problem(name).scope.correlated]


@pytest.mark.parametrize("name", FULL.problems)
def test_problems_stay_finite_at_every_beta_that_is_measured(name: str) -> None:
    assert [beta for beta in FULL.betas(name) if not is_finite_throughout(name, beta)] == []


def test_what_leaves_the_domain_is_left_out_and_said() -> None:
    planned = {(task.problem, task.beta) for task in FULL.tasks(("cpu",)) if isinstance(task, ProblemTask)}
    said = {entry.what for entry in FULL.left_out()}
    for name, beta in OUTSIDE:
        assert (name, beta) not in planned
        assert f"{name} at beta {beta:g}" in said
    assert not is_finite_throughout("lambert-w", 1.9)


def test_riccati_states_leave_the_positive_definite_matrices() -> None:
    least = min(float(torch.linalg.eigvalsh(z).min()) for z in states("riccati", 1.9, 4))
    assert least < 0


def test_cases_with_correlated_roundings_are_left_out_and_said() -> None:
    said = {entry.what for entry in FULL.left_out()}
    for name, dtype, steps in CORRELATED:
        planned = {(case.dtype, case.num_steps) for case in ProblemTask(name, 0.8, "cpu", LONG_CURVE_STEPS).cases()}
        assert (dtype, steps) not in planned
        assert (dtype, steps // 2) in planned
        assert f"{name} in {dtype} after {steps} steps" in said


def test_roundings_of_the_slow_map_in_bfloat16_add_up() -> None:
    problem, beta = get_problem("affine-slow"), 1.2
    z, args = problem.inputs(torch.bfloat16, "cpu")
    exact_args = {name: value.double() for name, value in args.items()}
    y, errors = z, []
    for half in range(32):
        state, at = (z, y) if half % 2 else (y, z)
        moved = half_step(state, problem.function(at, args), beta)
        exact = (1 - beta) * state.double() + beta * problem.function(at.double(), exact_args)
        errors.append(moved.double() - exact)
        y, z = (y, moved) if half % 2 else (moved, z)
    total = torch.stack(errors)
    independent = total.square().sum(dim=0).mean().sqrt()
    assert float(total.sum(dim=0).square().mean().sqrt() / independent) > 3.0


def test_curve_of_a_diverging_iteration_ends_where_the_solver_refuses() -> None:
    diverging = trial("affine-imaginary", 1.9, "float32")
    with pytest.raises(RuntimeError, match="not finite"):
        iterates(diverging, 100)
    states = iterates(diverging, 100, may_refuse=True)
    assert 8 < len(states) < 100
    assert all(bool(torch.isfinite(state).all()) for state in states)


def test_every_curve_of_a_diverging_problem_is_drawn() -> None:
    options: dict[Case, Trial] = {}

    def trial_of(case: Case) -> Trial:
        return options.setdefault(case, Trial(case, load_subject("revdeq"), get_problem(case.problem)))

    curves = measure_curves("affine-imaginary", 1.9, "cpu", (1, 2, 4), trial_of)
    found = [curve for curve in curves if curve.name == "convergence"]
    assert len(found) == 4
    for curve in found:
        assert curve.predicted is None
        assert all(math.isfinite(y) for y in curve.y)
