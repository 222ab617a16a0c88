"""`revdeq selftest`: plant every fault, and see which check kills it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from reports.commands.progress import progress
from reports.commands.status import leave, user_errors
from reports.markdown import plain
from verify.json_file import write_text
from verify.judge.faults import GATE
from verify.result import FaultRecord


def selftest(
    out: Annotated[Path | None, typer.Option(help="folder for selftest.json and selftest.md")] = None,
) -> None:
    """Run the checks on every planted fault: status 0 if each is killed, and no check idle or the control killed."""
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    from verify.environment import describe
    from verify.planning import selftest_shortfalls
    from verify.planted.selftest import selftest as run_selftest

    with user_errors():
        with progress("selftest") as show:
            records = run_selftest(show)
        found = selftest_shortfalls(records)
        for line in _lines(records):
            typer.echo(line)
        for sentence in found:
            typer.echo(f"falls short: {sentence}")
        typer.echo(_summary(records, found))
        if out is not None:
            environment = describe()
            data = {"environment": environment, "shortfalls": found, "records": [asdict(record) for record in records]}
            write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", out / "selftest.json")
            write_text(_markdown(records, found), out / "selftest.md")
        leave(not found)


def _summary(records: Sequence[FaultRecord], found: Sequence[str]) -> str:
    faults = [record for record in records if record.expected]
    killed = sum(bool(record.killed_by) for record in faults)
    checks = {check for record in faults for check in record.killed_by if check != GATE}
    verdict = "falls short" if found else "holds"
    return f"{verdict}: {killed} of {len(faults)} planted faults killed, by {len(checks)} checks."


def _lines(records: Sequence[FaultRecord]) -> list[str]:
    width = max(len(record.fault) for record in records)
    return [f"{record.fault:<{width}}  {', '.join(record.killed_by) or 'killed by none'}" for record in records]


def _markdown(records: Sequence[FaultRecord], found: Sequence[str]) -> str:
    lines = [f"## selftest {_summary(records, found)}", "", *(f"- {sentence}" for sentence in found), ""]
    lines += ["| fault | what is wrong | killed by |", "|---|---|---|"]
    lines += [
        f"| {record.fault} | {plain(record.description)} | {', '.join(record.killed_by) or 'none'} |"
        for record in records
    ]
    return "\n".join(lines) + "\n"
