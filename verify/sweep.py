"""The sweep: run a profile's tasks in worker processes, keep what is finished, and put the results in order.

Every finished task is written to OUT/partial at once. A run that is interrupted takes up where it stopped when the same
command runs the same sources again; a run whose results are already there takes them up whole.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.util
import json
import multiprocessing
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from verify.case import Case
from verify.environment import SEED, command_line, cuda_absence, describe
from verify.planning import absence
from verify.profiles import profile_named
from verify.result import NotMeasured, Results, ResultsError
from verify.result_file import read_results, write_results
from verify.studies.registry import studies_left_out
from verify.subject import load_subject
from verify.tasks import Part, Task, replay


Progress = Callable[[int, int, str], None]
DEVICES = ("cpu", "cuda", "all")
RESULTS = "results.json"
PARTIAL = "partial"
_PART_NAME = re.compile(r"[0-9a-f]{32}\.json")


class SweepError(RuntimeError):
    """A sweep that cannot run or was cut short; the message says why and what to do."""


def run(
    profile: str = "quick",
    device: str = "cpu",
    subject: str = "revdeq",
    *,
    only: str | None = None,
    executor: Executor | None = None,
    out: str | Path,
    progress: Progress | None = None,
    command: str | None = None,
    fresh: bool = False,
) -> Results:
    """Measure a profile and write OUT/results.json.

    Args:
        profile: "quick", "full" or "nightly".
        device: "cpu", "cuda", or "all" for those that this machine has.
        subject: what is verified, a name for `verify.subject.load_subject`.
        only: id of one case, measured alone; the results are then those of a replay and not of a run.
        executor: where tasks run; None for one process per processor. Tasks change global states of torch for as long
            as they run, so an executor must give each its own process, or run one at a time.
        out: folder for the results.
        progress: called with (tasks done, tasks in all, name of the task just finished).
        command: the command to record; None for that of this process.
        fresh: measure again what an earlier run of the same sources has measured.

    Returns:
        The results, as written.

    Raises:
        ValueError: if the profile, the device or the case is unknown.
        verify.subject.SubjectError: if the subject cannot be loaded.
        verify.result.ResultsError: if the folder cannot be written.
        SweepError: if the device is not there, or a task raised or its worker died; what was finished is kept.
    """
    _validate(profile, device)
    load_subject(subject)
    out = Path(out)
    _check_writable(out)
    started = _now()
    environment = describe()
    shell = _Shell(
        profile, subject, _devices(device), command_line() if command is None else command, started, environment
    )
    if only is not None:
        results = _replay(shell, only)
        write_results(results, out / RESULTS)
        return results
    measured = profile_named(profile)
    planned = measured.tasks(shell.devices)
    key = _key(environment, subject)
    missing = _absent(device)
    finished = None if fresh else _finished(out / RESULTS, shell, key, device)
    if finished is not None:
        if progress is not None:
            progress(len(planned), len(planned), f"taken up from {out / RESULTS}, measured {finished.started}")
        return finished
    parts = _run_tasks(planned, shell, key, executor, out / PARTIAL, progress, fresh)
    results = shell.results(
        parts=[parts[task] for task in planned],
        complete=True,
        not_measured=(*missing, *measured.left_out(), *studies_left_out(subject)),
    )
    write_results(results, out / RESULTS)
    _forget(out / PARTIAL)
    return results


def measure_task(task: Task, subject: str) -> Part:
    """Measure one task; this is what a worker runs.

    Args:
        task: what to measure.
        subject: name of the subject.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    try:
        return task.measure(subject)
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Shell:
    """What a run knows of itself before it has measured anything."""

    profile: str
    subject: str
    devices: tuple[str, ...]
    command: str
    started: str
    environment: dict[str, Any]

    def results(self, parts: Sequence[Part], complete: bool, not_measured: tuple[NotMeasured, ...]) -> Results:
        records = [part.selftest for part in parts if part.selftest is not None]
        return Results(
            profile=self.profile,
            command=self.command,
            started=self.started,
            finished=_now(),
            environment=self.environment,
            subject=self.subject,
            devices=self.devices,
            complete=complete,
            measurements=tuple(row for part in parts for row in part.measurements),
            curves=tuple(curve for part in parts for curve in part.curves),
            not_measured=not_measured,
            selftest=records[0] if records else None,
        )


def _replay(shell: _Shell, only: str) -> Results:
    case = Case.parse(only)
    if case.device not in _devices("all"):
        raise SweepError(f"case {only!r} needs {case.device}: {cuda_absence()}; replay it where it was measured.")
    rows = replay(case, shell.subject)
    left = NotMeasured(what="every other case", why=f"this is a replay of {case.id} alone")
    return replace(shell, profile="replay", devices=(case.device,)).results(
        [Part(tuple(rows))], complete=False, not_measured=(left,)
    )


