"""The tasks of one run: those that are done are kept at once, and one that fails is named and costs no other."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

from verify.result import FAILED_TASK, NotMeasured, ResultsError
from verify.run.measuring import measure_and_encode
from verify.run.parts import Part, Parts, decode_part
from verify.run.process import TaskError
from verify.tasks import Task


Progress = Callable[[int, int, str], None]

_LOOK = 1.0
"""Seconds after which a progress report says again what runs."""


class SweepError(RuntimeError):
    """A sweep that cannot run or was cut short; the message says why and what to do."""


def longest_first(tasks: Sequence[Task]) -> list[Task]:
    """Tasks with those first that take longest."""
    return sorted(tasks, key=lambda task: -task.weight)


@dataclass
class TaskRun:
    """The tasks of a run: which are done, which failed and why.

    Args:
        planned: the tasks.
        subject: name of what is verified.
        parts: where finished tasks are kept.
        files: the files of the subject that have been seen, with their digests.
        started: when this run began; an earlier moment once it takes up what an earlier run has measured.
        progress: called with (tasks done or failed, tasks in all, what was just finished or runs now).
    """

    planned: Sequence[Task]
    subject: str
    parts: Parts
    files: dict[str, str]
    started: str
    progress: Progress | None
    done: dict[Task, Part] = field(default_factory=dict[Task, Part])
    failed: dict[Task, NotMeasured] = field(default_factory=dict[Task, NotMeasured])
    _unwritten: dict[Task, Part] = field(default_factory=dict[Task, Part])

    def run(self, workers: Executor, fresh: bool) -> None:
        """Measure what is not measured yet."""
        if not fresh:
            for task in self.planned:
                part = self.parts.read(task.name)
                if part is not None and self._same_files(part.files):
                    self.done[task] = part
                    self.started = min(self.started, part.started)
        if self.done:
            self._say("taken up from an interrupted run")
        # So that no worker is left alone with a long one at the end.
        waiting = longest_first([task for task in self.planned if task not in self.done])
        futures: dict[Future[Any], Task] = {}
        try:
            futures = {workers.submit(measure_and_encode, task, self.subject): task for task in waiting}
            self._collect(futures)
        except concurrent.futures.BrokenExecutor as error:
            raise SweepError(
                f"the workers died ({error}) with {len(self.done)} of {len(self.planned)} tasks finished: run the same "
                "command again to go on from there."
            ) from error
        finally:
            for future in futures:
                future.cancel()
            for task, part in self._unwritten.items():
                with contextlib.suppress(ResultsError):
                    self.parts.write(task.name, part)

    def _collect(self, futures: dict[Future[Any], Task]) -> None:
        waiting, began = set(futures), dict[Future[Any], float]()
        while waiting:
            ended, waiting = concurrent.futures.wait(waiting, _LOOK, concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                self._take(futures[future], future)
            running = [future for future in waiting if future.running()]
            for future in running:
                began.setdefault(future, time.monotonic())
            if running and not ended:
                now = time.monotonic()
                said = (f"{futures[future].name} for {now - began[future]:.0f} s" for future in running)
                self._say(f"running {', '.join(said)}")

    def _take(self, task: Task, future: Future[Any]) -> None:
        """Keep what a task gave, or why it gave nothing."""
        error = future.exception()
        if error is None:
            try:
                part = decode_part(future.result())
            except ResultsError as problem:
                error = problem
            else:
                if self._same_files(part.files):
                    self._keep(task, part)
                    return
                error = TaskError("a file of the subject was changed while it was measured")
        why = str(error) if isinstance(error, TaskError) else f"{type(error).__name__}: {error}"
        self.failed[task] = NotMeasured(what=f"{FAILED_TASK}{task.name}", why=why)
        self._say(f"{task.name} failed")

    def _keep(self, task: Task, part: Part) -> None:
        self.done[task] = part = replace(part, started=self.started)
        try:
            self.parts.write(task.name, part)
        except ResultsError:
            # A full disk, say: the part is in memory, and the run may yet end well.
            self._unwritten[task] = part
        self._say(task.name)

    def _same_files(self, files: dict[str, str]) -> bool:
        """Whether these files are those that others saw; ones seen for the first time are remembered."""
        same = all(self.files.get(path, digest) == digest for path, digest in files.items())
        if same:
            self.files.update(files)
        return same

    def _say(self, what: str) -> None:
        if self.progress is not None:
            self.progress(len(self.done) + len(self.failed), len(self.planned), what)
