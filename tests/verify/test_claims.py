"""A subject is judged by what it claims: no check for what it does not, and no way to claim nothing."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from verify.case import Case
from verify.checks import CHECKS, CRITERIA
from verify.claims import ADJOINTS, EVERYTHING, Claims, ClaimsError, claims_of
from verify.gate import judge, judge_row
from verify.methods import METHODS
from verify.planning import has_gradients, plan, plan_of
from verify.profiles import PROFILES
from verify.result import CLAIMS, SUBJECT_FILES
from verify.subject import RevdeqSubject, SubjectError, load_subject
from verify.subjects import SUBJECTS
from verify.sweep import run
from verify.tasks import MethodTask, measure_case
from verify.trial.benches import bench_of


QUICK = PROFILES["quick"]
INSTALLED = [name for name, adapter in SUBJECTS.items() if not adapter.library]


def rows_of(claims):
    return plan(QUICK, ("cpu",), "someones:subject", (), claims).rows


class Loop(RevdeqSubject):
    """Ours, claiming less."""

    name = "loop"

    def __init__(self, claims):
        self.claims = claims


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"adjoints": ("phantom",)}, "no gradient of it would be judged: claim an exact one"),
        ({"adjoints": ()}, "claims the adjoints none"),
        ({"solvers": ("newton",)}, "claims the solvers newton: claim some of reversible"),
        ({"solvers": ()}, "claims the solvers none"),
        ({"dtypes": ("float8",)}, "claims the dtypes float8"),
        ({"dtypes": ("float64", "float64")}, "each once"),
    ],
)
def test_claims_that_say_nothing_are_refused(claims, why):
    with pytest.raises(ClaimsError, match=why):
        Claims(**claims)


def test_claims_go_through_json():
    claims = SUBJECTS["torchdeq"].claims
    assert Claims.from_json(json.loads(json.dumps(claims.to_json()))) == claims


@pytest.mark.parametrize("value", [None, {}, [], {"adjoints": "all"}, EVERYTHING.to_json() | {"wider_states": 1}])
def test_what_are_no_claims_is_refused(value):
    with pytest.raises(ClaimsError):
        Claims.from_json(value)


def test_a_subject_without_claims_claims_everything():
    assert claims_of(RevdeqSubject()) is EVERYTHING
    with pytest.raises(ClaimsError, match=r"give a verify\.claims\.Claims"):
        claims_of(Loop({"exact": True}))


@pytest.mark.parametrize("adjoint", [name for name in ADJOINTS if name != "phantom"])
def test_whatever_is_claimed_some_gradient_is_judged(adjoint):
    for solver in ("reversible", "relaxed-tolerance"):
        claims = Claims(adjoints=(adjoint,), solvers=(solver,), dtypes=("float64",))
        of_gradients = {key[0] for key in rows_of(claims) if CHECKS[key[0]].topic == "gradients"}
        assert of_gradients, (adjoint, solver)


def test_claims_by_which_no_gradient_is_judged_have_a_plan_that_no_run_meets(tmp_path, monkeypatch):
    claims = Claims(adjoints=("implicit",), solvers=("anderson",))
    assert not has_gradients(QUICK, ("cpu",), claims)
    planned = plan(QUICK, ("cpu",), "someones:subject", (), claims)
    assert planned.rows == {}
    assert planned.profile != "quick"
    module = type(torch)("idle_solver")
    module.subject = Loop(claims)
    monkeypatch.setitem(sys.modules, "idle_solver", module)
    with ThreadPoolExecutor(1) as pool, pytest.raises(SubjectError, match="judges no gradient of"):
        run(subject="idle_solver", executor=pool, out=tmp_path)


def test_everything_has_every_row_and_less_has_fewer():
    everything = rows_of(EVERYTHING)
    for adapter in SUBJECTS.values():
        claims, rows = adapter.claims, rows_of(adapter.claims)
        assert 0 < len(rows) < len(everything)
        assert {key[2] for key in rows} <= {"", *claims.adjoints}
        assert {str(row.columns["solver"]) for row in rows.values()} == set(claims.solvers)
        assert {str(row.columns["dtype"]) for row in rows.values()} <= set(claims.dtypes)


def test_nothing_about_undoing_steps_is_asked_of_a_loop():
    asked = {key[0] for key in rows_of(SUBJECTS["plain-loop"].claims)}
    assert not asked & {name for name, check in CHECKS.items() if check.reverses}
    assert {"gradient", "forward", "bindings", "dot-product", "samples", "method-gradient"} <= asked


@pytest.mark.parametrize("name", INSTALLED)
def test_a_right_subject_passes_what_it_claims(name):
    claims = SUBJECTS[name].claims
    planned = plan(QUICK, ("cpu",), name, (), claims)
    cases = [Case("dense-tanh", 0.5, 4), Case("affine-real", 0.8, 16, "float32", "float64"), Case("kepler", 0.8, 2)]
    rows = [row for case in cases for row in measure_case(bench_of(case, load_subject(name), ("--subject", name)))]
    for solver in set(claims.solvers) & set(METHODS):
        rows += MethodTask(solver, "cpu").measure(name).measurements
    keys = [(row.check, row.case, row.adjoint, row.target, row.leaf) for row in rows]
    measured = {row.case for row in rows}
    assert sorted(keys) == sorted(key for key in planned.rows if key[1] in measured)
    findings = [judge_row(row, CRITERIA, planned.rows[key]) for key, row in zip(keys, rows, strict=True)]
    assert [finding.text() for finding in findings if finding.passed is not True] == []


class LosesArgs(RevdeqSubject):
    """A loop whose args get a tenth too much."""

    name = "wrong-loop"
    claims = SUBJECTS["plain-loop"].claims

    def solve(self, function, z0, args, settings):
        larger = {name: value + 0.1 * (value - value.detach()) for name, value in args.items()} if args else args
        return load_subject("plain-loop").solve(function, z0, larger, settings)


def test_a_wrong_loop_falls_short_by_what_it_claims():
    rows = measure_case(bench_of(Case("dense-tanh", 0.5, 4), LosesArgs()))
    failed = {row.check for row in rows if judge_row(row, CRITERIA).passed is False}
    assert {"gradient", "dot-product", "finite-differences"} <= failed


def test_a_subject_that_undoes_nothing_needs_no_reconstruct(monkeypatch):
    class Plain:
        name = "plain"
        claims = SUBJECTS["plain-loop"].claims

        def solve(self, function, z0, args, settings):
            raise NotImplementedError

    module = type(torch)("some_module")
    module.subject = Plain()
    monkeypatch.setitem(sys.modules, "some_module", module)
    assert load_subject("some_module") is module.subject
    monkeypatch.setattr(Plain, "claims", EVERYTHING)
    with pytest.raises(SubjectError, match="claims without 'reversible'"):
        load_subject("some_module")


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdeq", None)
    monkeypatch.delitem(sys.modules, "verify.subjects.torchdeq_library", raising=False)
    with pytest.raises(SubjectError, match=r"needs the library torchdeq.*revdeq\[torchdeq\]"):
        load_subject("torchdeq")


def test_the_plan_of_results_follows_their_claims(small):
    whole, _ = small
    claims = SUBJECTS["plain-loop"].claims
    said = replace(whole, profile="quick", environment=whole.environment | {CLAIMS: claims.to_json()})
    assert len(plan_of(said).rows) == len(rows_of(claims))
    assert any(item.why == claims.text for item in plan_of(said).not_measured)
    # A subject that comes with the project is judged by its own claims, whatever its results say.
    less = replace(claims, solvers=("relaxed",)).to_json()
    relabelled = replace(said, subject="plain-loop", environment=whole.environment | {CLAIMS: less})
    assert len(plan_of(relabelled).rows) == len(rows_of(claims))
    findings = [finding.text() for finding in judge(relabelled, plan_of(relabelled)).failures]
    assert any("environment's claims" in text for text in findings)


@pytest.mark.parametrize("value", [{"adjoints": ["phantom"]}, 3, EVERYTHING.to_json()])
def test_odd_claims_in_results_are_a_finding(small, value):
    whole, planned = small
    tampered = replace(whole, environment=whole.environment | {CLAIMS: value})
    assert SUBJECT_FILES in whole.environment
    assert any("claims" in finding.text() for finding in judge(tampered, planned).failures)
