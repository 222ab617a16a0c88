"""The results as tables for pandas, spreadsheets and scripts: CSV and Parquet beside the page.

Columns are Arrow's, because they keep a NaN that was measured apart from a number that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd
import pyarrow as pa

from reports.dossier import Dossier
from reports.ranking import excess, verdict_word
from verify.result import Curve, Measurement


_HINTS = get_type_hints(Measurement)
_FLOATS = frozenset(name for name, hint in _HINTS.items() if hint == (float | None)) | frozenset(
    ("threshold", "excess_bits", "x", "y", "predicted", "band")
)
_INTEGERS = frozenset(name for name, hint in _HINTS.items() if hint == (int | None))

_MEASUREMENT_NAMES = tuple(item.name for item in fields(Measurement))
_CURVE_LABELS = tuple(item.name for item in fields(Curve) if item.name not in ("x", "y", "predicted", "band"))


def measurement_table(dossier: Dossier) -> pd.DataFrame:
    """One row per measurement with its verdict.

    Returns:
        The fields of `Measurement`, `index` as text, and: run, commit, verdict ("pass", "FAIL", "no power"),
        comparison, threshold, excess_bits (log2 of number over limit) and why.
    """
    rows: list[dict[str, Any]] = []
    for run, finding in dossier.findings:
        row = finding.measurement
        if row is None:
            continue
        criterion = finding.criterion
        rows.append(
            {
                "run": run.label,
                "commit": str(run.results.environment["commit"]),
                "verdict": verdict_word(finding.passed),
                **asdict(row),
                "index": "" if row.index is None else str(list(row.index)),
                "comparison": "" if criterion is None else criterion.comparison,
                "threshold": None if criterion is None else criterion.threshold,
                "excess_bits": excess(row.measured, criterion),
                "why": finding.why,
            }
        )
    names = ("run", "commit", "verdict", *_MEASUREMENT_NAMES, "comparison", "threshold", "excess_bits", "why")
    return _frame(rows, names)


def run_finding_table(dossier: Dossier) -> pd.DataFrame:
    """One row per finding about a run as a whole: too few rows, a lost leaf, a fault that survived."""
    rows = [
        {"run": run.label, "check": finding.check, "allowed": finding.allowed, "why": finding.why}
        for run, finding in dossier.findings
        if finding.measurement is None
    ]
    return _frame(rows, ("run", "check", "allowed", "why"))


def curve_table(dossier: Dossier) -> pd.DataFrame:
    """One row per point of every curve: the curve's labels, x, y, predicted and band."""
    rows: list[dict[str, Any]] = []
    for run in dossier.runs:
        for curve in run.results.curves:
            labels = {name: getattr(curve, name) for name in _CURVE_LABELS}
            for place, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
                predicted = None if curve.predicted is None else curve.predicted[place]
                band = None if curve.band is None else curve.band[place]
                rows.append({"run": run.label, **labels, "x": x, "y": y, "predicted": predicted, "band": band})
    return _frame(rows, ("run", *_CURVE_LABELS, "x", "y", "predicted", "band"))


def write_tables(dossier: Dossier, folder: Path) -> list[Path]:
    """Write every table as CSV ("nan" is a NaN, an empty cell is nothing) and as Parquet.

    Args:
        dossier: the runs.
        folder: an existing folder.

    Returns:
        The files written.
    """
    tables = {
        "measurements": measurement_table(dossier),
        "curves": curve_table(dossier),
        "run_findings": run_finding_table(dossier),
    }
    written: list[Path] = []
    for name, table in tables.items():
        written += [folder / f"{name}.csv", folder / f"{name}.parquet"]
        table.to_csv(written[-2], index=False)
        table.to_parquet(written[-1], index=False)
    return written


def _frame(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    schema = pa.schema([(name, _kind(name)) for name in names])
    return pa.Table.from_pylist(list(rows), schema=schema).to_pandas(types_mapper=pd.ArrowDtype)


def _kind(name: str) -> Any:
    if name in _FLOATS:
        return pa.float64()
    return pa.int64() if name in _INTEGERS else pa.string()
