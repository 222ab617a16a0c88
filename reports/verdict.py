"""The verdict in words, said the same way on every output."""

from __future__ import annotations

from typing import Any, cast

from reports.dossier import Dossier, Run
from reports.text import plural


def headline(dossier: Dossier) -> str:
    """One line: holds or falls short, and of how much."""
    if dossier.holds:
        return f"holds: {plural(_total(dossier, 'passed'), 'measurement')} within their limits"
    failed = sum(finding.passed is False for _, finding in dossier.findings)
    return f"falls short: {plural(failed, 'finding')} against it"


def subtitle(dossier: Dossier) -> str:
    """What was run, of which commit and when, in one line."""
    parts: list[str] = []
    for run in dossier.runs:
        results = run.results
        parts.append(f"{run.label}, commit {_commit(run)}, {results.started[:16].replace('T', ' ')}")
    return "; ".join(parts)


def counts(dossier: Dossier) -> str:
    """One sentence with the numbers of checks, cases, rows and planted faults."""
    checks = {row.check for row in dossier.measurements}
    cases = {row.case for row in dossier.measurements}
    parts = [
        plural(len(checks), "check"),
        plural(len(cases), "case"),
        plural(len(dossier.measurements), "row"),
        f"{_total(dossier, 'passed')} passed",
        f"{_total(dossier, 'failed')} failed",
        f"{_total(dossier, 'no-power')} without power (counted, not passed)",
    ]
    if _total(dossier, "known"):
        parts.append(f"{plural(_total(dossier, 'known'), 'known failure')} (counted, not passed)")
    return ", ".join(parts) + f"; {planted(dossier)}."


def planted(dossier: Dossier) -> str:
    """How many planted faults were killed, or that none was tried."""
    if dossier.selftest is None:
        return "no planted fault was tried"
    faults = [record for record in dossier.selftest if record.expected]
    killed = sum(bool(record.killed_by) for record in faults)
    return f"{killed} of {plural(len(faults), 'planted fault')} killed"


def environment_facts(run: Run) -> list[tuple[str, str]]:
    """Commit, versions, devices and times of a run, as names and values."""
    results = run.results
    environment = results.environment
    return [
        ("subject", results.subject),
        ("profile", results.profile),
        ("commit", _commit(run)),
        ("revdeq", str(environment["revdeq"])),
        ("torch", str(environment["torch"])),
        ("python", str(environment["python"])),
        ("platform", str(environment["platform"])),
        ("devices", _devices(environment["devices"])),
        ("threads", str(environment["threads"])),
        ("seed", str(environment["seed"])),
        ("started", results.started),
        ("finished", results.finished),
    ]


def _commit(run: Run) -> str:
    environment = run.results.environment
    return str(environment["commit"])[:12] + (" with uncommitted changes" if environment["dirty"] else "")


def _devices(listed: object) -> str:
    said: list[str] = []
    for item in cast("list[dict[str, Any]]", listed):
        name = str(item.get("name", ""))
        if item.get("available"):
            said.append(f"{item['device']}{f' ({name})' if name else ''}")
        else:
            said.append(f"{item['device']}: {item.get('reason') or 'absent'}")
    return ", ".join(said) or "none listed"


def _total(dossier: Dossier, name: str) -> int:
    return sum(run.judgement.totals.get(name, 0) for run in dossier.runs)
