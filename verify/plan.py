"""What a run must hold: the rows, curves and planted faults that its profile, devices and subject determine.

The gate compares a run with its plan: what is missing, surplus, relabelled or there twice is a finding. Plans are made
by `verify.planning`; they hold no tensors, so that judging needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from verify.criteria import Criterion
from verify.result import Curve, Measurement, NotMeasured


RowKey: TypeAlias = tuple[str, str, str, str, str]
"""Check, case, adjoint, target and leaf."""

CurveKey: TypeAlias = tuple[str, str, str, str, str, float | None, str, str, str]
"""Name, problem, solver, adjoint, target, beta, dtype, state dtype and device."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row of a check stands within a case.

    Args:
        adjoint: as in `verify.result.Measurement`; so are target and leaf.
        shape: of the leaf whose worst component is shown, None where the row is not about components.
        expected: what `expected` must be, None where it is measured or comes from a reference.
    """

    adjoint: str = ""
    target: str = ""
    leaf: str = ""
    shape: tuple[int, ...] | None = None
    expected: float | None = None


@dataclass(frozen=True)
class PlannedRow:
    """A row that a run must hold.

    Args:
        columns: what its columns must say, by name: all that does not depend on what is measured.
        place: where it stands within its case.
    """

    columns: Mapping[str, object]
    place: Place


@dataclass(frozen=True)
class PlannedCurve:
    """A curve that a run must hold.

    Args:
        axes: labels of x and y.
        x: its abscissae, None where they are measured.
        predicted: whether it has a prediction, None where that depends on what is measured.
    """

    axes: tuple[str, str]
    x: tuple[float, ...] | None = None
    predicted: bool | None = None


@dataclass(frozen=True)
class PlannedFault:
    """A fault, or a control, that the selftest must have tried.

    Args:
        description: what is wrong in it.
        expected: True where a check must kill it, False for a control.
        killers: the checks that must be among those that kill it.
    """

    description: str
    expected: bool
    killers: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a run must hold.

    Args:
        criteria: how rows are judged, by check.
        rows: by what makes a row the same row.
        curves: by what makes a curve the same curve.
        studies: names of curves of which a run must hold at least one, and may hold any number.
        faults: by name.
        lost: case -> the row whose lack of power says that reversal loses the states of the case.
        not_measured: what a run must say that it left out.
        profile: name of the profile that it is the plan of.
        environment: what the environment of a run must say, by key; None where it may say anything.
    """

    criteria: Mapping[str, Criterion]
    rows: Mapping[RowKey, PlannedRow]
    curves: Mapping[CurveKey, PlannedCurve] = field(default_factory=dict[CurveKey, PlannedCurve])
    studies: frozenset[str] = frozenset()
    faults: Mapping[str, PlannedFault] = field(default_factory=dict[str, PlannedFault])
    lost: Mapping[str, RowKey] = field(default_factory=dict[str, RowKey])
    not_measured: tuple[NotMeasured, ...] = ()
    profile: str
    environment: Mapping[str, object] = field(default_factory=dict[str, object])


def row_key(row: Measurement) -> RowKey:
    """What makes a row the same row in two runs."""
    return row.check, row.case, row.adjoint, row.target, row.leaf


def curve_key(curve: Curve) -> CurveKey:
    """What makes a curve the same curve in two runs."""
    return (
        curve.name,
        curve.problem,
        curve.solver,
        curve.adjoint,
        curve.target,
        curve.beta,
        curve.dtype,
        curve.state_dtype,
        curve.device,
    )
