"""Section 7: every measurement, in a table that sorts and filters, each with the command that measures it again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from reports.content import Block, MeasurementTable, Notice, Prose, Section
from reports.dossier import Dossier, Run
from reports.ranking import excess, severity, verdict_level, verdict_word
from reports.text import number, precision
from verify.criteria import Criterion
from verify.gate import Finding
from verify.result import Measurement


_TEXT = (
    "verdict", "check", "problem", "leaf", "adjoint", "target", "precision", "device", "unit", "allowed", "run", "case",
    "index", "status", "reason", "why", "replay",
)  # fmt: skip
_NUMBERS = (
    "beta", "N", "measured", "bits over", "got", "expected", "error", "scale", "size", "power", "uncertainty",
    "evaluations", "VJPs", "saved bytes", "seconds",
)  # fmt: skip
_COLUMNS = (*_TEXT, *_NUMBERS)
_SHOWN = (
    "verdict", "check", "problem", "leaf", "adjoint", "beta", "N", "precision", "device", "measured", "unit", "allowed",
    "bits over",
)  # fmt: skip
_CHOICES = ("verdict", "check", "problem", "adjoint", "precision", "device")
_FIRST = 60
"""Rows that stand in the page itself, for paper and for browsers without scripts."""


def build(dossier: Dossier) -> Sequence[Block]:
    """The table of all rows, worst first."""
    found = [
        (run, finding, finding.measurement) for run, finding in dossier.findings if finding.measurement is not None
    ]
    if not found:
        return [Notice("bad", "There is no measurement.")]
    found.sort(key=lambda item: severity(item[1]), reverse=True)
    rows = [_values(run, finding, row) for run, finding, row in found]
    choices = tuple(name for name in (*_CHOICES, "run") if len({row[name] for row in rows}) > 1)
    first = tuple(tuple(_cell(name, row[name]) for name in _SHOWN) for row in rows[:_FIRST])
    return [
        Prose(
            "Worst first: rows that fall short, then by bits over the limit, and last those without power. All are "
            "in tables/measurements.csv and tables/measurements.parquet beside this file."
        ),
        MeasurementTable(
            caption=f"The {min(_FIRST, len(rows))} worst of {len(rows)} measurements.",
            columns=_SHOWN,
            numeric=frozenset(place for place, name in enumerate(_SHOWN) if name in _NUMBERS),
            first_rows=first,
            first_levels=[verdict_level(finding.passed) for _, finding, _ in found[:_FIRST]],
            total=len(rows),
            data=_encode(rows, choices),
        ),
    ]


def _values(run: Run, finding: Finding, row: Measurement) -> dict[str, Any]:
    return {
        "verdict": verdict_word(finding.passed),
        "check": row.check,
        "problem": row.problem,
        "leaf": row.leaf,
        "adjoint": row.adjoint,
        "target": row.target,
        "precision": precision(row.dtype, row.state_dtype, row.solver),
        "device": row.device,
        "unit": row.unit,
        "allowed": finding.allowed,
        "run": run.label,
        "case": row.case,
        "index": "" if row.index is None else str(list(row.index)),
        "status": row.status,
        "reason": row.reason,
        "why": finding.why,
        "replay": row.replay,
        "beta": row.beta,
        "N": row.num_steps,
        "measured": row.measured,
        "bits over": _excess(row.measured, finding.criterion),
        "got": row.got,
        "expected": row.expected,
        "error": row.error,
        "scale": row.scale,
        "size": row.size,
        "power": row.power,
        "uncertainty": row.uncertainty,
        "evaluations": row.evaluations,
        "VJPs": row.vjps,
        "saved bytes": row.saved_bytes,
        "seconds": row.seconds,
    }


def _excess(measured: float | None, criterion: Criterion | None) -> float | None:
    """Bits over the limit; None where a claim of equality holds, which has no distance."""
    distance = excess(measured, criterion)
    return None if distance == -math.inf else distance


def _cell(name: str, value: Any) -> str:
    return number(value) if name in _NUMBERS else str(value)


def _encode(rows: Sequence[dict[str, Any]], choices: Sequence[str]) -> str:
    """JSON for the page's script: texts once in a pool, numbers with the digits that a reader can use."""
    pool: dict[str, int] = {}
    data = {
        "columns": _COLUMNS,
        "numeric": [place for place, name in enumerate(_COLUMNS) if name in _NUMBERS],
        "shown": [_COLUMNS.index(name) for name in _SHOWN],
        "choices": [_COLUMNS.index(name) for name in choices],
        "rows": [
            [_number(row[name]) if name in _NUMBERS else pool.setdefault(row[name], len(pool)) for name in _COLUMNS]
            for row in rows
        ],
    }
    text = json.dumps({**data, "pool": list(pool)}, separators=(",", ":"), allow_nan=False)
    # "</script>" in a text would end the element that holds the data.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _number(value: float | None) -> float | str | None:
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else number(value)


SECTION = Section("measurements", "Every measurement", build)
