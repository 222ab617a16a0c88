"""What a run asks of a worker: to measure a task or one case of a subject, and to say which files the subject is.

Each function here returns plain JSON values, since what a subject made is not to be rebuilt in the parent.
"""

from __future__ import annotations

from typing import Any

import torch

from verify.case import Case
from verify.checks import Trial, measure
from verify.checks.envelope import ENVELOPE, measure_envelope
from verify.checks.grid import GRID, measure_grid, measure_grid_case
from verify.curves import measure_curves
from verify.environment import SEED
from verify.planted.selftest import selftest
from verify.problems import get_problem
from verify.profiles import STUDY_NAMES, Task, cases, checks_for
from verify.run.files import loaded_files
from verify.run.parts import Part, encode_part
from verify.studies import measure_study
from verify.subject import SubjectError, load_subject


def inspect_subject(subject: str) -> dict[str, Any]:
    """Load a subject.

    Returns:
        {"files": the files of its modules with their digests}, or {"refused": why it cannot be loaded}.
    """
    try:
        load_subject(subject)
    except SubjectError as error:
        return {"refused": str(error)}
    return {"files": loaded_files()}


def measure_and_encode(task: Task, subject: str) -> dict[str, Any]:
    """`measure_task` as JSON values, with the files that the subject has by now."""
    part = measure_task(task, subject)
    return encode_part(part, {} if subject == "revdeq" else loaded_files())


def replay_and_encode(case: str, subject: str) -> dict[str, Any]:
    """`measure_case` as JSON values."""
    return encode_part(measure_case(Case.parse(case), subject), {})


def measure_task(task: Task, subject: str) -> Part:
    """Measure one task.

    Args:
        task: what to measure.
        subject: name of the subject.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    try:
        if not task.problem:
            return Part((), (), selftest())
        if task.problem == GRID:
            rows, curves = measure_grid(load_subject(subject), task.device, _options(subject))
            reached = measure_envelope(load_subject(subject), task.device, _options(subject))
            return Part((*rows, *reached), tuple(curves))
        if task.problem in STUDY_NAMES:
            return Part((), tuple(measure_study(task.problem, task.profile, subject)))
        trial_of = _Trials(subject)
        curves = measure_curves(task, trial_of)
        rows = [row for case in cases(task) for check in checks_for(case) for row in measure(check, trial_of(case))]
        return Part(tuple(rows), tuple(curves))
    finally:
        torch.set_num_threads(threads)


def measure_case(case: Case, subject: str) -> Part:
    """Measure one case by every check that a profile has for it."""
    if case.problem == GRID:
        rows = measure_grid_case(load_subject(subject), case, options=_options(subject))
    elif case.problem == ENVELOPE:
        rows = measure_envelope(load_subject(subject), case.device, _options(subject), only=case)
    else:
        trial_of = _Trials(subject)
        rows = [row for check in checks_for(case) for row in measure(check, trial_of(case))]
    return Part(tuple(rows))


def _options(subject: str) -> tuple[str, ...]:
    """What the command that measures a case again needs to find the subject."""
    return () if subject == "revdeq" else ("--subject", subject)


class _Trials:
    """Trials by case, each made once."""

    def __init__(self, subject: str) -> None:
        self._subject = load_subject(subject)
        self._options = _options(subject)
        self._made: dict[Case, Trial] = {}

    def __call__(self, case: Case) -> Trial:
        if case not in self._made:
            self._made[case] = Trial(case, self._subject, get_problem(case.problem), options=self._options)
        return self._made[case]
