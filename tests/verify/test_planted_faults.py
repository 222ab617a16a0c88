"""The selftest: planted faults die, the control lives, and a check that kills nothing is named."""

import ast
import inspect
from dataclasses import replace

import pytest
import torch

from verify.case import Case
from verify.checks import CHECKS, References, Trial, measure
from verify.criteria import CRITERIA
from verify.planted import base
from verify.planted.base import Honest
from verify.planted.selftest import CASES, GATE, fault_names, selftest, shortfalls
from verify.problems import get_problem
from verify.result import FaultRecord


SAMPLE = {
    "relative-error-1e-9": "gradient",
    "captured-not-reached": "bindings",
    "jacobi-update": "rate-grid",
    "stale-step-count": "evaluations",
    "states-widened": "not-stored",
    "random-numbers-not-replayed": "random-replay",
    "double-backward-wrong": "errors-surface",
    "reference-in-float64": "reference-agreement",
    "another-fixed-point": "oracle",
    "nan-ratio": GATE,
    "lost-leaf": GATE,
}
"""One fault of each family, with a check that must kill it; `revdeq selftest` and the nightly test run all of them."""


@pytest.fixture(scope="module")
def records():
    return {record.fault: record for record in selftest(only=SAMPLE)}


@pytest.mark.parametrize("fault", list(SAMPLE))
def test_sampled_fault_is_killed_by_the_check_made_for_it(records, fault):
    assert SAMPLE[fault] in records[fault].killed_by


@pytest.mark.parametrize("control", ["honest", "honest-run"])
def test_control_passes_every_check(records, control):
    assert records[control].killed_by == ()
    assert not records[control].expected


@pytest.mark.nightly
def test_every_fault_is_killed_and_every_check_kills():
    assert shortfalls(selftest()) == ()


def test_faults_have_distinct_names_and_say_what_is_wrong():
    names = fault_names()
    assert len(set(names)) == len(names) >= 60


def test_unknown_fault_is_refused_by_name():
    with pytest.raises(ValueError, match="unheard-of is no planted fault"):
        selftest(only=["unheard-of"])


def test_progress_counts_up_to_the_end():
    seen = []

    def progress(done, total, name):
        seen.append((done, total, name))

    selftest(progress, only=["nan-ratio", "lost-leaf"])
    assert seen == [(0, 2, "nan-ratio"), (1, 2, "lost-leaf"), (2, 2, "done")]


def test_shortfalls_name_the_survivor_the_killed_control_and_the_idle_check():
    whole = tuple(CRITERIA)
    good = (
        FaultRecord(fault="honest", description="", killed_by=(), expected=False),
        FaultRecord(fault="f", description="d", killed_by=whole),
    )
    assert shortfalls(good) == ()
    assert "f survives: d" in shortfalls((good[0], replace(good[1], killed_by=())))
    assert "honest is killed by gradient" in shortfalls((replace(good[0], killed_by=("gradient",)), good[1]))
    assert shortfalls((good[0], replace(good[1], killed_by=whole[1:]))) == (f"{whole[0]} kills no fault",)


def test_selftest_runs_every_check():
    assert {check for _, checks in CASES for check in checks} == set(CHECKS)


def test_control_imports_nothing_of_the_product():
    tree = ast.parse(inspect.getsource(base))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not {module for module in modules if module.startswith("revdeq")}


def test_fault_that_leaves_grad_mode_off_does_not_reach_the_next_check():
    class Careless(Honest):
        def solve(self, function, z0, args, settings):
            solved = super().solve(function, z0, args, settings)
            torch.set_grad_enabled(False)
            return solved

    trial = Trial(Case("kepler", 0.5, 2), Careless(), get_problem("kepler"), References())
    measure("repeatable", trial)
    assert torch.is_grad_enabled()
