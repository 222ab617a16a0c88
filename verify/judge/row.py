"""One row on its own: by its criterion, and whether it agrees with itself and with what was planned of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from verify.criteria import REFERENCE_SHARE, Criterion, holds
from verify.judge.finding import Finding, number
from verify.plan import PlannedRow
from verify.result import Measurement


_NUMBERS = ("got", "expected", "error", "scale", "size", "uncertainty")
_COSTS = ("evaluations", "vjps", "saved_bytes", "seconds")
_NEVER_NEGATIVE = ("error", "measured", "scale", "size", "power", "uncertainty", *_COSTS)
_ROUNDED = 2.0**-52
"""Rounding of a shown component, and of the difference of two, relative to them."""

_SUMMED = 1.0 + 2.0**-40
"""Rounding of a root of a mean of squares: of fewer than 2^12 components, each a few roundings off."""


def judge_row(row: Measurement, criteria: Mapping[str, Criterion], planned: PlannedRow | None = None) -> Finding:
    """Judge one row on its own.

    Args:
        row: the row.
        criteria: by check.
        planned: what is known of the row beforehand; None where no plan is at hand, as for a replay.
    """
    criterion = criteria.get(row.check)
    if criterion is None:
        return _finding(row, None, False, "a check of the table", f"there is no criterion for {row.check!r}")
    allowed = f"{criterion.comparison} {criterion.threshold:g}"
    if row.status in ("failed", "skipped"):
        return _finding(row, criterion, False, allowed, f"{row.status}: {row.reason or 'no reason given'}")
    problem = (
        _power_problem(row, criterion)
        or (_number_problem(row) if row.status == "measured" else "")
        or (_reference_problem(row) if criterion.reference and row.status == "measured" else "")
        or contradiction(row, criterion, planned)
    )
    if problem:
        return _finding(row, criterion, False, allowed, problem)
    if row.status == "no-power" or row.measured is None:
        return _finding(row, criterion, None, allowed, f"no power: {row.reason}")
    return _finding(
        row, criterion, holds(criterion.comparison, row.measured, criterion.threshold), allowed, criterion.why
    )


def contradiction(row: Measurement, criterion: Criterion, planned: PlannedRow | None) -> str:
    """What a row says against itself or its plan, in words; "" where nothing."""
    return (
        _label_problem(row, criterion, planned)
        or _column_problem(row, criterion)
        or _sign_problem(row)
        or _recomputed_problem(row, criterion)
        or _index_problem(row, criterion, planned)
        or _component_problem(row, criterion, planned)
    )


def _power_problem(row: Measurement, criterion: Criterion) -> str:
    if criterion.power is None:
        return "no-power has no meaning for this check" if row.status == "no-power" else ""
    powered = row.power is not None and row.power <= criterion.power
    if row.status == "no-power":
        # A row that could see a fault and says that it cannot would be a way round the gate.
        if powered:
            return f"says no-power, and its power is {number(row.power)}"
        return "says no-power, and of no power" if row.power is None or math.isnan(row.power) else ""
    if not powered:
        return f"power {number(row.power)} is not <= {criterion.power:g}, and the row does not say no-power"
    return ""


def _number_problem(row: Measurement) -> str:
    if row.measured is None or math.isnan(row.measured):
        return f"a number is needed and {number(row.measured)} is none"
    return ""


def _reference_problem(row: Measurement) -> str:
    if row.scale is None or not (0 < row.scale < math.inf):
        return f"the scale {number(row.scale)} is not a positive number"
    if row.uncertainty is None or not (0 <= row.uncertainty <= REFERENCE_SHARE * row.scale):
        return (
            f"the reference's uncertainty {number(row.uncertainty)} is not within 2^-10 of the scale {row.scale:g}: "
            "it cannot judge this row"
        )
    return ""


def _label_problem(row: Measurement, criterion: Criterion, planned: PlannedRow | None) -> str:
    if row.unit != criterion.unit:
        return f"its unit is {row.unit!r}, that of the check {criterion.unit!r}"
    if bool(row.reason) != (row.status == "no-power" or criterion.notes):
        return f"it says {row.reason!r}" if row.reason else "it does not say why it is as it is"
    if planned is None:
        return ""
    for column, value in planned.columns.items():
        found = getattr(row, column)
        if found != value:
            return f"its {column} is {found!r}, planned is {value!r}"
    if planned.place.expected is not None and row.expected is not None and row.expected != planned.place.expected:
        return f"it expects {number(row.expected)}, planned is {number(planned.place.expected)}"
    return ""


def _column_problem(row: Measurement, criterion: Criterion) -> str:
    """Which column is empty that should hold a number, or the reverse."""
    wanted = set(criterion.reading.columns)
    wanted |= {"uncertainty"} if criterion.reference else set()
    wanted |= set(_COSTS) if criterion.observed is not None else set()
    optional = set(_NUMBERS) | {"measured"} if row.status == "no-power" else set[str]()
    for column in (*_NUMBERS, "power", *_COSTS):
        value: float | None = getattr(row, column)
        if column not in wanted and value is not None:
            return f"it has a {column}, which no row of this check has"
        if column in wanted and value is None and column not in optional:
            return f"it has no {column}"
        if column in wanted and value is not None and row.status == "measured" and not math.isfinite(value):
            return f"its {column} is {value}"
    if row.status == "no-power":
        # Such a row is measured whole, or not at all.
        numbers = [column for column in (*_NUMBERS, "measured") if column in wanted | {"measured"}]
        held = [column for column in numbers if getattr(row, column) is not None]
        if held and not _is_scale_of_power(held, criterion) and len(held) != len(numbers):
            return f"it has {', '.join(held)} and no {', '.join(c for c in numbers if c not in held)}"
    return ""


def _is_scale_of_power(held: list[str], criterion: Criterion) -> bool:
    """Whether the only numbers are those that the lack of power follows from."""
    return criterion.reading.power is not None and set(held) <= set(criterion.reading.power.columns)


def _sign_problem(row: Measurement) -> str:
    for column in _NEVER_NEGATIVE:
        value: float | None = getattr(row, column)
        if value is not None and value < 0:
            return f"its {column} is {value:g}, which is never negative"
    if row.unit == "count" and row.measured is not None and not float(row.measured).is_integer():
        return f"it counted {row.measured:g}, which is no whole number"
    return ""


def _recomputed_problem(row: Measurement, criterion: Criterion) -> str:
    reading = criterion.reading
    derived = (
        ("measured", reading.measured, reading.slack),
        ("power", reading.power, 0.0),
        ("scale", reading.scale, 0.0),
    )
    for column, formula, slack in derived:
        value: float | None = getattr(row, column)
        found = None if formula is None else formula(row)
        # Reversal that loses the states leaves a row no power, whatever its own scale says (see `relations`).
        lost = column == "power" and value == math.inf and row.status == "no-power"
        if value is not None and found is not None and not lost and not _same(found, value, slack):
            return f"its {column} is {value:.17g}, and its other columns make it {found:.17g}"
    return ""


def _same(one: float, other: float, slack: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other)) or abs(one - other) <= slack


def _index_problem(row: Measurement, criterion: Criterion, planned: PlannedRow | None) -> str:
    if not criterion.reading.components:
        return "" if row.index is None else f"its index is {list(row.index)}, and it is not about components"
    if row.got is None:
        return "" if row.index is None else "it has an index and no component"
    if row.index is None:
        return "it has a component and no index"
    shape = None if planned is None else planned.place.shape
    inside = shape is None or (
        len(row.index) == len(shape) and all(0 <= place < size for place, size in zip(row.index, shape, strict=True))
    )
    return "" if inside else f"its index {list(row.index)} is outside the leaf, whose shape is {list(shape or ())}"


def _component_problem(row: Measurement, criterion: Criterion, planned: PlannedRow | None) -> str:
    """The worst component's error lies between the RMS over all components and sqrt(n) times that."""
    if not criterion.reading.components or planned is None or planned.place.shape is None or row.status != "measured":
        return ""
    if row.got is None or row.expected is None or row.error is None:
        return ""
    count = math.prod(planned.place.shape)
    worst, rounded = abs(row.got - row.expected), _ROUNDED * (abs(row.got) + abs(row.expected))
    if not (row.error <= worst * _SUMMED + rounded and worst <= math.sqrt(count) * row.error * _SUMMED + rounded):
        return f"its worst component is {worst:.6g} off, which an error of {row.error:.6g} over {count} rules out"
    return ""


def _finding(row: Measurement, criterion: Criterion | None, passed: bool | None, allowed: str, why: str) -> Finding:
    return Finding(check=row.check, measurement=row, criterion=criterion, passed=passed, allowed=allowed, why=why)
