"""`revdeq check`: what applies to the user's own module, in seconds, with what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from reports.commands.status import COULD_NOT_RUN, leave, user_errors
from verify.json_file import printable
from verify.users_module import look_where_called


def check(
    source: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="FACTORY() returns (function, z0, args)")],
    beta: Annotated[float, typer.Option(help="relaxation parameter")] = 0.5,
    steps: Annotated[int, typer.Option(help="number of steps N")] = 8,
    gradient_error: Annotated[float, typer.Option(help="relative error for which beta and steps are planned")] = 1e-3,
    compile: Annotated[bool, typer.Option("--compile", help="compile half steps too, which takes long")] = False,
    only: Annotated[list[str] | None, typer.Option(help="a claim to check alone; may be given again")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="a claim to leave out; may be given again")] = None,
) -> None:
    """Check a module f(z, args) of your own.

    Status 0 if all that was asked holds, 1 if something falls short, 2 if something could not be checked.
    """
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    from verify.certificate.source import SourceError
    from verify.module import CheckError, Outcome, check_module

    look_where_called()
    with user_errors(SourceError, CheckError):
        findings = check_module(
            source,
            beta=beta,
            num_steps=steps,
            gradient_error=gradient_error,
            compile=compile,
            only=only or (),
            leave_out=leave_out or (),
        )
    for finding in findings:
        typer.echo(printable(finding.text()))
    counts = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    typer.echo(", ".join(f"{outcome.value}: {count}" for outcome, count in counts.items() if count))
    if counts[Outcome.NOT_CHECKED] and not counts[Outcome.FALLS_SHORT]:
        raise typer.Exit(COULD_NOT_RUN)
    leave(not counts[Outcome.FALLS_SHORT])
