"""`revdeq verify`: measure, and write results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from reports.commands.progress import progress
from reports.commands.scheduler import executor
from reports.commands.status import FALLS_SHORT, HOLDS, leave, user_errors
from reports.text import plural
from verify.gate import judge_row
from verify.json_file import printable
from verify.result import Results


def verify(
    out: Annotated[Path, typer.Option(help="folder of results.json; an interrupted run goes on from what lies there")],
    profile: Annotated[Literal["quick", "full", "nightly"], typer.Option(help="how much to measure")] = "quick",
    device: Annotated[Literal["cpu", "cuda", "all"], typer.Option(help="where; all is what this machine has")] = "cpu",
    subject: Annotated[str, typer.Option(help="what to verify: revdeq, MODULE or MODULE:ATTRIBUTE")] = "revdeq",
    only: Annotated[str | None, typer.Option(help="id of one case to measure alone and judge at once")] = None,
    shard: Annotated[
        str | None, typer.Option(help="share of the tasks to measure, such as 2/4; revdeq merge puts them together")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a dask.distributed scheduler")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="measure again what is measured already")] = False,
    task_seconds: Annotated[float, typer.Option(help="seconds after which a task is given up")] = 3600.0,
    task_memory: Annotated[
        float | None, typer.Option(help="GiB that a worker may hold; an equal share of the machine's if not said")
    ] = None,
) -> None:
    """Measure a profile and write OUT/results.json, which revdeq gate judges and revdeq report shows.

    Status 0 says that everything was measured, and not how good it is, 1 that a task failed: raised, exited, died, or
    went beyond a limit. With --only it is the verdict on the case.
    """
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    from verify.case import CaseError
    from verify.run import Limits
    from verify.run.shards import Shard
    from verify.subject import SubjectError
    from verify.sweep import RESULTS, SweepError, run

    if only is not None and shard is not None:
        raise typer.BadParameter("--only and --shard were given: give one of them.")
    try:
        share = None if shard is None else Shard.parse(shard)
        limits = Limits(seconds=task_seconds, memory=None if task_memory is None else int(task_memory * 2**30))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error)) from None
    with (
        user_errors(CaseError, SubjectError, SweepError),
        executor(scheduler, limits) as pool,
        progress("verify") as show,
    ):
        results = run(
            profile,
            device,
            subject,
            only=only,
            shard=share,
            executor=pool,
            limits=limits,
            out=out,
            progress=show,
            fresh=fresh,
        )
    failed = [item for item in results.not_measured if item.failed]
    for item in failed:
        typer.echo(printable(f"{item.what} failed: {item.why}"), err=True)
    checks = {row.check for row in results.measurements}
    cases = {row.case for row in results.measurements}
    typer.echo(
        f"{plural(len(results.measurements), 'row')} of {plural(len(checks), 'check')} on {plural(len(cases), 'case')} "
        f"are in {(out / RESULTS).resolve()}"
    )
    if only is not None:
        leave(_judge(results))
    if failed:
        typer.echo("The same command measures again what failed and takes up the rest.")
        raise typer.Exit(FALLS_SHORT)
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
