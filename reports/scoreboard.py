"""Subjects side by side: of each check what each subject's run shows, and what it does not claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reports.content import Grid
from reports.dossier import Dossier, Run
from reports.ranking import excess_text, worst_of_each_check
from reports.text import ABSENT
from verify.gate import Finding


def scoreboard(dossier: Dossier) -> Grid | None:
    """One row a check, one column a run; None where all runs are of one subject.

    A cell says how many rows hold of those with power, and how far the worst of them lies beyond its limit in bits,
    negative where it holds. A dash stands where the run has no such row: the subject does not claim it, or the profile
    does not ask.

    Args:
        dossier: the runs.
    """
    runs = [run for run in dossier.runs if not run.recorded]
    if len({run.results.subject for run in runs}) < 2:
        return None
    found = [_by_check(run) for run in runs]
    checks = dict.fromkeys(check for cells in found for check in cells)
    verdicts = ("verdict", *(run.judgement.verdict for run in runs))
    rows = (verdicts, *((check, *(cells.get(check, ABSENT) for cells in found)) for check in checks))
    return Grid(
        "Rows that hold of those with power, and the worst in bits beyond its limit; a dash where a run has no row.",
        ("check", *_names(runs)),
        rows,
        (),
        frozenset(range(1, 1 + len(runs))),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    counted = Counter(run.results.subject for run in runs)
    labels = {subject: times > 1 for subject, times in counted.items()}
    return [run.results.subject + f", {run.label}" * labels[run.results.subject] for run in runs]


def _by_check(run: Run) -> dict[str, str]:
    findings = [finding for finding in run.judgement.findings if finding.measurement is not None]
    worst = worst_of_each_check(findings)
    cells: dict[str, str] = {}
    for check in dict.fromkeys(finding.check for finding in findings):
        own = [finding for finding in findings if finding.check == check and finding.passed is not None]
        held = sum(finding.passed is True for finding in own)
        cells[check] = f"{held}/{len(own)} {_distance(worst[check])}"
    return cells


def _distance(finding: Finding) -> str:
    measured = None if finding.measurement is None else finding.measurement.measured
    return "no power" if finding.passed is None else excess_text(measured, finding.criterion)
