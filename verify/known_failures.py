"""Known failures: rows that fall short for a reason that somebody wrote down, until a day that they named.

A known failure is counted and never passed. One whose day is over, or that does not fail any more, closes the gate, so
that the file never holds what nobody needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

from verify.gate import Finding, Judgement
from verify.json_file import printable, read_json
from verify.result import ResultsError
from verify.result_file import decode


SCHEMA = "revdeq-known-failures"
VERSION = 1


@dataclass(frozen=True)
class KnownFailure:
    """Rows that are known to fail.

    Args:
        check: their check.
        case: their case.
        leaf: their leaf; "" for every leaf of the case.
        reason: why they fail, and what is being done.
        expires: the last day on which they may, "2026-12-31".
    """

    check: str
    case: str
    leaf: str
    reason: str
    expires: str

    def __post_init__(self) -> None:
        if not self.check or not self.case or not self.reason.strip():
            raise ResultsError(
                f"the known failure of {self.check!r} in {self.case!r} lacks its check, case or reason: say all three."
            )
        try:
            date.fromisoformat(self.expires)
        except ValueError:
            raise ResultsError(
                f"the known failure of {self.check} in {self.case} expires {self.expires!r}, which is no day: "
                "write one like 2026-12-31."
            ) from None

    def of(self, finding: Finding) -> bool:
        """Whether a finding is about one of its rows."""
        row = finding.measurement
        return row is not None and (row.check, row.case) == (self.check, self.case) and self.leaf in ("", row.leaf)


@dataclass(frozen=True)
class _File:
    failures: tuple[KnownFailure, ...]


def read_known_failures(path: str | Path) -> tuple[KnownFailure, ...]:
    """Read a file of known failures, which people write by hand.

    Raises:
        ResultsError: if it is not there or is not as it should be.
    """
    data = read_json(path, "file of known failures", 'write {"schema": "revdeq-known-failures", "version": 1, ...}')
    values = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    head = (values.get("schema"), values.get("version"))
    if head != (SCHEMA, VERSION):
        raise ResultsError(f"{printable(str(path))} is no file of known failures: it must say {SCHEMA}, {VERSION}.")
    try:
        return decode({key: values[key] for key in values if key not in ("schema", "version")}, _File, "file").failures
    except ResultsError as error:
        raise ResultsError(f"{printable(str(path))}: {error}") from error


def excuse(judgement: Judgement, known: Sequence[KnownFailure], today: date | None = None) -> Judgement:
    """The verdict that is left when known failures are set apart.

    Args:
        judgement: what the gate says.
        known: the known failures.
        today: the day; that of the clock, if not said.
    """
    day = today or date.today()
    current = [one for one in known if date.fromisoformat(one.expires) >= day]
    judged = [_excused(finding, current) for finding in judgement.findings]
    excused = sum(old is not new for old, new in zip(judgement.findings, judged, strict=True))
    findings = judged + [
        _against(one, f"its day {one.expires} is over: mend it, or think again") for one in known if one not in current
    ]
    findings += [
        _against(one, "no such row fails any more: take it out of the file")
        for one in current
        if not any(one.of(finding) and finding.passed is False for finding in judgement.findings)
    ]
    holds = bool(judged) and not any(finding.passed is False for finding in findings)
    return Judgement(
        verdict="holds" if holds else "falls short",
        findings=tuple(findings),
        totals={**judgement.totals, "failed": judgement.totals["failed"] - excused, "known": excused},
    )


def _excused(finding: Finding, known: Sequence[KnownFailure]) -> Finding:
    if finding.passed is not False:
        return finding
    for one in known:
        if one.of(finding):
            return replace(finding, passed=None, why=f"known until {one.expires}: {one.reason} ({finding.why})")
    return finding


def _against(known: KnownFailure, why: str) -> Finding:
    place = " ".join(part for part in (known.check, known.case, known.leaf) if part)
    return Finding(
        check="known-failures",
        measurement=None,
        criterion=None,
        passed=False,
        allowed="known failures that fail, until their day",
        why=f"{place}: {why}",
    )
