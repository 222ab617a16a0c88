"""Every field of every kind of row, and of the run, is tampered with in every way that its type allows.

A tampering is let through only where nothing but a signature could see it, and the tests say why for each. The digest
of the file sees all of them; it is taken to be made anew, so that the gate's other rules are alone.
"""

import math
from collections import Counter
from dataclasses import fields, replace

import pytest

from verify.checks import CHECKS, CRITERIA
from verify.gate import judge, judge_row
from verify.plan import row_key
from verify.result import Curve, Measurement, ResultsError
from verify.result_file import from_json, to_json


NUMBERS = ("got", "expected", "error", "measured", "scale", "size", "power", "uncertainty", "seconds", "beta")
COSTS = ("evaluations", "vjps", "saved_bytes", "seconds")


def altered(value, others=()):
    """Every way to write another value of the same type."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [text for text in ("", "x", f"{value} ", value.upper(), *others) if text != value]
    if value is None:
        return [0.0, 1.0, -1.0, math.nan, math.inf]
    if isinstance(value, int):
        return [None, value + 1, value - 1, -value - 1, 0, 2**70][: 6 if value else 5]
    if isinstance(value, float):
        near = [math.nextafter(value, math.inf), math.nextafter(value, -math.inf)]
        moved = [value * factor for factor in (2.0, 0.5, 1.001, -1.0)] + [value + 1.0, 1e300, -1e300, 0.0]
        changed = [None, math.nan, math.inf, -math.inf, *near, *moved]
        return [number for number in changed if number is None or number != value]
    raise TypeError(type(value))


def altered_index(value):
    if value is None:
        return [(), (0,), (-1,)]
    return [None, (), (*value, 0), tuple(-1 - place for place in value), tuple(place + 1000 for place in value)]


def tamperings(row, run):
    """(field, tampered row)."""
    for item in fields(Measurement):
        value = getattr(row, item.name)
        others = sorted({getattr(other, item.name) for other in run.measurements} if isinstance(value, str) else ())
        changed = altered_index(value) if item.name == "index" else altered(value, others[:6])
        if item.name == "status":
            changed = [status for status in ("measured", "no-power", "skipped", "failed") if status != value]
        for number in changed:
            kind = "float" if item.name in NUMBERS else "int"
            if value is None and item.name != "index" and kind == "int" and number is not None:
                number = 1
            yield item.name, replace(row, **{item.name: number})


def neighbourhood(row, run, planned):
    """The rows that a row is compared with, and the plan of these alone."""
    near = [
        other
        for other in run.measurements
        if other.case == row.case or (other.check, other.problem, other.leaf) == (row.check, row.problem, row.leaf)
    ]
    keys = {row_key(other) for other in near}
    return (
        replace(run, measurements=tuple(near)),
        replace(planned, rows={key: entry for key, entry in planned.rows.items() if key in keys}),
    )


def said(judgement):
    return {finding.text() for finding in judgement.failures}


def alone(row, run, columns):
    """Whether no other row with these columns is about the same observation, or the same reference."""
    same = [other for other in run.measurements if all(getattr(other, c) == getattr(row, c) for c in columns)]
    return len([other for other in same if CRITERIA[other.check].observed or other.check == row.check]) == 1


def unseen(row, field, tampered, run, shape):
    """Why nothing short of a signature sees a tampering; "" where something should."""
    reading, value, old = CRITERIA[row.check].reading, getattr(tampered, field), getattr(row, field)
    if field == "reason" and value and old:
        return "other words about a row that has words"
    if value is None or old is None:
        return ""
    if field == "index" and len(value) == len(shape) and all(0 <= at < n for at, n in zip(value, shape, strict=True)):
        return "another component of the leaf"
    if field in COSTS and value >= 0 and (field == "saved_bytes" or alone(row, run, ("case", "adjoint"))):
        return "the cost of an observation that no other row is about"
    if field == "uncertainty" and alone(row, run, ("check", "problem", "beta", "num_steps", "target", "leaf")):
        return "the uncertainty of a reference that no other row has, within 2^-10 of the scale"
    if field in ("got", "expected") and reading.components and abs(value - old) <= 4 * len(shape) * row.error + 1e-15:
        return "a component that the error over all of them allows"
    if field == "power" and reading.power is None and row.status == tampered.status:
        return "a power that follows from no column"
    if field in NUMBERS and abs(value - old) <= max(2.0**-51 * abs(old), reading.slack):
        return "less than a rounding of what follows from it"
    if field == "expected" and "size" in reading.columns and max(value, old) <= (row.size or 0.0):
        return "the smaller of two numbers of which the greater counts"
    if field == "scale" and row.error == 0.0 and value > 0:
        return "the scale of an error of 0"
    if field in NUMBERS and row.status == "no-power":
        return "a number of a row without power, from which nothing follows"
    return ""


@pytest.mark.parametrize("check", list(CHECKS))
def test_a_tampered_row_is_seen(small, check):
    run, planned = small
    tried, through = 0, Counter()
    for status in ("measured", "no-power"):
        kind = [row for row in run.measurements if (row.check, row.status) == (check, status)]
        for row in kind[:1]:
            few, plan_of_few = neighbourhood(row, run, planned)
            before = said(judge(few, plan_of_few))
            place = few.measurements.index(row)
            for field, tampered in tamperings(row, run):
                tried += 1
                if judge_row(tampered, CRITERIA, planned.rows.get(row_key(tampered))).passed is False:
                    continue
                rows = (*few.measurements[:place], tampered, *few.measurements[place + 1 :])
                if said(judge(replace(few, measurements=rows), plan_of_few)) - before:
                    continue
                shape = planned.rows[row_key(row)].place.shape or ()
                through[unseen(row, field, tampered, run, shape) or f"{field} = {getattr(tampered, field)}"] += 1
                assert unseen(row, field, tampered, run, shape), f"{field}: {tampered}"
    assert tried > 100
    print(f"{check}: {tried} tried, {sum(through.values())} unseen: {dict(through)}")


def environments(run):
    """(key, tampered environment) for every key, and for every field of every device."""
    for key, value in run.environment.items():
        if not isinstance(value, (list, dict)):
            for other in (*altered(value), None, [], {}, 1.5):
                yield key, run.environment | {key: other}
        yield key, run.environment | {f"another {key}": value}
    for name in run.environment["tf32"]:
        for other in (None, "no", 1):
            yield "tf32", run.environment | {"tf32": run.environment["tf32"] | {name: other}}
    devices = run.environment["devices"]
    for changed in ([], devices[1:], [*devices, devices[0]], None, "cpu", [None]):
        yield "devices", run.environment | {"devices": changed}
    for place, device in enumerate(devices):
        for name, value in device.items():
            for other in (*altered(value), None):
                changed = [*devices[:place], device | {name: other}, *devices[place + 1 :]]
                yield f"device {name}", run.environment | {"devices": changed}


SOME = 15
"""Of the records of faults, which are of few kinds, every so many-th is tampered with."""


def replaced(entries, place, **changes):
    return (*entries[:place], replace(entries[place], **changes), *entries[place + 1 :])


def runs(run):
    """(what, tampered run)."""
    for name in ("profile", "command", "started", "finished", "subject"):
        for other in (*altered(getattr(run, name)), "yesterday", "2026-01-01", "2026-13-01T00:00:00+00:00"):
            yield name, replace(run, **{name: other})
    for devices in ((), ("cuda",), ("cpu", "cuda"), ("cpu", "cpu"), ("",)):
        yield "devices", replace(run, devices=devices)
    yield "complete", replace(run, complete=False)
    for key, environment in environments(run):
        yield f"environment {key}", replace(run, environment=environment)
    yield "not_measured", replace(run, not_measured=())
    yield "not_measured", replace(run, not_measured=(*run.not_measured, run.not_measured[0]))
    for place, item in enumerate(run.not_measured):
        for name in ("what", "why"):
            for other in altered(getattr(item, name)):
                yield "not_measured", replace(run, not_measured=replaced(run.not_measured, place, **{name: other}))
    yield "selftest", replace(run, selftest=None)
    for place, record in list(enumerate(run.selftest))[::SOME]:
        changes = [
            {name: other} for name in ("fault", "description", "expected") for other in altered(getattr(record, name))
        ]
        changes += [{"killed_by": other} for other in ((), ("x",), record.killed_by * 2, record.killed_by[1:])]
        for change in changes:
            if any(getattr(record, name) != value for name, value in change.items()):
                yield f"fault {next(iter(change))}", replace(run, selftest=replaced(run.selftest, place, **change))
        without = run.selftest[:place] + run.selftest[place + 1 :]
        yield "fault deleted", replace(run, selftest=without)
        yield "fault doubled", replace(run, selftest=(*run.selftest, record))


def one_of_each(curves):
    """One curve of each name."""
    return tuple({curve.name: curve for curve in curves}.values())


def curves(run):
    """(what, tampered run) for every curve."""
    for place, curve in enumerate(run.curves):
        yield "curve deleted", replace(run, curves=run.curves[:place] + run.curves[place + 1 :])
        yield "curve doubled", replace(run, curves=(*run.curves, curve))
        for item in fields(Curve):
            value = getattr(curve, item.name)
            for other in ("", "x", f"{value} ") if isinstance(value, str) else ():
                yield f"curve {item.name}", replace(run, curves=replaced(run.curves, place, **{item.name: other}))
        for other in (None, 0.25, math.nan):
            yield "curve beta", replace(run, curves=replaced(run.curves, place, beta=other))
        for name in ("x", "y", "predicted", "band"):
            values = getattr(curve, name)
            for number in (-1.0, math.nan, math.inf, 0.125):
                first = None if values is None else (number, *values[1:])
                yield f"curve {name} {number}", replace(run, curves=replaced(run.curves, place, **{name: first}))
        fewer = {name: getattr(curve, name)[1:] for name in ("x", "y")}
        fewer |= {name: values[1:] for name in ("predicted", "band") if (values := getattr(curve, name)) is not None}
        yield "curve points", replace(run, curves=replaced(run.curves, place, **fewer))


RUN_UNSEEN = {
    "command": "another command that asks for the same",
    "environment commit": "another commit, where none is expected",
    "environment dirty": "as the commit",
    "environment deterministic": "another switch",
    "environment threads": "another number of threads",
    "environment processors": "another number of processors",
    "environment torch": "another version",
    "environment platform": "another machine",
    "environment machine": "another machine",
    "environment device name": "another machine",
    "environment device reason": "other words",
    "curve y 0.125": "another number in a figure",
    "curve y nan": "a gap in a figure",
    "curve y inf": "another number in a figure",
    "curve predicted nan": "a gap in a figure",
    "curve predicted inf": "another number in a figure",
    "curve predicted 0.125": "another number in a figure",
    "curve band nan": "a gap in a figure",
    "curve band inf": "another number in a figure",
    "curve band 0.125": "another number in a figure",
    "curve x 0.125": "another number in a figure",
    "curve points": "a point less in a figure whose points are measured",
}
"""What nothing short of a signature sees, and why."""


@pytest.mark.parametrize("kind", [runs, curves], ids=["run", "curves"])
def test_a_tampered_run_is_seen(small, small_plan, kind):
    run, _ = small
    tried, through = 0, Counter()
    # Rows are the affair of the other test: a few of them suffice for what a run says of itself.
    few = replace(run, measurements=run.measurements[:3], curves=one_of_each(run.curves))
    before = said(judge(few, small_plan(few)))
    for what, tampered in kind(few):
        if tampered == few or repr(tampered) == repr(few):
            continue
        tried += 1
        if not said(judge(tampered, small_plan(tampered))) - before:
            through[what] += 1
    print(f"{tried} tried, {sum(through.values())} unseen: {dict(through)}")
    assert tried > 100
    assert set(through) <= set(RUN_UNSEEN)


def test_every_tampering_of_a_file_is_seen_by_its_digest(small):
    run, _ = small
    few = replace(run, measurements=run.measurements[:3], curves=one_of_each(run.curves))
    whole = to_json(few)
    for _, tampered in (*runs(few), *curves(few)):
        edited = to_json(tampered)
        if edited == whole:
            continue
        with pytest.raises(ResultsError):
            from_json(edited | {"digest": whole["digest"]})
