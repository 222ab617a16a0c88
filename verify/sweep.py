"""The sweep: run a profile's tasks in worker processes, keep what is finished, and put the results in order.

Every finished task is written to OUT/partial at once. A run that is interrupted takes up where it stopped when the same
command runs the same sources again; a run whose results are already there takes them up whole. Results of anything
else are moved aside before a run starts. A task that fails is named in the results, which are then not complete.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from verify.case import Case
from verify.claims import EVERYTHING, Claims
from verify.environment import command_line, cuda_absence, describe
from verify.planning import absence, has_gradients, unclaimed
from verify.profiles import profile_named
from verify.result import CLAIMS, FAILED_TASK, SUBJECT_FILES, NotMeasured, Results, ResultsError
from verify.result_file import read_results, write_results
from verify.run import Limits, TaskError, Workers
from verify.run.files import unchanged
from verify.run.folder import claimed, set_aside
from verify.run.measuring import inspect_subject, replay_and_encode
from verify.run.parts import Part, Parts, decode_part
from verify.run.shards import SHARD, Shard, is_shard
from verify.run.tasks import Progress, SweepError as SweepError, TaskRun
from verify.run.workers import memory_share, processors
from verify.studies.registry import studies_left_out
from verify.subject import SubjectError
from verify.trial.benches import require_known


DEVICES = ("cpu", "cuda", "all")
RESULTS = "results.json"
PARTIAL = "partial"


def run(
    profile: str = "quick",
    device: str = "cpu",
    subject: str = "revdeq",
    *,
    only: str | None = None,
    shard: Shard | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
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
        shard: which share of the tasks to measure; None for all. Its results say so, and are for
            `verify.run.shards.merge_shards` to put together.
        executor: where tasks run; None for one process per processor. Tasks change global states of torch for as long
            as they run, so an executor must give each its own process, or run one at a time.
        limits: what each task may use, where `executor` is None; None for an hour and an equal share of the memory.
        out: folder for the results.
        progress: called with (tasks done, tasks in all, what was just finished or runs now).
        command: the command to record; None for that of this process.
        fresh: measure again what an earlier run of the same sources has measured.

    Returns:
        The results, as written. A task that raised, exited, died or went beyond a limit is among what was not measured
        (`NotMeasured.failed`), and the results are not complete.

    Raises:
        ValueError: if the profile, the device or the case is unknown.
        verify.subject.SubjectError: if the subject cannot be loaded.
        verify.result.ResultsError: if the folder cannot be written, another run measures into it, or a replay would
            replace the results of a run.
        SweepError: if the device is not there, or the executor broke; what was finished is kept.
    """
    _validate(profile, device)
    out = Path(out)
    measured, devices = profile_named(profile), _devices(device)
    planned = measured.tasks(devices) if only is None else ()
    if shard is not None:
        planned = shard.share(planned)
    if only is not None:
        devices = (_validate_case(only).device,)
    with claimed(out, RESULTS), _workers(executor, limits, max(len(planned), 1), devices) as workers:
        if only is not None:
            _keep_run(out / RESULTS)
        clock, environment = _Clock(), describe()
        files, claims = _inspect(subject, workers)
        environment |= {} if claims == EVERYTHING else {CLAIMS: claims.to_json()}
        if only is None and not has_gradients(measured, devices, claims):
            raise SubjectError(f"profile {profile} judges no gradient of {subject!r}: {claims.text}; claim more.")
        said = command_line() if command is None else command
        shell = _Shell(profile, subject, devices, said, clock, environment)
        if only is not None:
            if not claims.has(Case.parse(only)):
                raise SweepError(f"case {only!r} is none that {subject} claims: {claims.text}.")
            results = _replay(shell, only, workers)
            write_results(results, out / RESULTS)
            return results
        finished = None if fresh else _finished(out / RESULTS, shell, shard, files)
        if finished is not None:
            if progress is not None:
                progress(len(planned), len(planned), f"taken up from {out / RESULTS}, measured {finished.started}")
            return finished
        set_aside(out / RESULTS)
        parts = Parts(out / PARTIAL, f"{profile} {subject} {_key(environment)}", files)
        tried = TaskRun(planned, subject, parts, files, clock.started, progress)
        tried.run(workers, fresh)
        shell.environment.update({} if subject == "revdeq" else {SUBJECT_FILES: tried.files})
        done = {task: tried.done[task] for task in planned if task in tried.done}
        left = (
            *(*tried.failed.values(), *_absent(devices), *measured.left_out()),
            *(*studies_left_out(subject), *unclaimed(subject, claims)),
        )
        if shard is not None:
            shell.environment[SHARD] = shard.describe(done)
            left = (*left, shard.left_out)
        clock.started = tried.started
        results = shell.results([*done.values()], complete=not tried.failed and shard is None, not_measured=left)
        write_results(results, out / RESULTS)
        if not tried.failed:
            parts.forget(task.name for task in planned)
        return results