def _run_tasks(
    planned: Sequence[Task],
    shell: _Shell,
    key: str,
    executor: Executor | None,
    folder: Path,
    progress: Progress | None,
    fresh: bool,
) -> dict[Task, Part]:
    parts: dict[Task, Part] = {}
    if not fresh:
        for task in planned:
            part = _read_part(folder / _part_name(task, key))
            if part is not None:
                parts[task] = part
    waiting = [task for task in planned if task not in parts]
    # The longest tasks first, so that no worker is left alone with one at the end.
    waiting.sort(key=lambda task: -task.weight)
    own = executor is None
    pool = _process_pool(len(waiting)) if executor is None else executor
    futures: dict[Future[Part], Task] = {}
    failures: list[tuple[Task, BaseException]] = []
    try:
        if progress is not None and parts:
            progress(len(parts), len(planned), "taken up from an interrupted run")
        futures = {pool.submit(measure_task, task, shell.subject): task for task in waiting}
        for future in concurrent.futures.as_completed(futures):
            task = futures[future]
            error = future.exception()
            if error is not None:
                # The parts that did finish are still written: a broken pool fails all of its waiting tasks at once.
                failures.append((task, error))
                continue
            part = future.result()
            parts[task] = part
            write_results(shell.results([part], complete=False, not_measured=()), folder / _part_name(task, key))
            if progress is not None:
                progress(len(parts), len(planned), task.name)
    except concurrent.futures.BrokenExecutor as error:
        raise SweepError(
            f"the workers died ({error}) with {len(parts)} of {len(planned)} tasks finished: run the same command "
            "again to go on from there."
        ) from error
    finally:
        for future in futures:
            future.cancel()
        if own:
            pool.shutdown(wait=True, cancel_futures=True)
    if failures:
        unfinished = [task for task in waiting if task not in parts]
        raise SweepError(
            f"{_what_failed(failures, unfinished)}, and {len(parts)} of {len(planned)} tasks are finished: run the "
            "same command again to go on from there."
        ) from failures[0][1]
    return parts


def _what_failed(failures: Sequence[tuple[Task, BaseException]], unfinished: Sequence[Task]) -> str:
    for task, error in failures:
        if not isinstance(error, concurrent.futures.BrokenExecutor):
            return f"{task.name} was not measured ({type(error).__name__}: {error})"
    # A worker that dies fails every waiting task. Tasks begin in their order, so it was at one of the first.
    suspects = " or ".join(task.name for task in unfinished[: _processors()])
    return f"a worker died at {suspects} (killed, out of memory, or a crash in a library; --only measures one case)"


def _process_pool(size: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max(1, min(_processors(), size)), mp_context=multiprocessing.get_context("spawn"))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _validate(profile: str, device: str) -> None:
    profile_named(profile)
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}: give one of {', '.join(DEVICES)}.")
    if device == "cuda" and cuda_absence():
        raise SweepError(f"device is 'cuda', and there is {cuda_absence()}: give --device cpu, or all.")


def _devices(device: str) -> tuple[str, ...]:
    if device != "all":
        return (device,)
    return ("cpu",) if cuda_absence() else ("cpu", "cuda")


def _absent(device: str) -> tuple[NotMeasured, ...]:
    if "cuda" in _devices(device):
        return ()
    return (absence(cuda_absence()),)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ResultsError(
            f"the folder {out} cannot be written ({error.strerror or error}): choose another --out."
        ) from error


def _key(environment: dict[str, Any], subject: str) -> str:
    """Digest of everything that a number may depend on: sources, subject, libraries, machine."""
    depends = {name: value for name, value in environment.items() if name not in ("commit", "dirty")}
    spec = None if subject == "revdeq" else importlib.util.find_spec(subject.partition(":")[0])
    source = b"" if spec is None or spec.origin is None else Path(spec.origin).read_bytes()
    text = json.dumps(depends, sort_keys=True, default=str) + subject
    return hashlib.sha256(text.encode() + source).hexdigest()


def _finished(path: Path, shell: _Shell, key: str, device: str) -> Results | None:
    """Results of the same sources, subject, profile and devices, if they are there whole."""
    if not path.is_file():
        return None
    try:
        found = read_results(path)
    except ResultsError:
        # Not ours to read: it is replaced once this run is finished, not before.
        return None
    same = found.profile == shell.profile and found.subject == shell.subject and found.complete
    if same and _key(found.environment, found.subject) == key and found.devices == _devices(device):
        return found
    return None


def _part_name(task: Task, key: str) -> str:
    return hashlib.sha256(f"{task!r} {key}".encode()).hexdigest()[:32] + ".json"


def _read_part(path: Path) -> Part | None:
    if not path.is_file():
        return None
    try:
        found = read_results(path)
    except ResultsError:
        # Written in one piece, so this is not ours or was damaged since: measure it again.
        return None
    return Part(found.measurements, found.curves, found.selftest)


def _forget(folder: Path) -> None:
    """Remove the parts of this and of earlier, abandoned runs, and their folder if nothing else is in it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _PART_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
