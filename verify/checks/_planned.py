"""The rows that checks give on cases, known before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from verify.case import Case
from verify.checks._check import Check
from verify.checks.reconstruction import CHECK as RECONSTRUCTION
from verify.claims import EVERYTHING, Claims
from verify.plan import PlannedRow, RowKey
from verify.trial.bench import case_columns, replay_command


def planned_rows(
    pairs: Iterable[tuple[Case, Check[Any]]], options: tuple[str, ...] = (), claims: Claims = EVERYTHING
) -> Mapping[RowKey, PlannedRow]:
    """The rows of checks on cases.

    Args:
        pairs: each case with each check that measures it.
        options: what a replay command needs besides the case.
        claims: what the subject claims.
    """
    return dict(item for case, check in pairs for item in _rows(case, check, options, claims))


def _rows(
    case: Case, check: Check[Any], options: tuple[str, ...], claims: Claims
) -> Iterator[tuple[RowKey, PlannedRow]]:
    columns = {**case_columns(case), "unit": check.criterion.unit, "replay": replay_command(case.id, options)}
    for place in check.claimed(case, claims).values():
        own = {"check": check.name, "adjoint": place.adjoint, "target": place.target, "leaf": place.leaf}
        yield (check.name, case.id, place.adjoint, place.target, place.leaf), PlannedRow({**columns, **own}, place)


def lost_rows(pairs: Iterable[tuple[Case, Check[Any]]]) -> Mapping[str, RowKey]:
    """Case -> the row of its rebuilt start, which says whether reversal loses the states."""
    found: dict[str, RowKey] = {}
    for case in (case for case, check in pairs if check is RECONSTRUCTION):
        start, *_ = RECONSTRUCTION.places(case)
        found[case.id] = (RECONSTRUCTION.name, case.id, start.adjoint, start.target, start.leaf)
    return found
