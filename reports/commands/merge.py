"""`revdeq merge`: the shards of a run as one run, judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reports.commands.gate import show_verdict
from reports.commands.status import leave, user_errors
from reports.judging import judged
from verify.result_file import read_results, write_results


def merge(
    results: Annotated[list[Path], typer.Argument(help="results.json of every revdeq verify --shard PLACE/OF")],
    out: Annotated[Path, typer.Option(help="folder of the run's results.json, report.md and junit.xml")],
    most: Annotated[int, typer.Option(min=1, help="how many findings to print")] = 50,
) -> None:
    """Put the shards of one run together as if it had been measured at once, and judge it as revdeq gate does."""
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    from verify.run.folder import claimed, set_aside
    from verify.run.shards import merge_shards
    from verify.sweep import RESULTS

    with user_errors():
        run = merge_shards([read_results(path) for path in results], f"revdeq merge of {len(results)} shards")
        with claimed(out, RESULTS):
            set_aside(out / RESULTS)
            write_results(run, out / RESULTS)
        leave(show_verdict(run, judged(run), out, most))
