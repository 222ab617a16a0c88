"""The selftest: run every check on every planted fault, and see which check kills which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from verify.case import BITWISE, Case
from verify.checks import CRITERIA, Check, References, checks_for
from verify.checks._planned import lost_rows, planned_rows
from verify.environment import describe
from verify.gate import judge, judge_row
from verify.judge.faults import GATE
from verify.judge.whole import judge_spread
from verify.methods import METHODS
from verify.plan import Plan, PlannedCurve, PlannedFault, curve_key
from verify.planted import runs
from verify.planted.base import Honest
from verify.planted.faults import CONTROLS, REFERENCE_FAULTS, RUN_FAULTS, SUBJECT_FAULTS, fault_names
from verify.result import Curve, FaultRecord, Measurement, Results
from verify.subject import Subject
from verify.trial.asked import method_cases
from verify.trial.benches import bench_of
from verify.trial.grid import GRID
from verify.trial.reach import envelope_cases


Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Stand:
    """A case on which faults are tried.

    Args:
        case: the case.
        again: whether every check that applies to it is run, or those that no earlier stand had.
    """

    case: Case
    again: bool = True


STANDS: tuple[Stand, ...] = (
    Stand(Case("dense-tanh", 0.8, 4)),
    Stand(Case("affine-general", 0.3, 3)),
    Stand(Case("kepler", 0.8, 6)),
    Stand(Case("kepler", 0.8, 6, "float32", "float32")),
    Stand(Case("affine-real", 0.8, 4), again=False),
    Stand(Case("dense-tanh", 0.5, 4), again=False),
    Stand(Case("dense-tanh", 0.75, 4, "float32", solver=BITWISE)),
    Stand(Case("dense-tanh", 0.75, 4, solver=BITWISE), again=False),
    Stand(Case("dense-tanh", 0.75, 16, solver=BITWISE)),
    Stand(Case(GRID, 0.8, 64)),
    *(Stand(case) for case in envelope_cases("cpu")[:2]),
    *(Stand(method_cases(name, "cpu")[0]) for name in METHODS),
)
"""Starts away from 0, cotangents on both states, Jacobians that are not symmetric, beta not dyadic, few steps."""

GRID_CONSTANTS = (0.5, 0.9)


class _Fault(Protocol):
    """What every kind of fault has."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...


def stands() -> tuple[tuple[Case, Check[Any]], ...]:
    """Each case with each check that is run on it."""
    found: list[tuple[Case, Check[Any]]] = []
    for stand in STANDS:
        had = set[str]() if stand.again else {check.name for _, check in found}
        found += [(stand.case, check) for check in checks_for(stand.case) if check.name not in had]
    return tuple(found)


def selftest(progress: Progress | None = None, only: Iterable[str] | None = None) -> tuple[FaultRecord, ...]:
    """Run the checks on the control and on every planted fault.

    Args:
        progress: called with (faults done, faults in all, name of the fault).
        only: names of the faults to run; None for all.

    A fault in a method is tried on the stands of the methods that it names, every other one on the others.

    Returns:
        A record for the control, which no check may kill, and one per fault with the checks that killed it.

    Raises:
        ValueError: if a name in `only` is not that of a fault.
    """
    wanted = fault_names() if only is None else tuple(only)
    unknown = sorted(set(wanted) - set(fault_names()))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no planted fault: give names out of {', '.join(fault_names())}.")
    control = _measure(Honest(), References(), stands())
    records = [
        FaultRecord(fault=Honest.name, description=Honest.description, killed_by=_killers(control), expected=False)
    ]
    run = _as_run(control)
    records.append(
        FaultRecord(
            fault="honest-run",
            description=CONTROLS["honest-run"],
            killed_by=() if judge(run, run_plan()).verdict == "holds" else (GATE,),
            expected=False,
        )
    )
    faults: list[tuple[_Fault, Callable[[], tuple[str, ...]]]] = [
        *((fault(), partial(_killers_of, fault(), References())) for fault in SUBJECT_FAULTS),
        *((fault(), partial(_killers_of, Honest(), fault())) for fault in REFERENCE_FAULTS),
        *((fault, partial(_refused, fault, run)) for fault in RUN_FAULTS),
    ]
    faults = [(fault, kill) for fault, kill in faults if fault.name in wanted]
    for done, (fault, kill) in enumerate(faults):
        if progress is not None:
            progress(done, len(faults), fault.name)
        records.append(FaultRecord(fault=fault.name, description=fault.description, killed_by=kill()))
    if progress is not None:
        progress(len(faults), len(faults), "done")
    return tuple(records)


def _measure(subject: Subject, sources: References, pairs: Iterable[tuple[Case, Check[Any]]]) -> list[Measurement]:
    pairs = tuple(pairs)
    benches = {
        case: bench_of(case, subject, references=sources, constants=GRID_CONSTANTS)
        for case in dict.fromkeys(case for case, _ in pairs)
    }
    return [row for case, check in pairs for row in check.measured(benches[case])]


def _killers_of(subject: Honest, sources: References) -> tuple[str, ...]:
    wanted = set(subject.methods or (case.solver for case, _ in stands() if case.solver not in METHODS))
    return _killers(_measure(subject, sources, [(case, check) for case, check in stands() if case.solver in wanted]))


def _killers(rows: list[Measurement]) -> tuple[str, ...]:
    """The checks whose rows, or whose spread of rows, the gate fails."""
    failed = {row.check for row in rows if judge_row(row, CRITERIA).passed is False}
    spread = {finding.check for finding in judge_spread(rows, CRITERIA)}
    return tuple(check for check in CRITERIA if check in failed | spread)


def _as_run(rows: list[Measurement]) -> Results:
    """The control's rows as a whole run, so that faults of the run itself can be planted in it."""
    return Results(
        profile=_PROFILE,
        command="revdeq selftest",
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-02T00:00:00+00:00",
        environment=describe(),
        subject=Honest.name,
        devices=("cpu",),
        complete=True,
        measurements=tuple(rows),
        curves=(_CURVE,),
        selftest=(
            FaultRecord(fault="control", description="", killed_by=(), expected=False),
            FaultRecord(fault="planted", description="", killed_by=tuple(CRITERIA)),
        ),
    )


_PROFILE = "selftest"
_CURVE = Curve(name="convergence", problem="none", solver="reversible", x_name="x", y_name="y", x=(1.0,), y=(1.0,))


def run_plan() -> Plan:
    """The plan of the control's run."""
    return Plan(
        profile=_PROFILE,
        criteria=CRITERIA,
        rows=planned_rows(stands()),
        curves={curve_key(_CURVE): PlannedCurve(("x", "y"))},
        faults={"control": PlannedFault("", expected=False), "planted": PlannedFault("", expected=True)},
        lost=lost_rows(stands()),
    )


def _refused(fault: runs.RunFault, run: Results) -> tuple[str, ...]:
    return (GATE,) if judge(fault.corrupt(run), run_plan()).verdict == "falls short" else ()
