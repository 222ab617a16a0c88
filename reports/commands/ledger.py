"""`revdeq ledger`: the baseline that later runs are held against, and the only way to change it."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from reports.commands.status import HOLDS, leave, user_errors
from reports.judging import judged
from reports.text import plural
from verify.json_file import printable
from verify.ledger import Ledger, accept as accept_run, ground_of, read_ledger, write_ledger
from verify.result_file import read_results


ledger = typer.Typer(help="Keep the baseline that later runs are held against.", no_args_is_help=True)


@ledger.callback()
def keep() -> None:
    """Keep the baseline that later runs are held against."""


@ledger.command("accept")
def accept(
    results: Annotated[Path, typer.Argument(help="a results.json that revdeq gate holds")],
    why: Annotated[str, typer.Option(help="why this run is accepted, in words")],
    path: Annotated[Path, typer.Option("--ledger", help="the ledger; it is made if it is not there")] = Path(
        "ledger.json"
    ),
    who: Annotated[str | None, typer.Option(help="who accepts it; the author of git commits if not said")] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="forget recorded cases that are no longer measured")
    ] = False,
) -> None:
    """Accept a run into the ledger: new cases come in, the best of the others may fall and never rises.

    Status 0 accepted, 1 the run does not hold, 2 it could not be accepted.
    """
    with user_errors():
        run = read_results(results)
        before = read_ledger(path) if path.exists() else Ledger()
        failures = judged(run).failures
        if failures:
            typer.echo(failures[0].text())
            typer.echo(f"{printable(str(path))} is left as it was: only a run that holds is accepted.")
            leave(False)
        write_ledger(accept_run(run, before, who=_who(who), why=why, drop_missing=drop_missing), path)
        now = read_ledger(path).baseline(ground_of(run))
        assert now is not None
        typer.echo(
            f"accepted into {printable(str(path))}: {plural(len(now.records), 'case')} of {now.ground}, "
            f"{plural(len(now.accepted), 'run')} so far."
        )
        raise typer.Exit(HOLDS)


def _who(said: str | None) -> str:
    if said is not None:
        return said
    try:
        done = subprocess.run(["git", "var", "GIT_AUTHOR_IDENT"], capture_output=True, text=True, check=False)
    except OSError:
        return getpass.getuser()
    name = done.stdout.partition(">")[0]
    return f"{name}>" if done.returncode == 0 and name else getpass.getuser()
