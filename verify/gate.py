"""The gate: the only place that judges. A pure function from results to a verdict, closed unless everything is shown.

NaN, None, a missing check, too few rows, a skipped or failed row, a reference that is not sharp enough, an interrupted
run, a leaf that is there in one case and not in its sister: each is a finding, and one failed finding closes the gate.
A row without power is counted and is never a pass.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from verify.criteria import CRITERIA, EFFECTIVE_SHARE, LOGIC_POWER, REFERENCE_SHARE, Criterion, holds
from verify.ledger import Ledger
from verify.result import Measurement, Results


Verdict = Literal["holds", "falls short"]
SPREAD = 2.0**-7
"""Least median ratio: over 44 problems single ratios stayed above .03, and a scale 2^10 too large takes them below."""

SPREAD_ROWS = 5
CURVES = ("error-vs-evaluations", "convergence", "reconstruction", "memory")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the gate says about one row, or about the run.

    Args:
        check: the check concerned, or "run" for the run as a whole.
        measurement: the row, None where the finding is about rows that are not there.
        criterion: the table entry applied, None where there is none.
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
            parts.append(f"got {_number(row.got)}, expected {_number(row.expected)},")
        parts.append(f"measured {_number(row.measured)} {row.unit}, allowed {self.allowed}: {self.why}.")
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


def judge(results: Results, criteria: Mapping[str, Criterion] = CRITERIA, ledger: Ledger | None = None) -> Judgement:
    """Judge a run.

    Args:
        results: what the run measured.
        criteria: the table to judge by.
        ledger: what earlier runs showed; None where the run stands for itself.

    Returns:
        The verdict: "holds" only if every row with power passes and the run is whole.

    Raises:
        verify.ledger.LedgerError: if the ledger was recorded from this very run.
    """
    rows = [judge_row(row, criteria) for row in results.measurements]
    run = [
        *_judge_whole(results),
        *_judge_counts(results, criteria),
        *_judge_repeats(results),
        *_judge_leaves(results),
        *judge_spread(results.measurements, criteria),
        *_judge_selftest(results, criteria),
        *_judge_ledger(results, ledger),
    ]
    findings = (*rows, *run)
    selftest = results.selftest or ()
    totals = {
        "measured": sum(row.status == "measured" for row in results.measurements),
        "passed": sum(finding.passed is True for finding in rows),
        "failed": sum(finding.passed is False for finding in rows),
        "no-power": sum(finding.passed is None for finding in rows),
        "checks": len({row.check for row in results.measurements}),
        "cases": len({row.case for row in results.measurements}),
        "faults": sum(record.expected for record in selftest),
        "killed": sum(record.expected and bool(record.killed_by) for record in selftest),
    }
    open_gate = bool(rows) and not any(finding.passed is False for finding in findings)
    return Judgement(verdict="holds" if open_gate else "falls short", findings=findings, totals=totals)


def judge_row(row: Measurement, criteria: Mapping[str, Criterion] = CRITERIA) -> Finding:
    """Judge one row on its own."""
    criterion = criteria.get(row.check)
    if criterion is None:
        return _finding(row, None, False, "a check of the table", f"there is no criterion for {row.check!r}")
    allowed = f"{criterion.comparison} {criterion.threshold:g}"
    if row.status in ("failed", "skipped"):
        return _finding(row, criterion, False, allowed, f"{row.status}: {row.reason or 'no reason given'}")
    if criterion.power is not None:
        powered = row.power is not None and row.power <= criterion.power
        if row.status == "no-power":
            # A row that could see a fault and says that it cannot would be a way round the gate.
            if powered:
                return _finding(row, criterion, False, allowed, f"says no-power, and its power is {row.power:g}")
            return _finding(row, criterion, None, allowed, f"no power: {row.reason}")
        if not powered:
            why = f"power {_number(row.power)} is not <= {criterion.power:g}, and the row does not say no-power"
            return _finding(row, criterion, False, allowed, why)
    elif row.status == "no-power":
        return _finding(row, criterion, False, allowed, "no-power has no meaning for this check")
    if row.measured is None or math.isnan(row.measured):
        return _finding(row, criterion, False, allowed, f"a number is needed and {_number(row.measured)} is none")
    if criterion.reference:
        problem = _reference_problem(row)
        if problem:
            return _finding(row, criterion, False, allowed, problem)
    passed = holds(criterion.comparison, row.measured, criterion.threshold)
    return _finding(row, criterion, passed, allowed, criterion.why)


def _reference_problem(row: Measurement) -> str:
    if row.scale is None or not (0 < row.scale < math.inf):
        return f"the scale {_number(row.scale)} is not a positive number"
    if row.uncertainty is None or not (0 <= row.uncertainty <= REFERENCE_SHARE * row.scale):
        return (
            f"the reference's uncertainty {_number(row.uncertainty)} is not within 2^-10 of the scale {row.scale:g}: "
            "it cannot judge this row"
        )
    return ""


def _judge_whole(results: Results) -> Iterator[Finding]:
    if not results.complete:
        yield _about_run("run", "complete is true", "the run was interrupted, or measured a part only")
    for item in results.not_measured:
        if item.failed:
            yield _about_run("run", "every task measured", f"{item.what} failed: {item.why}")
    if not results.measurements:
        yield _about_run("run", "at least one row", "the results hold no measurement")
    drawn = {curve.name for curve in results.curves if curve.x}
    for name in CURVES:
        if name not in drawn:
            yield _about_run("run", "every curve of the report", f"there is no {name} curve")


def _judge_counts(results: Results, criteria: Mapping[str, Criterion]) -> Iterator[Finding]:
    measured: Counter[str] = Counter()
    logic: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in results.measurements:
        total[row.check] += 1
        if row.status == "measured":
            measured[row.check] += 1
            logic[row.check] += row.power is not None and row.power <= LOGIC_POWER
    for check, criterion in criteria.items():
        if measured[check] < max(criterion.least, 1):
            why = f"{measured[check]} rows were measured: the check is missing or has lost cases"
            yield _about_run(check, f"at least {max(criterion.least, 1)} rows", why, criterion)
        if logic[check] < criterion.least_logic:
            why = f"{logic[check]} rows see a relative fault of 2^-20"
            yield _about_run(check, f"at least {criterion.least_logic} such rows", why, criterion)
        if not (measured[check] >= EFFECTIVE_SHARE * total[check]):
            why = f"{measured[check]} of {total[check]} rows have power"
            yield _about_run(check, "at least two thirds", why, criterion)


def _judge_repeats(results: Results) -> Iterator[Finding]:
    seen = Counter((row.check, row.case, row.adjoint, row.target, row.leaf) for row in results.measurements)
    for key, times in seen.items():
        if times > 1:
            yield _about_run(key[0], "each row once", f"{' '.join(part for part in key if part)} stands {times} times")


def _judge_leaves(results: Results) -> Iterator[Finding]:
    """A leaf that one case of a problem has and another has not was lost: it is not a zero."""
    for check in ("gradient", "bindings", "implicit-gradient", "forward"):
        leaves: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for row in results.measurements:
            if row.check == check:
                leaves[row.problem][f"{row.case} {row.adjoint}"].add(row.leaf)
        for problem, places in leaves.items():
            everything = set[str]().union(*places.values())
            for place, present in places.items():
                if present != everything:
                    why = f"{place} lacks {sorted(everything - present)}"
                    yield _about_run(check, f"every leaf of {problem} in every case", why)


def judge_spread(rows: Iterable[Measurement], criteria: Mapping[str, Criterion] = CRITERIA) -> Iterator[Finding]:
    """Ratios to rounding are about 1; a check whose median is tiny has a scale so large that nothing could fail."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        criterion = criteria.get(row.check)
        if criterion is None or criterion.power is None or criterion.comparison != "<=" or row.unit != "ratio R":
            continue
        if row.status == "measured" and row.measured is not None:
            ratios[row.check].append(row.measured)
    for check, values in ratios.items():
        middle = median(values)
        if len(values) >= SPREAD_ROWS and not middle >= SPREAD:
            why = f"the median ratio of {len(values)} rows is {middle:.3g}: the scale is too large to fail against"
            yield _about_run(check, f"a median of at least {SPREAD:.3g}", why, criteria[check])


