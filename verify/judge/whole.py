"""The run against its plan: what is missing, surplus or there twice, and whether enough of it can see a fault."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from statistics import median

from verify.criteria import EFFECTIVE_SHARE, LOGIC_POWER, Criterion
from verify.judge.finding import Finding, about_run
from verify.plan import Plan, curve_key, row_key
from verify.result import Curve, Measurement, Results


SPREAD = 2.0**-7
"""Least median ratio: over 44 problems single ratios stayed above .03, and a scale 2^10 too large takes them below."""

SPREAD_ROWS = 5
_SHOWN = 3


def judge_whole(results: Results, plan: Plan) -> Iterator[Finding]:
    """What a run lacks of its plan, and what it has beyond.

    Args:
        results: the run.
        plan: of the run.
    """
    if not results.complete:
        yield about_run("run", "complete is true", "the run was interrupted, or measured a part only")
    for item in results.not_measured:
        if item.failed:
            yield about_run("run", "every task measured", f"{item.what} failed: {item.why}")
    if not results.measurements:
        yield about_run("run", "at least one row", "the results hold no measurement")
    yield from _judge_rows(results.measurements, plan)
    yield from _judge_counts(results.measurements, plan)
    yield from _judge_curves(results.curves, plan)


def _judge_rows(rows: Iterable[Measurement], plan: Plan) -> Iterator[Finding]:
    found = Counter(row_key(row) for row in rows)
    for kind, keys in (
        ("missing", [key for key in plan.rows if key not in found]),
        ("not planned", [key for key in found if key not in plan.rows]),
        ("there more than once", [key for key, times in found.items() if times > 1]),
    ):
        by_check: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for key in keys:
            by_check[key[0]].append(key)
        for check, those in by_check.items():
            yield about_run(check, "each planned row once, and no other", _said(those, kind), plan.criteria.get(check))


def _said(keys: list[tuple[str, ...]], kind: str) -> str:
    names = [" ".join(part for part in key[1:] if part) for key in keys[:_SHOWN]]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{'; '.join(names)}{more}: {kind}"


def _judge_counts(rows: Iterable[Measurement], plan: Plan) -> Iterator[Finding]:
    planned: Counter[str] = Counter()
    fine: Counter[str] = Counter()
    for (check, *_), row in plan.rows.items():
        planned[check] += 1
        fine[check] += row.columns["dtype"] == "float64"
    measured: Counter[str] = Counter()
    logic: Counter[str] = Counter()
    for row in rows:
        if row.status == "measured":
            measured[row.check] += 1
            logic[row.check] += row.power is not None and row.power <= LOGIC_POWER
    for check, criterion in plan.criteria.items():
        if not planned[check]:
            continue
        least = criterion.effective * planned[check]
        if not (measured[check] >= max(least, 1)):
            why = f"{measured[check]} of {planned[check]} rows have power"
            yield about_run(check, f"at least {max(least, 1):.0f}", why, criterion)
        if criterion.logic and not (logic[check] >= EFFECTIVE_SHARE * fine[check]):
            why = f"{logic[check]} rows see a relative fault of 2^-20"
            yield about_run(check, f"at least {EFFECTIVE_SHARE * fine[check]:.0f} such rows", why, criterion)


def judge_spread(rows: Iterable[Measurement], criteria: Mapping[str, Criterion]) -> Iterator[Finding]:
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
            yield about_run(check, f"a median of at least {SPREAD:.3g}", why, criteria[check])


def _judge_curves(curves: Iterable[Curve], plan: Plan) -> Iterator[Finding]:
    curves = tuple(curves)
    found = Counter(curve_key(curve) for curve in curves)
    names = {curve.name for curve in curves if curve.x}
    known = plan.studies | {key[0] for key in plan.curves}
    for kind, keys in (
        ("missing", [key for key in plan.curves if key not in found]),
        ("missing", [(name,) for name in sorted(plan.studies) if name not in names]),
        ("not planned", [key for key in found if key not in plan.curves and key[0] not in plan.studies]),
        ("there more than once", [key for key, times in found.items() if times > 1]),
    ):
        by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for key in keys:
            by_name[str(key[0])].append(tuple("" if part is None else str(part) for part in key))
        for name, those in by_name.items():
            said = _said(those, kind) if name in known and len(those[0]) > 1 else kind
            yield about_run("run", "every planned curve once, and no other", f"curve {name} {said}")
    for curve in curves:
        problem = _curve_problem(curve, plan)
        if problem:
            yield about_run("run", "curves as planned", f"curve {curve.name} of {curve.problem}: {problem}")


def _curve_problem(curve: Curve, plan: Plan) -> str:
    planned = plan.curves.get(curve_key(curve))
    if not curve.x:
        return "it has no point"
    if not all(map(math.isfinite, curve.x)):
        return "an abscissa is no number"
    if not (curve.x_name and curve.y_name):
        return "its axes have no names"
    if planned is not None:
        if (curve.x_name, curve.y_name) != planned.axes:
            return f"its axes are {curve.x_name!r} and {curve.y_name!r}, planned are {planned.axes}"
        if not (curve.x[0] >= 0 and all(one < other for one, other in pairwise(curve.x))):
            return "its abscissae do not increase from 0 or above"
        # Errors, rates and bytes; NaN is a gap.
        if any(value < 0 for value in (*curve.y, *(curve.predicted or ()))):
            return "a value is negative"
        if planned.x is not None and curve.x != planned.x:
            return f"its abscissae are {list(curve.x)[:4]}..., planned are {list(planned.x)[:4]}..."
        if planned.predicted is not None and planned.predicted != (curve.predicted is not None):
            return "its prediction is missing" if planned.predicted else "it has a prediction, and none is planned"
    if any(value < 0 for value in curve.band or ()):
        return "its band is negative"
    return ""
