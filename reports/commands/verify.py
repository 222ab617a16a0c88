"""`revdeq verify`: measure, and write results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from reports.commands.progress import progress
from reports.commands.scheduler import executor
from reports.commands.status import HOLDS, leave, user_errors
from reports.text import plural
from verify.gate import judge_row
from verify.result import Results


def verify(
    out: Annotated[Path, typer.Option(help="folder of results.json; an interrupted run goes on from what lies there")],
    profile: Annotated[Literal["quick", "full", "nightly"], typer.Option(help="how much to measure")] = "quick",
    device: Annotated[Literal["cpu", "cuda", "all"], typer.Option(help="where; all is what this machine has")] = "cpu",
    subject: Annotated[str, typer.Option(help="what to verify: revdeq, MODULE or MODULE:ATTRIBUTE")] = "revdeq",
    only: Annotated[str | None, typer.Option(help="id of one case to measure alone and judge at once")] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a dask.distributed scheduler")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="measure again what is measured already")] = False,
) -> None:
    """Measure a profile and write OUT/results.json, which revdeq gate judges and revdeq report shows.

    Status 0 says that everything was measured, and not how good it is; with --only it is the verdict on the case.
    """
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    from verify.case import CaseError
    from verify.subject import SubjectError
    from verify.sweep import RESULTS, SweepError, run

    with user_errors(CaseError, SubjectError, SweepError), executor(scheduler) as pool, progress("verify") as show:
        results = run(profile, device, subject, only=only, executor=pool, out=out, progress=show, fresh=fresh)
    checks = {row.check for row in results.measurements}
    cases = {row.case for row in results.measurements}
    typer.echo(
        f"{plural(len(results.measurements), 'row')} of {plural(len(checks), 'check')} on {plural(len(cases), 'case')} "
        f"are in {(out / RESULTS).resolve()}"
    )
    if only is not None:
        leave(_judge(results))
    raise typer.Exit(HOLDS)


def _judge(results: Results) -> bool:
    """Say what the gate says of each row that does not pass, and whether there is a row and none fails."""
    from verify.checks import CRITERIA

    findings = [judge_row(row, CRITERIA) for row in results.measurements]
    for finding in findings:
        if finding.passed is not True:
            typer.echo(finding.text())
    passed = sum(finding.passed is True for finding in findings)
    failed = sum(finding.passed is False for finding in findings)
    typer.echo(f"{passed} passed, {failed} failed, {len(findings) - passed - failed} without power.")
    return passed > 0 and not failed
