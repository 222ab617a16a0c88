"""A run that is killed at any moment loses nothing: what it leaves is whole, and the next run goes on from there."""

import json
import subprocess
import sys

import pytest

from verify.result import Measurement
from verify.result_file import encode


MEASURING = """
import time
from dataclasses import dataclass

@dataclass(frozen=True)
class Task:
    problem: str
    name: str
    weight: int = 0

PLAN = (*(Task("kepler", f"task-{n}") for n in range(24)), Task("", "selftest"))

def measure(task, subject):
    time.sleep(0.002)
    return {"measurements": [ROW | {"case": task.name, "leaf": str(n)} for n in range(200 if task.problem else 0)],
            "curves": [], "selftest": None if task.problem else [], "files": {}, "started": ""}

"""

ROUNDS = """
import json, os, random, signal, sys, time
from pathlib import Path

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, str(folder))
import killed_measuring
from verify import sweep
from verify.profiles import Profile
from verify.run import tasks

def planned(*arguments):
    return killed_measuring.PLAN

Profile.tasks = planned
sweep.has_gradients = lambda *arguments: True
tasks.measure_and_encode = killed_measuring.measure

def begin(out):
    child = os.fork()
    if child == 0:
        sweep.run(out=out, command="")
        os._exit(0)
    return child

def essence(out):
    data = json.loads((out / "results.json").read_text())
    return [data["complete"], data["measurements"], sorted(path.name for path in out.iterdir())]

os.waitpid(begin(folder / "whole"), 0)
expected = essence(folder / "whole")
draw = random.Random(int(sys.argv[3]))
kills, out = 0, folder / "killed"
while kills < rounds:
    child = begin(out)
    time.sleep(draw.uniform(0.0, 0.6))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) or (out / "results.json").exists():
        # It was faster than its killer: what it wrote is whole, and the next begins anew.
        assert essence(out) == expected
        out = folder / f"killed-{kills}"
    kills += 1
os.waitpid(begin(out), 0)
assert essence(out) == expected
print(json.dumps(expected[0]), len(expected[1]))
"""


@pytest.mark.parametrize(("rounds", "seed"), [(4, 1), pytest.param(30, 2, marks=pytest.mark.nightly)])
def test_run_killed_at_random_moments_is_completed_by_the_next(tmp_path, rounds, seed):
    row = encode(Measurement(check="gradient", case="", measured=1.0))
    (tmp_path / "killed_measuring.py").write_text(f"{MEASURING}ROW = {row!r}\n")
    (tmp_path / "rounds.py").write_text(ROUNDS)
    command = [sys.executable, str(tmp_path / "rounds.py"), str(tmp_path), str(rounds), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [json.dumps(True), str(24 * 200)]
