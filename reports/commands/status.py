"""Exit statuses, and how what a user gave wrongly becomes one sentence instead of a traceback."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import typer

from reports.errors import ReportError
from verify.case import CaseError
from verify.result import ResultsError
from verify.subject import SubjectError


HOLDS, FALLS_SHORT, COULD_NOT_RUN = 0, 1, 2

USER_ERRORS: tuple[type[Exception], ...] = (ReportError, ResultsError, CaseError, SubjectError)
"""Errors whose message is written for the user; anything else is a defect and keeps its traceback."""


@contextmanager
def user_errors() -> Generator[None]:
    """Print the sentence of a user's error on standard error and leave with status 2."""
    try:
        yield
    except USER_ERRORS as error:
        typer.echo(f"revdeq: {error}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None


def leave(holds: bool) -> None:
    """Leave with the status of a verdict."""
    raise typer.Exit(HOLDS if holds else FALLS_SHORT)
