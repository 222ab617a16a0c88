"""The CI templates: their scripts run, with a stub for `revdeq`, and the real command line takes every call of it."""

from __future__ import annotations

import itertools
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from reports.cli import app


FOLDER = Path(__file__).resolve().parents[2] / "docs" / "ci"
STUB = """#!{python}
import json, pathlib, sys
with open("calls.jsonl", "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if "--out" in sys.argv:
    out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "report.md", "junit.xml"):
        (out / name).write_text("holds")
print("100% of it", "holds")
sys.exit({status})
"""
VALUES = {
    "matrix.shard": "{shard}",
    "github.event_name == 'schedule' && 'nightly' || 'quick'": "quick",
    "inputs.why": "",
}


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Run a script as the runner would, and return the calls of `revdeq` in it."""

    def run(script: str, environment: dict[str, str], *, status: int = 0, expected: int = 0) -> list[list[str]]:
        stub = tmp_path / "bin" / "revdeq"
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(STUB.format(python=sys.executable, status=status))
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
        record = tmp_path / "calls.jsonl"
        record.unlink(missing_ok=True)
        path = f"{stub.parent}:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment | {"PATH": path, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stderr
        (tmp_path / "printed").write_text(done.stdout)
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    monkeypatch.chdir(tmp_path)
    return run


def parsed(arguments: list[str]) -> dict[str, object]:
    """What the command line makes of a call, without running the command."""
    command: Any = typer.main.get_command(app)
    given = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[given.pop(0)]
    return command.make_context("revdeq", given).params


def github() -> dict:
    return yaml.safe_load((FOLDER / "github-actions.yml").read_text())


def gitlab() -> dict:
    return yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())


def scripts(job: dict, shard: int = 1) -> Iterator[str]:
    """The scripts of a job of GitHub, with what its expressions give."""
    for step in job["steps"]:
        if "pip install" not in step.get("run", "pip install"):
            yield re.sub(r"\$\{\{ (.*?) \}\}", lambda found: VALUES[found[1]].format(shard=shard), step["run"])


ENVIRONMENT = {
    "PROFILE": "quick",
    "SUBJECT": "revdeq",
    "WHY": "a 'why' with $(signs)",
    "GITHUB_SHA": "0123abcd",
    "GITHUB_ACTOR": "someone",
    "CI_COMMIT_SHA": "0123abcd",
    "GITLAB_USER_LOGIN": "someone",
    "CI_NODE_TOTAL": "4",
}


@pytest.mark.parametrize("ledger", [False, True])
def test_every_command_of_github_is_taken_by_the_command_line(calls, tmp_path, ledger):
    for name in ("ledger.json", "known-failures.json"):
        if ledger:
            (tmp_path / name).touch()
    made = []
    for name, job in github()["jobs"].items():
        if name == "report":
            for run in ("run", "gpu"):
                (tmp_path / "artifacts" / run).mkdir(parents=True)
                (tmp_path / "artifacts" / run / "results.json").touch()
        for shard in job.get("strategy", {}).get("matrix", {}).get("shard", [1]):
            for script in scripts(job, shard):
                made += calls(script, ENVIRONMENT)
    check(made, ledger=ledger)
    assert ["report", "artifacts/run/results.json", "artifacts/gpu/results.json", "--out", "report"] in made
    assert (tmp_path / "summary.md").read_text() == "holds"


@pytest.mark.parametrize("ledger", [False, True])
def test_every_command_of_gitlab_is_taken_by_the_command_line(calls, tmp_path, ledger):
    for name in ("ledger.json", "known-failures.json"):
        if ledger:
            (tmp_path / name).touch()
    made = []
    for job in gitlab().values():
        if isinstance(job, dict) and "script" in job:
            for index in range(1, job.get("parallel", 1) + 1):
                made += calls("\n".join(job["script"]), ENVIRONMENT | {"CI_NODE_INDEX": str(index)})
    check(made, ledger=ledger)
    assert ["report", "run/results.json", "gpu/results.json", "--out", "report"] in made


def check(made: list[list[str]], *, ledger: bool) -> None:
    """The command line takes all calls; they are a whole run on the CPU, one on CUDA, and both judged."""
    taken = [(call[0], parsed(call)) for call in made]
    measured = [options for name, options in taken if name == "verify"]
    assert [options["shard"] for options in measured if options["device"] == "cpu"] == [f"{n}/4" for n in range(1, 5)]
    assert [options["shard"] for options in measured if options["device"] == "cuda"] == [None]
    of_gpu, of_run = (options for name, options in taken if name == "gate")
    assert of_gpu["expect_commit"] == of_run["expect_commit"] == "0123abcd"
    assert (of_run["ledger"], of_run["known"]) == (
        (Path("ledger.json"), Path("known-failures.json")) if ledger else (None, None)
    )
    (merged,) = (options for name, options in taken if name == "merge")
    shards = [Path(f"shards/{n}/results.json") for n in range(1, 5)]
    assert merged["results"] in (shards, [Path("shards/*/results.json")])
    (accepted,) = (call for call in made if call[0] == "ledger")
    assert parsed(accepted)["why"] == ENVIRONMENT["WHY"]
    assert parsed(accepted)["who"] == "someone"


def test_a_verdict_that_falls_short_fails_the_job_of_github_and_becomes_annotations(calls, tmp_path):
    steps = {step.get("name"): step for step in github()["jobs"]["judge"]["steps"]}
    assert github()["defaults"]["run"]["shell"] == "bash"  # which is run with pipefail
    calls(steps["Judge by ledger and known failures too"]["run"], ENVIRONMENT, status=1, expected=1)
    calls(steps["Show the verdict as annotations"]["run"], ENVIRONMENT)
    assert (tmp_path / "printed").read_text() == "::error title=revdeq gate::100%25 of it holds\n"


def test_jobs_need_jobs_that_are_there():
    jobs = github()["jobs"]
    for needed in itertools.chain.from_iterable(
        [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", []) for job in jobs.values()
    ):
        assert needed in jobs
    jobs = {name: job for name, job in gitlab().items() if isinstance(job, dict) and "script" in job}
    assert {job["stage"] for job in jobs.values()} == set(gitlab()["stages"])


def test_a_call_that_the_command_line_does_not_know_is_refused():
    """The parser that the templates are held against is the one that refuses."""
    assert CliRunner().invoke(app, ["verify", "--sharp", "1/4", "--out", "x"]).exit_code == 2
    with pytest.raises(Exception, match="No such option"):
        parsed(["verify", "--sharp", "1/4", "--out", "x"])
