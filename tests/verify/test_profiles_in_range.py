"""What the profiles measure stays within the range of numbers, and what diverges ends a curve instead of a run."""

import math

import pytest
import torch

from verify.case import Case
from verify.checks import Trial
from verify.checks.asymptotic import iterates
from verify.curves import measure_curves
from verify.problems import get_problem, problem_names
from verify.profiles import LONG_CURVE_STEPS, UNBOUNDED, Task, betas, left_out, tasks
from verify.subject import load_subject


def is_finite_throughout(name: str, beta: float) -> bool:
    problem = get_problem(name)
    z, args = problem.inputs(torch.float64, "cpu")
    y = z
    with torch.no_grad():
        for _ in range(max(LONG_CURVE_STEPS)):
            y = (1 - beta) * y + beta * problem.function(z, args)
            z = (1 - beta) * z + beta * problem.function(y, args)
    return bool(torch.isfinite(z).all())


def trial(name: str, beta: float, dtype: str = "float64") -> Trial:
    return Trial(Case(name, beta, 1, dtype, dtype, "cpu"), load_subject("revdeq"), get_problem(name))


@pytest.mark.parametrize("name", problem_names("full"))
def test_problems_stay_finite_at_every_beta_that_is_measured(name: str) -> None:
    assert [beta for beta in betas(name, "full") if not is_finite_throughout(name, beta)] == []


def test_what_leaves_every_range_is_left_out_and_said() -> None:
    planned = {(task.problem, task.beta) for task in tasks("full", ("cpu",))}
    said = [entry.what for entry in left_out("full")]
    for name, beta in UNBOUNDED:
        assert not is_finite_throughout(name, beta)
        assert (name, beta) not in planned
        assert f"{name} at beta {beta:g}" in said


def test_curve_of_a_diverging_iteration_ends_where_the_solver_refuses() -> None:
    diverging = trial("affine-imaginary", 1.9, "float32")
    with pytest.raises(RuntimeError, match="not finite"):
        iterates(diverging, 100)
    states = iterates(diverging, 100, may_refuse=True)
    assert 8 < len(states) < 100
    assert all(bool(torch.isfinite(state).all()) for state in states)


def test_every_curve_of_a_diverging_problem_is_drawn() -> None:
    task = Task("affine-imaginary", 1.9, "cpu", "quick")
    options: dict[Case, Trial] = {}

    def trial_of(case: Case) -> Trial:
        return options.setdefault(case, Trial(case, load_subject("revdeq"), get_problem(case.problem)))

    found = [curve for curve in measure_curves(task, trial_of) if curve.name == "convergence"]
    assert len(found) == 4
    for curve in found:
        assert curve.predicted is None
        assert all(math.isfinite(y) for y in curve.y)
