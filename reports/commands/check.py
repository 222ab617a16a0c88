"""`revdeq check`: what applies to the user's own module, in seconds, with what to do."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from reports.commands.status import COULD_NOT_RUN, leave, user_errors
from verify.json_file import printable
from verify.run.checking import CheckingError, check_apart
from verify.run.process import Limits
from verify.users_module import look_where_called


def check(
    source: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="FACTORY() returns (function, z0, args)")],
    beta: Annotated[float, typer.Option(help="relaxation parameter")] = 0.5,
    steps: Annotated[int, typer.Option(help="number of steps N")] = 8,
    gradient_error: Annotated[float, typer.Option(help="relative error for which beta and steps are planned")] = 1e-3,
    compile: Annotated[bool, typer.Option("--compile", help="compile half steps too, which takes long")] = False,
    only: Annotated[list[str] | None, typer.Option(help="a claim to check alone; may be given again")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="a claim to leave out; may be given again")] = None,
    seconds: Annotated[float, typer.Option(help="seconds after which it is given up")] = 600.0,
) -> None:
    """Check a module f(z, args) of your own.

    Status 0 if all that was asked holds, 1 if something falls short, 2 if something could not be checked.
    """
    look_where_called()
    options = {
        "beta": beta,
        "num_steps": steps,
        "gradient_error": gradient_error,
        "compile": compile,
        "only": only or [],
        "leave_out": leave_out or [],
    }
    with user_errors(CheckingError):
        findings = check_apart(source, _limits(seconds), options)
    for _, line in findings:
        typer.echo(printable(line))
    counts = Counter(outcome for outcome, _ in findings)
    typer.echo(", ".join(f"{outcome}: {count}" for outcome, count in counts.items()))
    if counts["not checked"] and not counts["falls short"]:
        raise typer.Exit(COULD_NOT_RUN)
    leave(not counts["falls short"])


def _limits(seconds: float) -> Limits:
    try:
        return Limits(seconds=seconds)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