def _judge_selftest(results: Results, criteria: Mapping[str, Criterion]) -> Iterator[Finding]:
    if results.selftest is None:
        yield _about_run("selftest", "every planted fault killed", "the selftest did not run")
        return
    kills: Counter[str] = Counter()
    for record in results.selftest:
        kills.update(record.killed_by)
        if record.expected and not record.killed_by:
            yield _about_run("selftest", "every planted fault killed", f"{record.fault} survived: {record.description}")
        if not record.expected and record.killed_by:
            why = f"{record.fault} was killed by {', '.join(record.killed_by)}"
            yield _about_run("selftest", "the control passes every check", why)
    if not any(record.expected for record in results.selftest):
        yield _about_run("selftest", "every planted fault killed", "no fault was planted")
    if not any(not record.expected for record in results.selftest):
        yield _about_run("selftest", "the control passes every check", "there was no control")
    for check in criteria:
        if kills[check] == 0:
            yield _about_run("selftest", "every check kills a fault", f"{check} killed none: it may be unable to fail")


def _judge_ledger(results: Results, ledger: Ledger | None) -> Iterator[Finding]:
    for case, why in [] if ledger is None else ledger.worse(results):
        yield _about_run("ledger", "no case worse than recorded", f"{case} {why}".strip())


def _finding(row: Measurement, criterion: Criterion | None, passed: bool | None, allowed: str, why: str) -> Finding:
    return Finding(check=row.check, measurement=row, criterion=criterion, passed=passed, allowed=allowed, why=why)


def _about_run(check: str, allowed: str, why: str, criterion: Criterion | None = None) -> Finding:
    return Finding(check=check, measurement=None, criterion=criterion, passed=False, allowed=allowed, why=why)


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
