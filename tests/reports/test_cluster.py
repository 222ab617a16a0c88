"""A scheduler with two workers gives the rows that this machine gives, and survives the same subjects."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from reports.commands.scheduler import executor
from reports.errors import ReportError
from verify import sweep
from verify.profiles import CURVE_STEPS, Profile
from verify.result_file import read_results
from verify.run import Limits
from verify.tasks import ProblemTask


pytestmark = pytest.mark.cluster

TASKS = tuple(ProblemTask("kepler", beta, "cpu", CURVE_STEPS) for beta in (0.5, 0.8))
CASE = "kepler/reversible/beta=0.5/N=2/float64/cpu"
LEAVER = """
import os
from types import SimpleNamespace

def subject():
    return SimpleNamespace(name="leaver", solve=lambda *_: os._exit(0), reconstruct=lambda *_: os._exit(0))
"""


def started(stack, folder, *arguments):
    """A process of dask's command line, and the address that it says."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.terminate)
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"(?:Scheduler|worker) at:\s*(tcp://\S+)", line)
        if found:
            return found[1]
    raise AssertionError(f"dask {arguments[0]} said no address")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "leaver.py").write_text(LEAVER)
    with contextlib.ExitStack() as stack:
        address = started(stack, folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        for _ in range(2):
            started(stack, folder, "worker", address, "--nthreads", "1", "--no-dashboard")
        yield address


def timeless(results):
    return [replace(row, seconds=None) for row in results.measurements], results.curves


def test_rows_of_two_workers_are_those_of_this_machine(scheduler, tmp_path, monkeypatch):
    def planned(*arguments):
        return TASKS

    monkeypatch.setattr(Profile, "tasks", planned)
    with executor(scheduler, Limits()) as workers:
        distributed = sweep.run(out=tmp_path / "cluster", executor=workers)
    own = sweep.run(out=tmp_path / "own")
    assert distributed.complete
    assert timeless(distributed) == timeless(own)


def test_subject_that_leaves_a_worker_is_named(scheduler, tmp_path):
    main = "from reports.command import main; main()"
    command = [sys.executable, "-c", main, "verify", "--only", CASE, "--subject", "leaver", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--scheduler", scheduler], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "its process left with status 0 in the midst of it" in done.stderr
    assert not read_results(tmp_path / "results.json").complete


def test_address_at_which_nothing_answers_is_refused(monkeypatch):
    monkeypatch.setattr("reports.commands.scheduler._PATIENCE", "1s")
    with pytest.raises(ReportError, match="does not answer"), executor("tcp://127.0.0.1:9", Limits()):
        pass
