"""What the gate says: findings about rows and about the run, and the verdict that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from verify.criteria import Criterion
from verify.result import Measurement


Verdict = Literal["holds", "falls short"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the gate says about one row, or about the run.

    Args:
        check: the check concerned, or "run" for the run as a whole.
        measurement: the row, None where the finding is about rows that are not there.
        criterion: the criterion applied, None where there is none.
        passed: True, False, or None for a row without power, which is counted and not passed.
        allowed: what would have passed, in words.
        why: the reason for the limit, or what is wrong.
    """

    check: str
    measurement: Measurement | None
    criterion: Criterion | None
    passed: bool | None
    allowed: str
    why: str

    def text(self) -> str:
        """One line: which check, leaf and index, got, expected, measured, allowed, why, and how to replay it."""
        row = self.measurement
        if row is None:
            return f"{self.check}: {self.why} (allowed: {self.allowed})"
        place = row.leaf + (str(list(row.index)) if row.index else "")
        parts = [f"{row.check} {row.case} {row.adjoint} {place}:".replace("  ", " ").replace(" :", ":")]
        if row.got is not None or row.expected is not None:
            parts.append(f"got {number(row.got)}, expected {number(row.expected)},")
        parts.append(f"measured {number(row.measured)} {row.unit}, allowed {self.allowed}: {self.why}.")
        if row.replay:
            parts.append(f"Replay: {row.replay}")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict with everything that led to it.

    Args:
        verdict: "holds" or "falls short".
        findings: one per row, then those about the run; in the order of the results.
        totals: numbers of rows "measured", "passed", "failed", "no-power"; of "checks", "cases", "faults", "killed".
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    totals: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that close the gate."""
        return tuple(finding for finding in self.findings if finding.passed is False)


def about_run(check: str, allowed: str, why: str, criterion: Criterion | None = None) -> Finding:
    """A finding against the run as a whole, or against a check of it."""
    return Finding(check=check, measurement=None, criterion=criterion, passed=False, allowed=allowed, why=why)


def number(value: float | None) -> str:
    """A number of a finding."""
    return "nothing" if value is None else f"{value:.6g}"
