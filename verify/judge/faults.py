"""The selftest against its plan: every fault tried and killed, by the checks that must, and no control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from verify.judge.finding import Finding, about_run
from verify.plan import Plan
from verify.result import FaultRecord


GATE = "gate"
"""Stands among the killers of a fault for the rules of the gate that are about the run as a whole."""

KILLED = "every planted fault killed"


def judge_faults(records: Iterable[FaultRecord] | None, plan: Plan) -> Iterator[Finding]:
    """What the selftest of a run falls short of.

    Args:
        records: what became of each fault, None where the selftest did not run.
        plan: of the run.
    """
    if records is None:
        yield about_run("selftest", KILLED, "the selftest did not run")
        return
    for why in shortfalls(records, plan):
        yield about_run("selftest", KILLED, why)


def shortfalls(records: Iterable[FaultRecord], plan: Plan) -> Iterator[str]:
    """What a selftest falls short of, one sentence each."""
    records = tuple(records)
    times = Counter(record.fault for record in records)
    for fault in (*plan.faults, *(name for name in times if name not in plan.faults)):
        if times[fault] != 1 or fault not in plan.faults:
            yield f"{fault} is planned {int(fault in plan.faults)} times and recorded {times[fault]} times"
    for record in records:
        planned = plan.faults.get(record.fault)
        if planned is None:
            continue
        if (record.description, record.expected) != (planned.description, planned.expected):
            yield f"{record.fault} is recorded as another than it is"
        if planned.expected and not record.killed_by:
            yield f"{record.fault} survived: {planned.description}"
        if not planned.expected and record.killed_by:
            yield f"{record.fault}, where nothing is wrong, was killed by {', '.join(record.killed_by)}"
        if len(set(record.killed_by)) != len(record.killed_by) or set(record.killed_by) - {*plan.criteria, GATE}:
            yield f"{record.fault} is said to be killed by {', '.join(record.killed_by)}"
        spared = planned.killers - set(record.killed_by)
        if planned.expected and spared:
            yield f"{record.fault} was not killed by {', '.join(sorted(spared))}, which must"
    kills = {check for record in records for check in record.killed_by}
    for check in plan.criteria:
        if check not in kills:
            yield f"{check} killed none: it may be unable to fail"
