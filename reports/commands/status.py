"""Exit statuses, and how what a user gave wrongly becomes one sentence instead of a traceback."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import typer

from reports.errors import ReportError
from verify.json_file import printable
from verify.ledger import LedgerError
from verify.result import ResultsError


HOLDS, FALLS_SHORT, COULD_NOT_RUN = 0, 1, 2


@contextmanager
def user_errors(*more: type[Exception]) -> Generator[None]:
    """Print the sentence of a user's error, or of an interruption, on standard error and leave with status 2.

    Args:
        more: errors of the command's own whose message is written for the user, beside those of results and reports;
            anything else is a defect and keeps its traceback.
    """
    try:
        yield
    except (ReportError, ResultsError, LedgerError, *more) as error:
        typer.echo(f"revdeq: {printable(str(error))}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    except SystemExit as error:
        # Nothing of ours ends so: what the user named does, and its status would be taken for a verdict.
        typer.echo(f"revdeq: what was loaded ended the program with sys.exit({error.code!r}).", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    except KeyboardInterrupt:
        # Left alone, this would end with status 1, which is a verdict.
        typer.echo("revdeq: interrupted; what was finished is kept, and the same command goes on from there.", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None


def leave(holds: bool) -> None:
    """Leave with the status of a verdict."""
    raise typer.Exit(HOLDS if holds else FALLS_SHORT)
