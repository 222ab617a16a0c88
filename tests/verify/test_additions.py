"""Adding a check, a problem or a study is one new file: what lists, judges, plans and prints it finds it by itself."""

import importlib
import sys
from pathlib import Path

import pytest

from verify import checks
from verify.case import Case
from verify.checks import CHECKS, CRITERIA, TOPICS, checks_of
from verify.checks._planned import planned_rows
from verify.criteria_page import page
from verify.discovery import declared
from verify.planning import plan
from verify.problems.registry import problems_of
from verify.profiles import PROFILES
from verify.studies.registry import STUDIES


ROOT = Path(__file__).parents[2]

A_CHECK = '''
"""Claim: the answer is 42."""
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE


def places(case):
    """One row."""
    yield Place(leaf="answer", expected=42.0)


def check_answer(trial):
    return [trial.row(leaf="answer", got=42.0, expected=42.0, measured=0.0)]


CHECK = Check(
    name="answer",
    topic="states",
    criterion=Criterion(
        claim="the answer is 42", comparison="==", threshold=0.0, why="it is", unit="count", reading=DIFFERENCE
    ),
    kills=("one-step-too-few",),
    applies=probe,
    places=places,
    rows=check_answer,
)
'''


A_PROBLEM = """
import numpy as np

from verify.problems.problem import Problem
from verify.problems.scope import Scope


def halving():
    one = np.ones((1, 1))
    return Problem(
        name="halving", title="z = z / 2", source="none", statement=lambda ops, z, args: ops.multiply(args["half"], z),
        z0=one, args={"half": 0.5 * one}, cotangent_z=one, cotangent_y=one, contraction_constant=0.5,
        contraction_kind="exact", spectrum="real",
    )


PROBLEMS = {"halving": (halving, Scope(betas=(0.75,)))}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package of modules out of their sources."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, **sources):
        (tmp_path / name).mkdir()
        for module, source in {"__init__": "", **sources}.items():
            (tmp_path / name / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, f"{name}.{module}", raising=False)
        return importlib.import_module(name)

    return make


def test_every_module_of_checks_declares_one_check_by_its_own_name():
    found = declared(checks, "CHECK")
    folder = Path(checks.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert set(found) == modules
    assert {name.replace("_", "-") for name in found} == set(CHECKS) == set(CRITERIA)
    assert all(check.name == name.replace("_", "-") for name, check in found.items())


def test_a_check_is_one_new_file(package):
    (check,) = checks_of(package("more_checks", answer=A_CHECK)).values()
    case = Case("kepler", 0.5, 4)
    assert check.applies(case)
    ((key, row),) = planned_rows([(case, check)]).items()
    assert key == ("answer", case.id, "", "", "answer")
    assert row.columns["unit"] == "count"


def test_a_problem_is_one_new_file(package):
    found = problems_of(package("more_problems", halving=A_PROBLEM))
    assert list(found) == ["halving"]
    problem = found["halving"]()
    assert (problem.name, problem.scope.betas) == ("halving", (0.75,))
    assert problem.contracts


def test_a_study_is_one_entry():
    names = [name for study in STUDIES for name in study.names]
    assert len({study.name for study in STUDIES}) == len(STUDIES)
    assert set(plan(PROFILES["quick"], ("cpu",), "revdeq").studies) == set(names)


def test_the_page_of_criteria_is_what_the_checks_declare():
    assert (ROOT / "docs" / "criteria.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("check", list(CHECKS.values()), ids=lambda check: check.name)
def test_a_check_declares_itself_whole(check):
    assert check.topic in TOPICS
    assert check.kills
    assert check.criterion.claim
    assert check.criterion.why
    assert check.applies.__doc__
    assert check.criterion.effective > 0
