"""Which rows are worst: how far a number lies from its limit, in bits, so that rows of all checks compare."""

from __future__ import annotations

import math
from collections.abc import Iterable

from reports.content import Level
from reports.text import number
from verify.criteria import Criterion
from verify.gate import Finding


def excess(measured: float | None, criterion: Criterion | None) -> float:
    """log2 of the number over its limit: positive falls short, negative holds with so many bits to spare.

    Args:
        measured: what was measured.
        criterion: how it is judged.

    Returns:
        Infinity where there is no number, no criterion, or an exact claim that is missed; minus infinity where an
        exact claim holds or nothing was lost at all.
    """
    if measured is None or criterion is None or math.isnan(measured):
        return math.inf
    if criterion.comparison == "==":
        return -math.inf if measured == criterion.threshold else math.inf
    over, under = (measured, criterion.threshold) if criterion.comparison == "<=" else (criterion.threshold, measured)
    if over <= 0.0:
        return -math.inf
    if under <= 0.0 or math.isinf(over):
        return math.inf
    if math.isinf(under):
        return -math.inf
    return math.log2(over) - math.log2(under)


def excess_text(measured: float | None, criterion: Criterion | None) -> str:
    """`excess` for a reader: "exact" where a claim of equality holds."""
    if measured is None or math.isnan(measured):
        return number(measured)
    distance = excess(measured, criterion)
    if criterion is not None and criterion.comparison == "==" and distance == -math.inf:
        return "exact"
    return number(distance, 2)


def severity(finding: Finding) -> tuple[int, float]:
    """Sorts findings from worst to best, largest first: failed, then passed by excess, then without power."""
    rank = {False: 2, True: 1, None: 0}[finding.passed]
    if finding.measurement is None:
        return rank, math.inf
    return rank, excess(finding.measurement.measured, finding.criterion)


def worst_of_each_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The worst row of every check; a row without power only where the check has no other."""
    worst: dict[str, Finding] = {}
    for finding in findings:
        if finding.measurement is None:
            continue
        held = worst.get(finding.check)
        if held is None or severity(finding) > severity(held):
            worst[finding.check] = finding
    return worst


def verdict_word(passed: bool | None) -> str:
    """`pass`, `FAIL` or `no power`."""
    return {True: "pass", False: "FAIL", None: "no power"}[passed]


def verdict_level(passed: bool | None) -> Level:
    """How a row with this outcome is marked."""
    return "note" if passed is None else ("good" if passed else "bad")
