"""`revdeq check`: its lines and its exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reports.cli import app
from reports.commands import check as command
from verify.run import checking


MODULE = """
import torch

def good():
    print("falls short: 9")  # which is not what the check says
    return (lambda z, x: 0.5 * torch.tanh(z) + x), torch.zeros(2, 3), torch.ones(2, 3)

def cut():
    return (lambda z, x: 0.5 * torch.tanh(z.detach()) + x), torch.zeros(2, 3), torch.ones(2, 3)

def fixed():
    return (lambda z, x: 0 * z), torch.zeros(0), ()

def nothing():
    return None

def leaving():
    raise SystemExit(0)

def ending():
    import os
    os._exit(0)


def leaving_later():
    calls = []

    def f(z, x):
        calls.append(1)
        if len(calls) > 20:
            raise SystemExit(0)
        return 0.5 * torch.tanh(z) + x

    return f, torch.zeros(2, 3), torch.ones(2, 3)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "checked_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "checked_module", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["check", *arguments])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check in this process, which has torch already."""

    def check_here(source, limits, options):
        del limits
        found = checking.check_and_encode(source, options)
        if isinstance(found, str):
            raise checking.CheckingError(found)
        return found

    monkeypatch.setattr(command, "check_apart", check_here)


def test_a_module_that_holds_has_status_0_and_is_told_a_beta(run):
    done = run("checked_module:good", "--beta", "0.8", "--steps", "4")
    assert done.exit_code == 0, done.output
    assert "solver=Reversible(" in done.stdout
    assert done.stdout.splitlines()[-1] == "holds: 9"


def test_a_module_that_ends_its_process_gives_no_verdict(run):
    done = run("checked_module:ending")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "left with status 0" in done.stderr


@pytest.mark.usefixtures("run")
def test_the_sys_exit_of_a_module_is_not_the_status_of_a_certificate():
    done = CliRunner().invoke(app, ["certify", "checked_module:leaving", "--out", "certificate"])
    assert done.exit_code == 2
    assert "sys.exit(0)" in done.stderr


@pytest.mark.usefixtures("here")
def test_a_module_that_falls_short_has_status_1_and_its_replay_says_the_same(run):
    done = run("checked_module:cut", "--steps", "3")
    assert done.exit_code == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("derivative falls short"))
    replay = line.partition("Replay: revdeq check ")[2].split()
    again = run(*replay)
    assert again.exit_code == 1
    assert again.stdout.splitlines()[0] == line
    assert run("checked_module:cut", "--steps", "3", "--leave-out", "derivative").exit_code == 0


@pytest.mark.usefixtures("here")
def test_what_could_not_be_checked_has_status_2(run):
    done = run("checked_module:fixed", "--only", "contracting")
    assert done.exit_code == 2
    assert done.stdout.splitlines()[-1] == "not checked: 1"
    left = run("checked_module:leaving_later")
    assert left.exit_code == 2
    assert "f raised SystemExit" in left.stdout


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["checked_module:nothing"], "must give the triple"),
        (["checked_module:missing"], "has no missing"),
        (["no_such_module:f"], "there is no module"),
        (["checked_module:good", "--beta", "1"], "must be in (0, 2)"),
        (["checked_module:good", "--only", "all"], "there is no claim 'all'"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence_and_status_2(run, arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
