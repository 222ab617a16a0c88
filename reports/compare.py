"""Two runs compared row by row: what became worse, what failed or was fixed, what cannot be compared, what was lost.

Numbers are compared as log2 of their ratio, in bits. A ratio R is about 1 by construction, whatever the run, so numbers
that are ten times inside their limit count as equal: they say nothing about one run against the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from reports.ranking import verdict_word
from reports.text import number
from verify.criteria import Criterion
from verify.gate import Finding, Judgement
from verify.plan import RowKey, row_key


Change: TypeAlias = Literal["introduced", "lost", "worse", "fixed", "improved", "same", "not comparable", "new"]

CHANGES: tuple[Change, ...] = get_args(Change)
AGAINST: frozenset[Change] = frozenset(("introduced", "lost", "worse"))
"""The changes that make a comparison fall short."""

WORSE_BITS = 1.0
"""A case may become one bit worse (A14)."""
INSIDE = 10.0
"""So many times inside its limit, a number is as good as any other."""

_CASE_FIELDS = ("problem", "solver", "beta", "num_steps", "dtype", "state_dtype", "device", "unit")


@dataclass(frozen=True)
class ComparedRow:
    """One row of two runs.

    Args:
        key: check, case, adjoint, target and leaf.
        base: what the gate says of the row in the first run, None where it has none.
        head: the same of the second run.
        change: what became of it.
        bits: log2 of head over base, positive where head is worse; None where there is no ratio.
        reason: why the rows are not comparable, or what was lost.
    """

    key: RowKey
    base: Finding | None
    head: Finding | None
    change: Change
    bits: float | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Args:
        rows: every row of either run: first by change, in the order of `CHANGES`, then from worst to best.
        run_introduced: what the gate says against the head run as a whole and not against the base run.
        run_fixed: the reverse.
    """

    rows: tuple[ComparedRow, ...]
    run_introduced: tuple[str, ...]
    run_fixed: tuple[str, ...]

    @property
    def counts(self) -> dict[Change, int]:
        """How many rows had each change, zeros included."""
        found = Counter(row.change for row in self.rows)
        return {change: found[change] for change in CHANGES}

    @property
    def holds(self) -> bool:
        """Whether something was compared and nothing became worse, failed or was lost."""
        compared = any(row.change not in ("not comparable", "new", "lost") for row in self.rows)
        return compared and not self.run_introduced and not any(row.change in AGAINST for row in self.rows)


def compare(base: Judgement, head: Judgement) -> Comparison:
    """Compare two judged runs.

    Args:
        base: verdict of the run that is compared with.
        head: verdict of the run that is asked about.

    Returns:
        Every row of either run with what became of it.
    """
    before, after = _by_key(base), _by_key(head)
    rows = [_compare_row(key, before.get(key), after.get(key)) for key in dict.fromkeys([*before, *after])]
    rows.sort(key=lambda row: (CHANGES.index(row.change), -_sortable(row.bits)))
    said_before, said_after = _about_run(base), _about_run(head)
    return Comparison(
        tuple(rows),
        tuple(text for text in said_after if text not in said_before),
        tuple(text for text in said_before if text not in said_after),
    )


def describe(row: ComparedRow) -> str:
    """One line: what became of a row, from which number to which, and why."""
    name = " ".join(part for part in row.key if part)
    parts = [f"{row.change}: {name}"]
    if row.base is not None or row.head is not None:
        parts.append(f"{_state(row.base)} -> {_state(row.head)}")
    if row.bits is not None:
        parts.append(f"{row.bits:+.2f} bits")
    if row.reason:
        parts.append(row.reason)
    return ", ".join(parts)


def _compare_row(key: RowKey, base: Finding | None, head: Finding | None) -> ComparedRow:
    if base is None or head is None:
        if base is None:
            fails = head is not None and head.passed is False
            return ComparedRow(key, base, head, "introduced" if fails else "new", None)
        return ComparedRow(key, base, head, "lost", None, "the head run does not have the row")
    bits, floored = _bits(base, head)
    if base.passed is not False and head.passed is False:
        return ComparedRow(key, base, head, "introduced", bits)
    if base.passed is not None and head.passed is None:
        return ComparedRow(key, base, head, "lost", bits, "the row lost its power to see a fault")
    reason = _incomparable(base, head)
    if reason:
        return ComparedRow(key, base, head, "not comparable", None, reason)
    if base.passed is False and head.passed is True:
        return ComparedRow(key, base, head, "fixed", bits)
    if floored is None or abs(floored) <= WORSE_BITS:
        return ComparedRow(key, base, head, "same", bits)
    return ComparedRow(key, base, head, "worse" if floored > 0.0 else "improved", bits)


def _incomparable(base: Finding, head: Finding) -> str:
    """Why two rows of one name do not measure the same thing; "" where they do."""
    one, two = base.measurement, head.measurement
    if one is None or two is None:
        return "one of the rows is not a measurement"
    changed = [name for name in _CASE_FIELDS if getattr(one, name) != getattr(two, name)]
    if changed:
        return f"the case changed: {', '.join(changed)}"
    if base.criterion != head.criterion:
        return "the criterion changed"
    # The unit of R is the spread of rounding; where that moved by more than a bit, R has another meaning.
    if one.scale is not None and two.scale is not None and one.unit.startswith("ratio"):
        low, high = sorted((one.scale, two.scale))
        if not (high <= 2.0 * low):
            return f"the rounding scale changed from {number(one.scale)} to {number(two.scale)}"
    return ""


def _bits(base: Finding, head: Finding) -> tuple[float | None, float | None]:
    """log2 of head over base, positive where worse: as measured, and with what is well inside the limit made equal."""
    criterion = head.criterion
    if base.measurement is None or head.measurement is None or criterion is None or criterion.comparison == "==":
        return None, None
    one, two = base.measurement.measured, head.measurement.measured
    if one is None or two is None or math.isnan(one) or math.isnan(two):
        return None, None
    sign = 1.0 if criterion.comparison == "<=" else -1.0
    raw = sign * _log_ratio(two, one)
    return raw, sign * _log_ratio(_clamp(two, criterion), _clamp(one, criterion))


def _clamp(value: float, criterion: Criterion) -> float:
    if criterion.comparison == "<=":
        return max(value, criterion.threshold / INSIDE)
    return min(value, criterion.threshold * INSIDE)


def _log_ratio(two: float, one: float) -> float:
    if two == one:
        return 0.0
    if one <= 0.0 or math.isinf(two):
        return math.inf
    if two <= 0.0 or math.isinf(one):
        return -math.inf
    return math.log2(two) - math.log2(one)


def _by_key(judgement: Judgement) -> Mapping[RowKey, Finding]:
    """The findings by row; of rows that share a key the worst counts, so that none hides another."""
    rank = {False: 2, None: 1, True: 0}
    found: dict[RowKey, Finding] = {}
    for finding in judgement.findings:
        if finding.measurement is None:
            continue
        key = row_key(finding.measurement)
        held = found.get(key)
        if held is None or rank[finding.passed] > rank[held.passed]:
            found[key] = finding
    return found


def _about_run(judgement: Judgement) -> list[str]:
    return [finding.text() for finding in judgement.findings if finding.measurement is None and finding.passed is False]


def _state(finding: Finding | None) -> str:
    if finding is None:
        return "absent"
    measured = None if finding.measurement is None else finding.measurement.measured
    return f"{number(measured)} ({verdict_word(finding.passed)})"


def _sortable(bits: float | None) -> float:
    return -math.inf if bits is None else bits
