"""`revdeq gate`: judge a results file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from reports.commands.status import leave, user_errors
from reports.judging import judged
from reports.junit import to_junit
from reports.markdown import to_markdown
from reports.merge import merge
from reports.text import plural
from reports.verdict import counts, headline
from verify.gate import Demands, Judgement
from verify.json_file import write_text
from verify.known_failures import excuse, read_known_failures
from verify.ledger import read_ledger
from verify.result import Results
from verify.result_file import read_results


def gate(
    results: Annotated[Path, typer.Argument(help="a results.json that revdeq verify wrote")],
    ledger: Annotated[
        Path | None, typer.Option(help="a ledger of earlier runs that this one may not fall behind")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="a file of known failures, each with its reason and the day on which it ends")
    ] = None,
    expect_commit: Annotated[
        str | None, typer.Option(help="the commit that the run must be of, or its beginning, without changes")
    ] = None,
    max_age: Annotated[float | None, typer.Option(min=0, help="hours since the run finished, at most")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for report.md and junit.xml")] = None,
    most: Annotated[int, typer.Option(min=1, help="how many findings to print")] = 50,
) -> None:
    """Judge RESULTS: status 0 holds, 1 falls short, 2 could not be judged."""
    with user_errors():
        run = read_results(results)
        demands = Demands(
            commit=expect_commit,
            max_age=None if max_age is None else timedelta(hours=max_age),
            now=datetime.now(UTC),
        )
        judgement = judged(run, None if ledger is None else read_ledger(ledger), demands)
        if known is not None:
            judgement = excuse(judgement, read_known_failures(known))
        leave(show_verdict(run, judgement, out, most))


def show_verdict(run: Results, judgement: Judgement, out: Path | None, most: int) -> bool:
    """Print what is against a run and its verdict, and write both for pull requests and CI pages.

    Args:
        run: what was measured.
        judgement: what the gate says of it.
        out: folder for report.md and junit.xml; None for neither.
        most: how many findings to print.

    Returns:
        Whether it holds.
    """
    dossier = merge([run], [judgement])
    failures = judgement.failures
    for finding in failures[:most]:
        typer.echo(finding.text())
    if len(failures) > most:
        typer.echo(f"and {plural(len(failures) - most, 'more finding')}; --most N prints more of them.")
    typer.echo(f"{headline(dossier)}. {counts(dossier)}")
    if out is not None:
        write_text(to_markdown(dossier), out / "report.md")
        write_text(to_junit(dossier), out / "junit.xml")
    return dossier.holds
