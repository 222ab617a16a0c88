"""A check of a user's module in a process of its own: whatever the module does there, its end is no verdict."""

from __future__ import annotations

from typing import Any

from verify.run.process import Limits, Process, TaskError


class CheckingError(RuntimeError):
    """The check gave no findings; the message says why."""


def check_apart(source: str, limits: Limits, options: dict[str, Any]) -> list[tuple[str, str]]:
    """`verify.module.check_module` in a process of its own, which may exit, crash or hang.

    Args:
        source: "module:factory".
        limits: what it may use.
        options: of `check_module`.

    Returns:
        For each finding its outcome and its line.

    Raises:
        CheckingError: it was refused, or the process ended or went beyond a limit.
    """
    process = Process(limits)
    try:
        found = process.call(check_and_encode, (source, options), lambda: False)
    except TaskError as error:
        raise CheckingError(f"{source} could not be checked: {error}") from error
    finally:
        process.end()
    if isinstance(found, str):
        raise CheckingError(found)
    return [(outcome, line) for outcome, line in found]


def check_and_encode(source: str, options: dict[str, Any]) -> list[tuple[str, str]] | str:
    """The findings as JSON values, or the sentence with which they were refused."""
    # Imported here, because torch takes seconds and the parent does without it.
    from verify.certificate.source import SourceError
    from verify.module import CheckError, check_module

    try:
        return [(finding.outcome.value, finding.text()) for finding in check_module(source, **options)]
    except (SourceError, CheckError) as error:
        return str(error)