class _Clock:
    """When a run began and how long ago that is, whatever is done to the machine's clock meanwhile."""

    def __init__(self) -> None:
        self._began, self._counted = datetime.now(UTC), time.monotonic()
        self.started = self._began.isoformat(timespec="seconds")

    def now(self) -> str:
        return (self._began + timedelta(seconds=time.monotonic() - self._counted)).isoformat(timespec="seconds")


@dataclass(frozen=True)
class _Shell:
    """What a run knows of itself before it has measured anything."""

    profile: str
    subject: str
    devices: tuple[str, ...]
    command: str
    clock: _Clock
    environment: dict[str, Any]

    def results(self, parts: Sequence[Part], complete: bool, not_measured: tuple[NotMeasured, ...]) -> Results:
        records = [part.selftest for part in parts if part.selftest is not None]
        return Results(
            profile=self.profile,
            command=self.command,
            started=self.clock.started,
            finished=self.clock.now(),
            environment=self.environment,
            subject=self.subject,
            devices=self.devices,
            complete=complete,
            measurements=tuple(row for part in parts for row in part.measurements),
            curves=tuple(curve for part in parts for curve in part.curves),
            not_measured=not_measured,
            selftest=records[0] if records else None,
        )


@contextmanager
def _workers(
    executor: Executor | None, limits: Limits | None, most: int, devices: Sequence[str]
) -> Generator[Executor]:
    """The executor, or processes of this machine, which are ended after the block however it ends."""
    if executor is not None:
        yield executor
        return
    size = min(processors(), most)
    if limits is None:
        limits = Limits()
    if limits.memory is None and "cuda" not in devices:
        limits = replace(limits, memory=memory_share(size))
    workers = Workers(size, limits)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


def _inspect(subject: str, workers: Executor) -> tuple[dict[str, str], Claims]:
    """Files and claims of a subject, which a worker loads: what a module does when imported cannot end the run."""
    if subject == "revdeq":
        return {}, EVERYTHING
    try:
        found = workers.submit(inspect_subject, subject).result()
    except TaskError as error:
        raise SubjectError(f"subject {subject!r} cannot be loaded: {error}; mend it, or give another.") from error
    if "refused" in found:
        raise SubjectError(found["refused"])
    return found["files"], Claims.from_json(found["claims"])


def _replay(shell: _Shell, only: str, workers: Executor) -> Results:
    left = NotMeasured(what="every other case", why=f"this is a replay of {only} alone")
    shell = replace(shell, profile="replay")
    try:
        part = decode_part(workers.submit(replay_and_encode, only, shell.subject).result())
    except (TaskError, ResultsError) as error:
        failed = NotMeasured(what=f"{FAILED_TASK}{only}", why=str(error))
        return shell.results([], complete=False, not_measured=(failed, left))
    return shell.results([part], complete=False, not_measured=(left,))


def _keep_run(path: Path) -> None:
    """Refuse to replace the results of a run by those of a replay."""
    if not path.exists():
        return
    try:
        profile = read_results(path).profile
    except ResultsError:
        profile = "another kind"
    if profile != "replay":
        raise ResultsError(f"{path} holds results of {profile}, which --only does not replace: choose another --out.")


def _validate(profile: str, device: str) -> None:
    profile_named(profile)
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}: give one of {', '.join(DEVICES)}.")
    if device == "cuda" and cuda_absence():
        raise SweepError(f"device is 'cuda', and there is {cuda_absence()}: give --device cpu, or all.")


def _validate_case(only: str) -> Case:
    case = Case.parse(only)
    require_known(case)
    if case.device not in _devices("all"):
        raise SweepError(f"case {only!r} needs {case.device}: {cuda_absence()}; replay it where it was measured.")
    return case


def _devices(device: str) -> tuple[str, ...]:
    if device != "all":
        return (device,)
    return ("cpu",) if cuda_absence() else ("cpu", "cuda")


def _absent(devices: Sequence[str]) -> tuple[NotMeasured, ...]:
    return () if "cuda" in devices else (absence(cuda_absence()),)


def _key(environment: dict[str, Any]) -> str:
    """Digest of everything that a number may depend on, the subject apart: sources, libraries, machine."""
    depends = {
        name: value for name, value in environment.items() if name not in ("commit", "dirty", SUBJECT_FILES, SHARD)
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()


def _finished(path: Path, shell: _Shell, shard: Shard | None, files: dict[str, str]) -> Results | None:
    """Results of the same sources, subject, profile, devices and shard, if they are there whole."""
    if not path.is_file():
        return None
    try:
        found = read_results(path)
    except ResultsError:
        # Not ours to read: it is moved aside.
        return None
    whole = (found.complete or shard is not None) and not any(item.failed for item in found.not_measured)
    asked = (found.profile, found.subject, found.devices) == (shell.profile, shell.subject, shell.devices)
    same = whole and asked and is_shard(found, shard) and _key(found.environment) == _key(shell.environment)
    recorded: dict[str, str] = found.environment.get(SUBJECT_FILES, {})
    return found if same and unchanged(recorded, files) else None
