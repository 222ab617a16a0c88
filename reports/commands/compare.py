"""`revdeq compare`: what changed between two results files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.commands.status import leave, user_errors
from reports.compare import compare as compare_runs, describe
from reports.judging import judged
from reports.text import plural
from verify.result import Results
from verify.result_file import read_results


def compare(
    base: Annotated[Path, typer.Argument(help="results.json of the run that is compared with")],
    head: Annotated[Path, typer.Argument(help="results.json of the run that is asked about")],
    most: Annotated[int, typer.Option(min=1, help="how many rows of each change to print")] = 20,
) -> None:
    """Compare HEAD with BASE, both judged by this version: status 1 where anything became worse, failed or was lost."""
    with user_errors():
        first, second = read_results(base), read_results(head)
        comparison = compare_runs(judged(first), judged(second))
        typer.echo(f"base {_name(first)}; head {_name(second)}")
        for text in comparison.run_introduced:
            typer.echo(f"introduced: {text}")
        for text in comparison.run_fixed:
            typer.echo(f"fixed: {text}")
        for change, count in comparison.counts.items():
            if change == "same" or not count:
                continue
            own = [row for row in comparison.rows if row.change == change]
            for row in own[:most]:
                typer.echo(describe(row))
            if count > most:
                typer.echo(f"{change}: {plural(count - most, 'more row')}; --most N prints more of them.")
        said = ", ".join(f"{count} {change}" for change, count in comparison.counts.items())
        typer.echo(f"{'holds' if comparison.holds else 'falls short'}: {said}.")
        leave(comparison.holds)


def _name(results: Results) -> str:
    return f"{results.profile} of {str(results.environment['commit'])[:12]} ({results.started})"
