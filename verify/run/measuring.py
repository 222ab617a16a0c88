"""What a run asks of a worker: to measure a task or one case of a subject, and to say which files the subject is.

Each function here returns plain JSON values, since what a subject made is not to be rebuilt in the parent.
"""

from __future__ import annotations

from typing import Any

import torch

from verify.case import Case
from verify.claims import claims_of
from verify.environment import SEED
from verify.run.files import loaded_files
from verify.run.parts import Part, encode_part
from verify.subject import SubjectError, load_subject
from verify.tasks import Task, replay


def inspect_subject(subject: str) -> dict[str, Any]:
    """Load a subject.

    Returns:
        {"files": the files of its modules with their digests, "claims": what it claims}, or {"refused": why not}.
    """
    try:
        claims = claims_of(load_subject(subject))
    except SubjectError as error:
        return {"refused": str(error)}
    return {"files": loaded_files(), "claims": claims.to_json()}


def measure_and_encode(task: Task, subject: str) -> dict[str, Any]:
    """`measure_task` as JSON values, with the files that the subject has by now."""
    part = measure_task(task, subject)
    return encode_part(part, {} if subject == "revdeq" else loaded_files())


def replay_and_encode(case: str, subject: str) -> dict[str, Any]:
    """`verify.tasks.replay` as JSON values."""
    return encode_part(Part(tuple(replay(Case.parse(case), subject))), {})


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
        return task.measure(subject)
    finally:
        torch.set_num_threads(threads)
