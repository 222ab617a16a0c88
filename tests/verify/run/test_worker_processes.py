"""Whatever a call does, it costs itself alone, and is named; processes end with their parent."""

import os
import signal
import subprocess
import sys

import pytest

from verify.run import Apart, Limits, TaskError, Workers


HOSTILE = """
import ctypes, os, signal, sys, threading, time

def add(left, right): return left + right
def who(): return os.getpid()
def read(): return sys.stdin.read()
def leave(): sys.exit(0)
def leave_hard(): os._exit(0)
def hang():
    while True: time.sleep(60)
def spin():
    while True: pass
def hold_memory():
    held = []
    while True: held.append(bytearray(1 << 24))
def flood():
    while True: os.write(1, b"flood " * 10000)
def crash(): ctypes.string_at(0)
def interrupt(): raise KeyboardInterrupt
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def close_everything():
    os.closerange(0, 64)
    os._exit(0)
def child_stays():
    if os.fork() == 0:
        hang()
    os._exit(3)
def thread_stays():
    threading.Thread(target=hang).start()
    return "done"
class Silent(Exception):
    def __str__(self): raise RuntimeError
def raise_silent(): raise Silent
class Outside(BaseException): pass
def raise_outside(): raise Outside("far")
def give_object(): return object()
def recurse(): return recurse()
def print_and_crash():
    print("the last words", file=sys.stderr, flush=True)
    os.abort()
def hold(path):
    with open(path, "w") as stream:
        stream.write("begun")
        stream.flush()
        hang()
"""

FATES = {
    "leave": "SystemExit: 0",
    "leave_hard": "left with status 0 in the midst",
    "hold_memory": "MemoryError",
    "flood": "printed more than 1 MiB",
    "crash": "died of SIGSEGV",
    "killed": "died of SIGKILL .out of memory, or somebody ended it",
    "interrupt": "KeyboardInterrupt",
    "close_everything": "left with status 0 in the midst",
    "child_stays": "left with status 3 in the midst",
    "raise_silent": "Silent: its message cannot be read",
    "raise_outside": "Outside: far",
    "give_object": "not JSON serializable",
    "recurse": "RecursionError",
    "print_and_crash": "died of SIGABRT.*the last words",
}


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import hostile  # pyright: ignore[reportMissingImports]

    yield hostile
    del sys.modules["hostile"]


@pytest.fixture
def one():
    with Workers(1, Limits(memory=1 << 28, output=1 << 20)) as workers:
        yield workers


@pytest.mark.parametrize("name", FATES)
def test_call_that_fails_is_named_and_the_next_one_goes_on(hostile, one, name):
    failing, following = one.submit(getattr(hostile, name)), one.submit(hostile.add, 1, 2)
    with pytest.raises(TaskError, match=FATES[name]):
        failing.result()
    assert following.result() == 3


@pytest.mark.parametrize("name", ["hang", "spin"])
def test_call_that_does_not_end_is_ended(hostile, name):
    with Workers(1, Limits(seconds=0.2)) as workers, pytest.raises(TaskError, match=r"took longer than 0\.2 s"):
        workers.submit(getattr(hostile, name)).result()


def test_call_finds_no_input_and_keeps_its_process(hostile, one):
    assert one.submit(hostile.read).result() == ""
    assert one.submit(hostile.thread_stays).result() == "done"
    assert one.submit(hostile.who).result() == one.submit(hostile.who).result() != os.getpid()


def test_stopping_ends_what_runs_and_cancels_what_waits(hostile, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    workers = Workers(1, Limits())
    running, waiting = workers.submit(hostile.hold, str(tmp_path / "pipe")), workers.submit(hostile.add, 1, 2)
    with (tmp_path / "pipe").open() as pipe:
        assert pipe.read(5) == "begun"
        workers.shutdown(cancel_futures=True)
        assert pipe.read() == ""
    with pytest.raises(TaskError, match="stopped"):
        running.result()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="make new ones"):
        workers.submit(hostile.add, 1, 2)


def test_another_executors_calls_have_processes_of_their_own(hostile):
    from concurrent.futures import ThreadPoolExecutor

    with Apart(ThreadPoolExecutor(1), Limits()) as workers:
        first = workers.submit(hostile.who).result()
        assert first == workers.submit(hostile.who).result() != os.getpid()
        with pytest.raises(TaskError, match="SystemExit"):
            workers.submit(hostile.leave).result()
        assert workers.submit(hostile.add, 1, 2).result() == 3


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
import hostile
from verify.run import Limits, Workers

if __name__ == "__main__":
    Workers(1, Limits()).submit(hostile.hold, sys.argv[2]).result()
"""


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_worker_ends_with_its_parent(tmp_path, how):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), str(tmp_path / "pipe")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent, (tmp_path / "pipe").open() as pipe:
        assert pipe.read(5) == "begun"
        parent.send_signal(how)
        # The end of the pipe is the end of the process that holds it.
        assert pipe.read() == ""


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": float("nan")}, {"memory": -1}, {"output": 0}])
def test_limit_that_allows_nothing_is_refused(limits):
    with pytest.raises(ValueError, match="give another limit"):
        Limits(**limits)


def test_workers_are_asked_for_what_they_do():
    with pytest.raises(ValueError, match="at least one worker"):
        Workers(0, Limits())
    with Workers(1, Limits()) as workers, pytest.raises(TypeError, match="by position"):
        workers.submit(print, end="")
