"""A run whose subject leaves, or that is asked to end, never ends with status 0 nor leaves a process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from verify.result_file import read_results


CASE = "kepler/reversible/beta=0.5/N=2/float64/cpu"
MAIN = "from reports.command import main; main()"
VERIFY = [sys.executable, "-c", MAIN, "verify", "--only", CASE, "--out", "out", "--subject"]

LEAVER = """
import os, sys
from types import SimpleNamespace

def subject():
    return SimpleNamespace(name="leaver", solve=lambda *_: {leave}, reconstruct=lambda *_: {leave})
"""

HOLDER = """
import time

with open("pipe", "w") as stream:
    stream.write("begun")
    stream.flush()
    while True:
        time.sleep(60)
"""


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}


@pytest.mark.parametrize(
    ("leave", "said"),
    [("sys.exit(0)", "SystemExit: 0"), ("os._exit(0)", "its process left with status 0 in the midst of it")],
)
def test_subject_that_exits_is_named_with_status_1(tmp_path, environment, leave, said):
    (tmp_path / "leaver.py").write_text(LEAVER.format(leave=leave))
    done = subprocess.run(
        [*VERIFY, "leaver"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not read_results(tmp_path / "out" / "results.json").complete


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_run_that_is_asked_to_end_has_status_2_and_leaves_no_process(tmp_path, environment, how):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "holder.py").write_text(HOLDER)
    with (
        subprocess.Popen(
            [*VERIFY, "holder"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        ) as running,
        (tmp_path / "pipe").open() as pipe,
    ):
        assert pipe.read(5) == "begun"
        running.send_signal(how)
        assert pipe.read() == ""
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 2
    assert "Traceback" not in said
    assert said.startswith("revdeq: interrupted")
