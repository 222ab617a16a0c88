"""What is exported is judged: every solver, adjoint and kind of setting has rows in the quick profile, by its name."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import revdeq
from revdeq import adjoint, solver
from verify.case import Case, CaseError
from verify.checks import CHECKS, CRITERIA, checks_for
from verify.checks.adaptive_betas import next_beta
from verify.gate import judge_row
from verify.methods import METHODS
from verify.planning import plan
from verify.profiles import PROFILES
from verify.subject import RevdeqSubject, Settings, load_subject
from verify.tasks import MethodTask, measure_case
from verify.trial.asked import method_cases
from verify.trial.benches import bench_of


ROWS = plan(PROFILES["quick"], ("cpu",), "revdeq").rows
FIRST = {name: method_cases(name, "cpu")[0] for name in METHODS}
OF_METHODS = {name for name, check in CHECKS.items() if any(map(check.applies, FIRST.values()))}


def exported(base: type) -> dict[str, type]:
    """The classes of one kind that revdeq or a package of it exports and that can be made, by the name in results."""
    names = {getattr(package, name) for package in (revdeq, solver, adjoint) for name in package.__all__}
    kinds = [kind for kind in names if isinstance(kind, type) and issubclass(kind, base)]
    return {kebab(kind.__name__.removesuffix(base.__name__)): kind for kind in kinds if not inspect.isabstract(kind)}


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


SOLVERS, ADJOINTS = exported(revdeq.Solver), exported(revdeq.Adjoint)


def test_something_is_exported():
    assert {"relaxed", "peaceman-rachford", "gmres"} <= set(SOLVERS)
    assert {"implicit", "phantom", "reversible"} <= set(ADJOINTS)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_exported_solver_has_rows(name):
    methods = {row.columns["solver"] for row in ROWS.values()}
    asked = {method.solver for method in METHODS.values() if method.name in methods}
    inside = {key[2].partition("-")[2] for key in ROWS}
    assert name in (inside if SOLVERS[name].affine_only else asked)


@pytest.mark.parametrize("name", sorted(ADJOINTS))
def test_every_exported_adjoint_has_rows(name):
    assert any(key[2] == name for key in ROWS)


@pytest.mark.parametrize("kind", ["schedule", "auto", "adaptive"])
def test_every_way_to_give_beta_has_rows(kind):
    names = {name for name, method in METHODS.items() if method.relaxation == kind}
    assert names & {row.columns["solver"] for row in ROWS.values()}


@pytest.mark.parametrize("name", sorted(name for name, kind in SOLVERS.items() if not kind.affine_only))
def test_every_solver_is_measured_to_a_tolerance(name):
    names = {method.name for method in METHODS.values() if method.solver == name and method.to_tolerance}
    assert names & {row.columns["solver"] for row in ROWS.values()}


def test_cases_of_methods_get_the_checks_of_methods_and_no_other():
    for name in METHODS:
        for case in method_cases(name, "cpu"):
            assert {check.name for check in checks_for(case)} <= OF_METHODS
    assert not OF_METHODS & {check.name for check in checks_for(Case("dense-tanh", 0.5, 4))}


@pytest.mark.parametrize("name", ["peaceman-rachford", "reversible-adaptive", "broyden-tolerance"])
def test_rows_of_a_method_hold_and_stand_in_the_plan(name):
    part = MethodTask(name, "cpu").measure("revdeq")
    keys = [(row.check, row.case, row.adjoint, row.target, row.leaf) for row in part.measurements]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {key for key, row in ROWS.items() if row.columns["solver"] == name}
    failed = [judge_row(row, CRITERIA, ROWS[key]) for key, row in zip(keys, part.measurements, strict=True)]
    assert [finding.text() for finding in failed if finding.passed is False] == []


def test_a_solver_that_no_method_has_is_refused_by_name():
    with pytest.raises(CaseError, match=r"no known solver: give one of reversible, .*relaxed"):
        bench_of(Case("dense-tanh", 0.5, 4, solver="newton"), load_subject("revdeq"))


class Silent(RevdeqSubject):
    """Chooses betas and does not say which."""

    def solve(self, function, z0, args, settings):
        return replace(super().solve(function, z0, args, settings), beta=None)


class Boasting(RevdeqSubject):
    """Reports steps that it was not allowed."""

    def solve(self, function, z0, args, settings):
        return replace(super().solve(function, z0, args, settings), num_steps=torch.tensor([10_000, 3]))


@pytest.mark.parametrize(
    ("subject", "method", "why"),
    [
        (Silent(), "reversible-adaptive", "give in Solved.beta numbers of shape"),
        (Silent(), "reversible-auto", "give in Solved.beta numbers of shape"),
        (Boasting(), "relaxed-tolerance", "reports .* steps, where at most"),
    ],
)
def test_what_a_subject_does_not_say_is_a_failed_row(subject, method, why):
    (case, *_) = method_cases(method, "cpu")
    rows = [row for row in measure_case(bench_of(case, subject)) if row.check == "method-states"]
    assert rows
    assert all(row.status == "failed" and re.search(why, row.reason) for row in rows)


def test_schedule_differs_between_any_two_half_steps_that_could_be_confused():
    (case, *_) = method_cases("reversible-schedule", "cpu")
    schedule = METHODS["reversible-schedule"].beta(case.beta, case.num_steps)
    assert isinstance(schedule, tuple)
    assert all(of_y != of_z for of_y, of_z in schedule)
    assert all(one != other for one, other in pairwise(schedule))


@pytest.mark.parametrize("ratio", np.linspace(0.01, 1.5, 40).tolist())
@pytest.mark.parametrize("beta", [0.5, 0.8, 1.1, 1.9])
def test_the_rule_of_adaptive_betas_is_the_public_one(beta, ratio):
    assert next_beta(beta, ratio) == pytest.approx(revdeq.adapted_beta(beta, ratio), rel=1e-14)


def test_a_number_is_asked_of_settings_that_have_none():
    settings = Settings(beta="auto", num_steps=1, adjoint="unrolled", state_dtype=torch.float64)
    with pytest.raises(TypeError, match="one number is needed"):
        _ = settings.number
