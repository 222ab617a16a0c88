"""The selftest: run every check on every planted fault, and see which check kills which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from verify.case import BITWISE, Case
from verify.checks import References, Trial, measure
from verify.checks.envelope import measure_envelope
from verify.checks.grid import GRID, measure_grid_case
from verify.criteria import CRITERIA, Criterion
from verify.gate import CURVES, judge, judge_row, judge_spread
from verify.planted import algebra, bitwise, counting, lost, precision, references, runs, state
from verify.planted.base import Honest
from verify.problems import get_problem
from verify.result import ENVIRONMENT_KEYS, Curve, FaultRecord, Measurement, Results
from verify.subject import Subject


Progress = Callable[[int, int, str], None]

GATE = "gate"
"""Stands in `killed_by` for the rules of the gate that are about the run as a whole."""

EVERYWHERE = (
    "forward",
    "reconstruction",
    "backward-states",
    "gradient",
    "evaluations",
    "untouched",
)
ONCE = (
    "bindings",
    "implicit-gradient",
    "relative-to-unrolled",
    "rounding-bound",
    "finite-differences",
    "float64-differences",
    "taylor-order",
    "dot-product",
    "saved-bytes",
    "repeatable",
    "linear",
    "cotangent-layout",
    "samples",
    "random-replay",
    "refusals",
    "errors-surface",
    "reference-agreement",
    "oracle",
)
RATES = ("convergence-rate", "target-difference")
BITWISE_CHECKS = ("bitwise-states", "bitwise-cotangents", "gradient", "relative-to-unrolled")

CASES: tuple[tuple[Case, tuple[str, ...]], ...] = (
    (Case("dense-tanh", 0.8, 4), (*EVERYWHERE, *ONCE)),
    (Case("affine-general", 0.3, 3), (*EVERYWHERE, "relative-to-unrolled")),
    (Case("kepler", 0.8, 6), EVERYWHERE),
    (Case("kepler", 0.8, 6, "float32", "float32"), EVERYWHERE),
    (Case("affine-real", 0.8, 4), (*RATES, "oracle")),
    (Case("dense-tanh", 0.75, 16, "float32", solver=BITWISE), BITWISE_CHECKS),
    (Case("dense-tanh", 0.75, 16, solver=BITWISE), ("bitwise-states", "tape-bytes", "bitwise-refusals")),
)
"""Starts away from 0, cotangents on both states, Jacobians that are not symmetric, beta not dyadic, few steps."""

GRID_CASE = Case(GRID, 0.8, 64)
GRID_CONSTANTS = (0.5, 0.9)


class _Fault(Protocol):
    """What every kind of fault has."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...


SUBJECT_FAULTS: tuple[type[Honest], ...] = (
    *algebra.FAULTS,
    *counting.FAULTS,
    *lost.FAULTS,
    *precision.FAULTS,
    *state.FAULTS,
    *bitwise.FAULTS,
)
REFERENCE_FAULTS = references.FAULTS
RUN_FAULTS: tuple[runs.RunFault, ...] = runs.FAULTS


def fault_names() -> tuple[str, ...]:
    """The names of all planted faults, in the order in which the selftest runs them."""
    return tuple(fault.name for fault in (*SUBJECT_FAULTS, *REFERENCE_FAULTS, *RUN_FAULTS))


def selftest(progress: Progress | None = None, only: Iterable[str] | None = None) -> tuple[FaultRecord, ...]:
    """Run the checks on the control and on every planted fault.

    Args:
        progress: called with (faults done, faults in all, name of the fault).
        only: names of the faults to run; None for all.

    Returns:
        A record for the control, which no check may kill, and one per fault with the checks that killed it.

    Raises:
        ValueError: if a name in `only` is not that of a fault.
    """
    wanted = fault_names() if only is None else tuple(only)
    unknown = sorted(set(wanted) - set(fault_names()))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no planted fault: give names out of {', '.join(fault_names())}.")
    control = _measure(Honest(), References())
    records = [
        FaultRecord(fault=Honest.name, description=Honest.description, killed_by=_killers(control), expected=False)
    ]
    run = _as_run(control)
    records.append(
        FaultRecord(
            fault="honest-run",
            description="a whole run of the control: the gate must hold",
            killed_by=() if judge(run, _criteria()).verdict == "holds" else (GATE,),
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


def shortfalls(records: Iterable[FaultRecord], criteria: Mapping[str, Criterion] = CRITERIA) -> tuple[str, ...]:
    """What a selftest falls short of, one sentence each: a fault that survives, a control killed, an idle check."""
    records = tuple(records)
    found = [f"{r.fault} survives: {r.description}" for r in records if r.expected and not r.killed_by]
    found += [f"{r.fault} is killed by {', '.join(r.killed_by)}" for r in records if not r.expected and r.killed_by]
    killers = {check for record in records for check in record.killed_by}
    found += [f"{check} kills no fault" for check in criteria if check not in killers]
    return tuple(found)


def _measure(subject: Subject, sources: References) -> list[Measurement]:
    rows: list[Measurement] = []
    for case, checks in CASES:
        trial = Trial(case, subject, get_problem(case.problem), sources)
        for check in checks:
            rows += measure(check, trial)
    return [*rows, *measure_grid_case(subject, GRID_CASE, GRID_CONSTANTS), *measure_envelope(subject, cases=2)]


def _killers_of(subject: Subject, sources: References) -> tuple[str, ...]:
    return _killers(_measure(subject, sources))


def _killers(rows: list[Measurement]) -> tuple[str, ...]:
    """The checks whose rows, or whose spread of rows, the gate fails."""
    failed = {row.check for row in rows if judge_row(row).passed is False}
    spread = {finding.check for finding in judge_spread(rows)}
    return tuple(check for check in CRITERIA if check in failed | spread)


def _as_run(rows: list[Measurement]) -> Results:
    """The control's rows as a whole run, so that faults of the run itself can be planted in it."""
    everything = tuple(CRITERIA)
    return Results(
        profile="selftest",
        command="revdeq selftest",
        started="",
        finished="",
        environment=dict.fromkeys(ENVIRONMENT_KEYS, ""),
        subject=Honest.name,
        complete=True,
        measurements=tuple(rows),
        curves=tuple(
            Curve(name=name, problem="none", solver="reversible", x_name="x", y_name="y", x=(1.0,), y=(1.0,))
            for name in CURVES
        ),
        selftest=(
            FaultRecord(fault="control", description="", killed_by=(), expected=False),
            FaultRecord(fault="planted", description="", killed_by=everything),
        ),
    )


def _criteria() -> dict[str, Criterion]:
    """The table with one row as the least number, since the selftest has few cases."""
    return {check: replace(criterion, least=1, least_logic=0) for check, criterion in CRITERIA.items()}


def _refused(fault: runs.RunFault, run: Results) -> tuple[str, ...]:
    return (GATE,) if judge(fault.corrupt(run), _criteria()).verdict == "falls short" else ()
