"""Section 1: does it hold, of what was that said, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from reports.content import Block, Facts, Fold, Grid, Level, Notice, Prose, Section
from reports.dossier import Dossier
from reports.ranking import excess_text, severity, verdict_level, worst_of_each_check
from reports.scoreboard import scoreboard
from reports.text import number, plural
from reports.verdict import counts, environment_facts, headline
from verify.checks import CRITERIA
from verify.gate import Finding


MOST_FAILURES = 40


def build(dossier: Dossier) -> Sequence[Block]:
    """The verdict, the checks with their worst rows, the planted faults, the machines, and what was not measured."""
    blocks: list[Block] = [
        Notice("good" if dossier.holds else "bad", headline(dossier).capitalize() + "."),
        Prose(counts(dossier)),
    ]
    blocks += [Notice("note", remark) for remark in dossier.remarks]
    board = scoreboard(dossier)
    blocks += [] if board is None else [board]
    blocks += _failures(dossier)
    blocks += [_checks(dossier), *_faults(dossier)]
    for run in dossier.runs:
        origin = "recorded on another machine" if run.recorded else "given to this report"
        blocks += [
            Prose(Markup("<strong>{}</strong>, {}.").format(run.label, origin)),
            Facts(tuple(environment_facts(run))),
        ]
    blocks.append(_not_measured(dossier))
    return blocks


def _failures(dossier: Dossier) -> list[Block]:
    failed = [finding for _, finding in dossier.findings if finding.passed is False]
    if not failed:
        return []
    failed.sort(key=severity, reverse=True)
    shown = failed[:MOST_FAILURES]
    caption = f"What falls short, worst first ({len(shown)} of {plural(len(failed), 'finding')})."
    rows = tuple(_failure_row(finding) for finding in shown)
    return [
        Grid(caption, ("check", "where", "measured", "allowed", "why"), rows, ("bad",) * len(rows), frozenset({2})),
    ]


def _failure_row(finding: Finding) -> tuple[str, ...]:
    row = finding.measurement
    if row is None:
        return finding.check, "the run as a whole", number(None), finding.allowed, finding.why
    index = "" if not row.index else str(list(row.index))
    where = " ".join(part for part in (row.case, row.adjoint, row.target, row.leaf + index) if part)
    return finding.check, where, f"{number(row.measured)} {row.unit}".strip(), finding.allowed, finding.why


def _checks(dossier: Dossier) -> Grid:
    findings = [finding for _, finding in dossier.findings if finding.measurement is not None]
    tally = Counter((finding.check, finding.passed) for finding in findings)
    worst = worst_of_each_check(findings)
    names = list(dict.fromkeys([*CRITERIA, *worst]))
    rows: list[tuple[str, ...]] = []
    for name in names:
        criterion = CRITERIA.get(name)
        finding = worst.get(name)
        measured = None if finding is None or finding.measurement is None else finding.measurement.measured
        rows.append(
            (
                name,
                "no criterion for it" if criterion is None else criterion.claim,
                str(tally[name, True]),
                str(tally[name, False]),
                str(tally[name, None]),
                number(measured) if finding is not None else "not run",
                "" if criterion is None else f"{criterion.comparison} {criterion.threshold:g}",
                excess_text(measured, criterion) if finding is not None else "",
            )
        )
    levels: list[Level] = [verdict_level(not tally[name, False] and bool(tally[name, True])) for name in names]
    columns = (
        "check",
        "what a passing row says",
        "pass",
        "FAIL",
        "no power",
        "worst",
        "allowed",
        "bits over the limit",
    )
    caption = "Every check with its worst row; negative bits are bits to spare."
    return Grid(caption, columns, tuple(rows), levels, frozenset({2, 3, 4, 5, 6, 7}))


def _faults(dossier: Dossier) -> list[Block]:
    if dossier.selftest is None:
        return [Notice("bad", "No planted fault was tried: nothing here shows that a check can fail.")]
    rows = tuple(
        (record.fault, record.description, ", ".join(record.killed_by) or "none") for record in dossier.selftest
    )
    levels: list[Level] = [verdict_level(record.expected == bool(record.killed_by)) for record in dossier.selftest]
    faults = sum(record.expected for record in dossier.selftest)
    killed = sum(record.expected and bool(record.killed_by) for record in dossier.selftest)
    grid = Grid(
        "Planted faults, and the checks that killed them.", ("fault", "what is wrong", "killed by"), rows, levels
    )
    return [Fold(f"Planted faults: {killed} of {faults} killed", (grid,))]


def _not_measured(dossier: Dossier) -> Block:
    items: dict[tuple[str, str], list[str]] = {}
    for run, item in dossier.not_measured():
        items.setdefault((item.what, item.why), []).append(run.label)
    if not items:
        return Prose("Nothing is reported as not measured.")
    rows = tuple((what, why, ", ".join(labels)) for (what, why), labels in items.items())
    return Grid("What was not measured, and why.", ("what", "why", "run"), rows)


SECTION = Section("verdict", "Verdict", build)
