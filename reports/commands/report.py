"""`revdeq report`: show one or several results files as a page, Markdown, JUnit and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.commands.status import leave, user_errors
from reports.verdict import headline


def report(
    results: Annotated[list[Path], typer.Argument(help="results.json files that revdeq verify wrote")],
    out: Annotated[Path, typer.Option(help="folder of the report")],
    evidence: Annotated[bool, typer.Option(help="show the recorded runs of other machines beside them")] = True,
) -> None:
    """Write index.html, report.md, junit.xml and tables/ into OUT; status 0 holds, 1 falls short."""
    # Imported here, because drawing takes seconds to load and other commands do without it.
    from reports.evidence import recorded_results
    from reports.merge import merge
    from reports.render import write_report
    from verify.result_file import read_results

    with user_errors():
        runs = [read_results(path) for path in results]
        dossier = merge(runs, recorded=recorded_results() if evidence else ())
        page = write_report(dossier, out)
        for remark in dossier.remarks:
            typer.echo(remark)
        typer.echo(f"{headline(dossier)}. The report is {page.resolve()}")
        leave(dossier.holds)
