"""Worker processes as an executor: one that dies costs its own call, and a new one takes its place."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from verify.run.process import Limits, Process


LEAST_MEMORY = 2 << 30
"""Bytes: torch and the largest problems take less than one of the two."""

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers(Executor):
    """Processes that each run one call at a time, under limits.

    What a call returns must be plain JSON values; a call that raises, exits, crashes or goes beyond a limit gives its
    future a `TaskError`, and every other call goes on. The processes end with this object, and with this process.

    Args:
        size: how many processes; at least one.
        limits: what each call may use.
    """

    def __init__(self, size: int, limits: Limits) -> None:
        if size < 1:
            raise ValueError(f"size is {size}, allowed is 1 or more: give at least one worker.")
        self._limits = limits
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._closed = False
        # The kernel ends a process when the thread ends that started it: these live as long as their processes.
        self._slots = [threading.Thread(target=self._serve, daemon=True) for _ in range(size)]
        for slot in self._slots:
            slot.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `Executor.submit`, without keyword arguments."""
        if kwargs:
            raise TypeError(f"keyword arguments {sorted(kwargs)} were given, allowed are none: give them by position.")
        if self._closed:
            raise RuntimeError("these workers were shut down: make new ones.")
        future: Future[Any] = Future()
        self._jobs.put((future, fn, args))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`; with `cancel_futures`, calls that run are ended as well."""
        self._closed = True
        if cancel_futures:
            self._stopped.set()
        for _ in self._slots:
            self._jobs.put(None)
        if wait:
            for slot in self._slots:
                slot.join()

    def _serve(self) -> None:
        process: Process | None = None
        try:
            while (job := self._jobs.get()) is not None:
                future, function, arguments = job
                if self._stopped.is_set():
                    future.cancel()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    if process is None or not process.alive:
                        process = Process(self._limits)
                    future.set_result(process.call(function, arguments, self._stopped.is_set))
                except BaseException as error:  # noqa: BLE001  (it is the future's, whatever it is)
                    future.set_exception(error)
        finally:
            if process is not None:
                process.end()


class Apart(Executor):
    """Another executor's workers, each with a process of its own for the calls.

    Args:
        executor: runs the calls one at a time in each of its processes, such as that of dask.distributed.
        limits: what each call may use.
    """

    def __init__(self, executor: Executor, limits: Limits) -> None:
        self._executor = executor
        self._limits = limits
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `Workers.submit`."""
        future = self._executor.submit(_call_apart, self._limits, fn, *args, **kwargs)
        self._futures.add(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As that of the executor; calls that run go on to their end or their limit."""
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        self._executor.shutdown(wait=wait)


class _Own(threading.local):
    """The process of each thread that makes calls; the kernel ends it with the thread."""

    process: Process | None = None
    limits: Limits | None = None


_own = _Own()


def _call_apart(limits: Limits, function: Callable[..., Any], *arguments: Any) -> Any:
    if _own.process is None or _own.limits != limits or not _own.process.alive:
        if _own.process is not None:
            _own.process.end()
        _own.process, _own.limits = Process(limits), limits
    return _own.process.call(function, arguments, _never)


def _never() -> bool:
    return False


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_share(size: int) -> int:
    """Bytes for each of `size` workers: an equal share of what the machine, or its container, has."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (said := container.read_text().strip()).isdigit():
        total = min(total, int(said))
    return max(LEAST_MEMORY, total // size)
