"""The report as Markdown, short enough for a pull request: the verdict, the counts and the worst rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reports.content import Grid
from reports.dossier import Dossier
from reports.ranking import excess_text, severity, verdict_word, worst_of_each_check
from reports.scoreboard import scoreboard
from reports.text import number, plural
from reports.verdict import counts, environment_facts, headline
from verify.json_file import printable


MOST_FAILURES = 15
"""Failed findings that are listed; the page has all."""

_MARKS = re.compile(r"[\\`*_\[\]<>|~&]")


def to_markdown(dossier: Dossier, conclusions: Sequence[tuple[str, Sequence[str | Grid]]] = ()) -> str:
    """The summary.

    Args:
        dossier: the runs.
        conclusions: titles with the sentences and tables that the other sections of the report conclude; the gate,
            which draws nothing, gives none.

    Returns:
        Markdown with a headline, the counts, what fell short, the worst row of every check, the conclusions, and what
        was not measured.
    """
    lines = [f"## revdeq: {headline(dossier)}", "", counts(dossier), ""]
    lines += [f"- {plain(remark)}" for remark in dossier.remarks]
    for run in dossier.runs:
        facts = "; ".join(f"{name} {value}" for name, value in environment_facts(run))
        lines.append(f"- {plain(run.label)}{' (recorded)' if run.recorded else ''}: {plain(facts)}")
    board = scoreboard(dossier)
    lines += ["", *([] if board is None else ["### Subjects side by side", "", *_table(board)])]
    lines += [*_failures(dossier), *_worst(dossier)]
    for title, parts in conclusions:
        lines += [f"### {plain(title)}", "", *(f"- {plain(part)}" for part in parts if isinstance(part, str)), ""]
        for part in parts:
            lines += _table(part) if isinstance(part, Grid) else []
    lines += _left_out(dossier)
    return "\n".join(lines).rstrip() + "\n"


def _failures(dossier: Dossier) -> list[str]:
    failed = [finding for _, finding in dossier.findings if finding.passed is False]
    if not failed:
        return []
    failed.sort(key=severity, reverse=True)
    lines = [f"### What falls short ({len(failed)})", ""]
    lines += [f"- {plain(finding.text())}" for finding in failed[:MOST_FAILURES]]
    if len(failed) > MOST_FAILURES:
        lines.append(f"- and {len(failed) - MOST_FAILURES} more, in index.html and tables/measurements.csv")
    return [*lines, ""]


def _worst(dossier: Dossier) -> list[str]:
    worst = worst_of_each_check(finding for _, finding in dossier.findings)
    if not worst:
        return []
    lines = ["### The worst row of every check", "", "| check | verdict | measured | allowed | bits over | case |"]
    lines.append("|---|---|---:|---|---:|---|")
    for check, finding in worst.items():
        row = finding.measurement
        if row is None:
            continue
        place = " ".join(part for part in (row.case, row.adjoint, row.leaf) if part)
        over = excess_text(row.measured, finding.criterion)
        measured = f"{number(row.measured)} {row.unit}".strip()
        cells = [plain(cell) for cell in (check, verdict_word(finding.passed), measured, finding.allowed, over)]
        lines.append("| " + " | ".join([*cells, code(place)]) + " |")
    return [*lines, ""]


def _table(grid: Grid) -> list[str]:
    rules = ("---:" if place in grid.numeric else "---" for place in range(len(grid.columns)))
    rows = [grid.columns, *grid.rows]
    head, *body = ("| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows)
    return [plain(grid.caption), "", head, "|" + "|".join(rules) + "|", *body, ""]


def _left_out(dossier: Dossier) -> list[str]:
    items = list(dict.fromkeys((item.what, item.why) for _, item in dossier.not_measured()))
    if not items:
        return []
    lines = [f"### Not measured ({plural(len(items), 'thing')})", ""]
    return [*lines, *(f"- {plain(what)}: {plain(why)}" for what, why in items), ""]


def plain(text: str) -> str:
    """`text` as Markdown that says just that: no mark in it begins a link, a tag, a cell or a line of its own."""
    return _MARKS.sub(r"\\\g<0>", printable(text.replace("\n", " ")))


def code(text: str) -> str:
    """`text` as code; as plain text where it holds what could end the code or the cell round it."""
    return plain(text) if any(mark in text for mark in "`|\\") or not text else f"`{printable(text)}`"
