"""The selftest: planted faults die, the control lives, and a check that kills nothing is named."""

import ast
import inspect
from dataclasses import replace

import pytest
import torch

from verify.case import Case
from verify.checks import CHECKS, CRITERIA, References, Trial, measure
from verify.judge.faults import GATE
from verify.planning import selftest_shortfalls
from verify.planted import base
from verify.planted.base import Honest
from verify.planted.faults import CONTROLS, fault_names, planned_faults
from verify.planted.selftest import selftest, stands
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


@pytest.mark.parametrize("control", list(CONTROLS))
def test_control_passes_every_check(records, control):
    assert records[control].killed_by == ()
    assert not records[control].expected


@pytest.mark.nightly
def test_every_fault_is_killed_and_every_check_kills():
    assert selftest_shortfalls(selftest()) == ()


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
    planned = planned_faults({name: check.kills for name, check in CHECKS.items()})
    good = {
        name: FaultRecord(
            fault=name,
            description=fault.description,
            killed_by=tuple(CRITERIA) if fault.expected else (),
            expected=fault.expected,
        )
        for name, fault in planned.items()
    }

    def said(*without, **changes):
        changed = {name.replace("_", "-"): replace(good[name.replace("_", "-")], **c) for name, c in changes.items()}
        kept = {name: record for name, record in {**good, **changed}.items() if name not in without}
        return selftest_shortfalls(kept.values())

    assert said() == ()
    assert said("nan-ratio") == ("nan-ratio is planned 1 times and recorded 0 times",)
    (survived,) = said(nan_ratio={"killed_by": ()})
    assert survived == "nan-ratio survived: a ratio is NaN"
    (control,) = said(honest={"killed_by": ("gradient",)})
    assert control == "honest, where nothing is wrong, was killed by gradient"
    (spared,) = said(args_lost={"killed_by": ("dot-product",)})
    assert spared == "args-lost was not killed by gradient, which must"
    (relabelled,) = said(args_lost={"description": "another"})
    assert relabelled == "args-lost is recorded as another than it is"
    assert said(nan_ratio={"killed_by": ("luck",)})[0] == "nan-ratio is said to be killed by luck"


def test_selftest_runs_every_check():
    assert {check.name for _, check in stands()} == set(CHECKS)


def test_every_check_names_faults_that_it_must_kill():
    assert all(set(check.kills) <= set(fault_names()) and check.kills for check in CHECKS.values())


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
