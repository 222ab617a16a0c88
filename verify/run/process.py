"""One worker process, seen from its parent: calls are sent one at a time, and watched while they run."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.json_file import printable


TICK = 0.1
"""Seconds between two looks at limits and at a wish to stop."""

GRACE = 5.0
"""Seconds that a process has to end after it closed its pipes."""

LAST_WORDS = 1000
_CHUNK = 1 << 16


class TaskError(RuntimeError):
    """A call that gave no value; the message says in a sentence what became of it."""


@dataclass(frozen=True)
class Limits:
    """What a call may use.

    Args:
        seconds: wall time of one call, the start of its process included where that is new.
        memory: bytes that a process may hold, on Linux; None for no limit, which CUDA's address space needs.
        output: bytes that one call may print.
    """

    seconds: float = 3600.0
    memory: int | None = None
    output: int = 16 << 20

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "output"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value!r}, allowed is more than 0: give another limit.")


class Process:
    """A process that runs `verify/run/worker.py`, in a process group of its own.

    Args:
        limits: what each call may use.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ended = False
        script = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            # -P, because the script's own folder is no place to import from.
            [sys.executable, "-P", str(script), str(os.getpid()), str(limits.memory or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,
        )
        self._send(pickle.dumps([str(Path(place).resolve()) if place == "" else place for place in sys.path]))

    @property
    def alive(self) -> bool:
        """Whether another call can be sent."""
        return self._process.poll() is None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], stopped: Callable[[], bool]) -> Any:
        """Call a function in the process; one that fails to answer is ended.

        Args:
            function: of a module; it returns what JSON can hold.
            arguments: what it is called with.
            stopped: whether to give up now.

        Returns:
            What the function returned, as JSON gives it back.

        Raises:
            TaskError: if it raised, exited, died, or went beyond a limit.
        """
        self._send(pickle.dumps(pickle.dumps((function, arguments))))
        call = _Call(self._process, self._limits)
        try:
            kind, value = call.answer(stopped)
        except BaseException:
            self.end()
            raise
        if kind == "raised":
            raise TaskError(printable(value))
        return value

    def end(self) -> None:
        """End the process and those that it started, at once."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def __del__(self) -> None:
        # A thread that ends without a word takes its process with it.
        if hasattr(self, "_process"):
            self.end()

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        # One that died between two calls is found out where its answer is awaited.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(message)


class _Call:
    """What has come from a process since a call was sent."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._limits = limits
        self._answers, self._prints = process.stdout.fileno(), process.stderr.fileno()
        self._answer = bytearray()
        self._printed = 0
        self._last = b""

    def answer(self, stopped: Callable[[], bool]) -> tuple[str, Any]:
        """Wait for the answer: ("value", value) or ("raised", sentence)."""
        used, before = 0.0, time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            selector.register(self._prints, selectors.EVENT_READ)
            while True:
                ended = self._process.poll() is not None
                ready = [key.fd for key, _ in selector.select(TICK)]
                for descriptor in ready:
                    if not self._read(descriptor):
                        selector.unregister(descriptor)
                        ended = ended or descriptor == self._answers
                if (found := self._decoded()) is not None:
                    return found
                if self._printed > self._limits.output:
                    raise TaskError(f"it printed more than {_size(self._limits.output)}{self._words()}")
                if ended and not ready:
                    raise TaskError(self._how_it_ended())
                now = time.monotonic()
                # A machine that slept, or a parent that was stopped, is not the call's time.
                used, before = used + min(now - before, 10 * TICK), now
                if not used <= self._limits.seconds:
                    raise TaskError(f"it took longer than {self._limits.seconds:g} s{self._words()}")
                if stopped():
                    raise TaskError("it was stopped before its end")

    def _read(self, descriptor: int) -> bool:
        """Take what has come; False at the end of the pipe."""
        chunk = os.read(descriptor, _CHUNK)
        if descriptor == self._answers:
            self._answer += chunk
        else:
            self._printed += len(chunk)
            self._last = (self._last + chunk)[-LAST_WORDS:]
        return bool(chunk)

    def _decoded(self) -> tuple[str, Any] | None:
        if len(self._answer) < 8 or len(self._answer) - 8 < int.from_bytes(self._answer[:8], "little"):
            return None
        kind, value = json.loads(self._answer[8:])
        return kind, value

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return f"its process closed the pipe of its answer{self._words()}"
        if status >= 0:
            return f"its process left with status {status} in the midst of it{self._words()}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        why = " (out of memory, or somebody ended it)" if -status == signal.SIGKILL else ""
        return f"its process died of {name}{why}{self._words()}"

    def _words(self) -> str:
        words = " ".join(self._last.decode(errors="replace").split())
        return f"; its last words: {printable(words)}" if words else ""


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
