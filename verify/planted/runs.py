"""Faults of a run: what a broken harness might write into a results file, each of which the gate must refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from verify.result import Measurement, Results


@dataclass(frozen=True)
class RunFault:
    """A corruption of a good run.

    Args:
        name: how selftest names it.
        description: what is wrong, one sentence.
        corrupt: the good run to the corrupted one.
    """

    name: str
    description: str
    corrupt: Callable[[Results], Results]


def _change(results: Results, check: str, change: Callable[[Measurement], Measurement | None]) -> Results:
    """Replace the first row of a check, or drop it where `change` returns None."""
    rows = list(results.measurements)
    place = next(place for place, row in enumerate(rows) if row.check == check)
    changed = change(rows[place])
    rows[place : place + 1] = [] if changed is None else [changed]
    return replace(results, measurements=tuple(rows))


def _without(results: Results, check: str) -> Results:
    return replace(results, measurements=tuple(row for row in results.measurements if row.check != check))


def _respelt(row: Measurement) -> Measurement:
    return replace(row, case=f"{row.case} ")


FAULTS = (
    RunFault(
        "nan-ratio",
        "a ratio is NaN",
        lambda run: _change(run, "gradient", lambda row: replace(row, measured=math.nan)),
    ),
    RunFault(
        "missing-number",
        "a row holds no number",
        lambda run: _change(run, "forward", lambda row: replace(row, measured=None)),
    ),
    RunFault(
        "empty-parametrisation",
        "the gradient check has no case left",
        lambda run: _without(run, "gradient"),
    ),
    RunFault(
        "empty-run",
        "nothing was measured",
        lambda run: replace(run, measurements=()),
    ),
    RunFault(
        "skipped-leaf",
        "a leaf was skipped and counted as zero",
        lambda run: _change(run, "gradient", lambda row: replace(row, measured=0.0, status="skipped")),
    ),
    RunFault(
        "lost-leaf",
        "a leaf of one case is not in the results",
        lambda run: _change(run, "gradient", lambda row: None),
    ),
    RunFault(
        "padded-run",
        "a row stands twice",
        lambda run: replace(run, measurements=(*run.measurements, run.measurements[0])),
    ),
    RunFault(
        "hidden-behind-no-power",
        "a failing row with power calls itself no-power",
        lambda run: _change(run, "gradient", lambda row: replace(row, measured=1e9, status="no-power")),
    ),
    RunFault(
        "eps-for-u",
        "a row's power is that of another dtype, and it does not say no-power",
        lambda run: _change(run, "gradient", lambda row: replace(row, power=1.0)),
    ),
    RunFault(
        "uncertain-reference",
        "the reference's uncertainty is as large as the rounding that it judges",
        lambda run: _change(run, "gradient", lambda row: replace(row, uncertainty=row.scale)),
    ),
    RunFault(
        "interrupted-run",
        "the run was interrupted",
        lambda run: replace(run, complete=False),
    ),
    RunFault(
        "unknown-check",
        "a row belongs to no criterion",
        lambda run: replace(run, measurements=(*run.measurements, replace(run.measurements[0], check="nothing"))),
    ),
    RunFault(
        "no-curves",
        "the curves of the report are missing",
        lambda run: replace(run, curves=()),
    ),
    RunFault(
        "no-selftest",
        "the selftest did not run",
        lambda run: replace(run, selftest=None),
    ),
    RunFault(
        "fault-survives",
        "a planted fault survives",
        lambda run: replace(run, selftest=tuple(replace(r, killed_by=()) for r in run.selftest or ())),
    ),
    RunFault(
        "row-deleted",
        "a row that was planned is not in the results",
        lambda run: _change(run, "rounding-bound", lambda row: None),
    ),
    RunFault(
        "case-relabelled",
        "a row stands again under a case with a space behind it",
        lambda run: replace(run, measurements=(*run.measurements, _respelt(run.measurements[0]))),
    ),
    RunFault(
        "profile-relabelled",
        "the run is called one of another profile",
        lambda run: replace(run, profile="full"),
    ),
    RunFault(
        "number-not-recomputed",
        "a ratio is not that of its error and its scale",
        lambda run: _change(run, "gradient", lambda row: replace(row, measured=1.0)),
    ),
    RunFault(
        "component-impossible",
        "the worst component is further off than the error over all of them allows",
        lambda run: _change(run, "forward", lambda row: replace(row, got=2.0 + (row.got or 0.0))),
    ),
    RunFault(
        "column-against-case",
        "a row's beta is not that of its case",
        lambda run: _change(run, "gradient", lambda row: replace(row, beta=0.123)),
    ),
    RunFault(
        "index-outside-leaf",
        "a row's worst component is outside its leaf",
        lambda run: _change(run, "gradient", lambda row: replace(row, index=(-5,))),
    ),
    RunFault(
        "replay-of-nothing",
        "the command of a row does not measure its case again",
        lambda run: _change(run, "forward", lambda row: replace(row, replay="true")),
    ),
    RunFault(
        "negative-uncertainty",
        "a reference is more than certain",
        lambda run: _change(run, "gradient", lambda row: replace(row, uncertainty=-1.0)),
    ),
    RunFault(
        "two-costs-of-one-solve",
        "two rows of one observation counted differently",
        lambda run: _change(run, "gradient", lambda row: replace(row, evaluations=1 + (row.evaluations or 0))),
    ),
    RunFault(
        "states-said-to-be-lost",
        "a row says that reversal loses the states, where it does not",
        lambda run: _change(
            run, "gradient", lambda row: replace(row, status="no-power", power=math.inf, reason="reversal loses them")
        ),
    ),
    RunFault(
        "no-device",
        "the run was measured on no device",
        lambda run: replace(run, environment=run.environment | {"devices": []}),
    ),
    RunFault(
        "started-in-words",
        "the run does not say when it started",
        lambda run: replace(run, started="yesterday"),
    ),
)
