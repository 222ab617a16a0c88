"""The ledger: how large the ratios of each case were when a person last looked, per environment.

A run may be a bit worse in its worst ratio and half a bit worse in the root mean square than what is recorded for its
environment (A14). Ratios below 1 count as 1: below one rounding there is nothing to lose. A person records the ledger
from a run that was looked at, and it never judges the run that it was recorded from.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from verify.json_file import write_text
from verify.result import Results


SCHEMA = "revdeq-ledger"
VERSION = 1
WORST_BITS = 1.0
TYPICAL_BITS = 0.5


class LedgerError(ValueError):
    """A ledger that cannot be read or used; the message says why and what to do."""


@dataclass(frozen=True)
class Entry:
    """What a case showed.

    Args:
        worst: log2 of the greatest ratio.
        typical: log2 of the root mean square of the ratios.
    """

    worst: float
    typical: float


@dataclass(frozen=True)
class Ledger:
    """Recorded entries.

    Args:
        entries: environment -> case -> entry.
        runs: environment -> the moment at which the run started that was recorded.
    """

    entries: Mapping[str, Mapping[str, Entry]]
    runs: Mapping[str, str]

    def worse(self, results: Results) -> list[tuple[str, str]]:
        """The cases that became worse: (case, what is wrong), and what cannot be compared.

        Raises:
            LedgerError: if the ledger was recorded from this very run.
        """
        environment = environment_name(results)
        if self.runs.get(environment) == results.started:
            raise LedgerError(
                f"the ledger was recorded from this very run ({results.started}): a run cannot be its own baseline; "
                "measure again, or give the ledger of an earlier run."
            )
        if environment not in self.entries:
            return [("", f"nothing is recorded for {environment}: record it, or leave the ledger out")]
        recorded, now = self.entries[environment], entries_of(results)
        found = [(case, "is recorded and was not measured") for case in recorded if case not in now]
        for case, entry in now.items():
            before = recorded.get(case)
            if before is None:
                continue
            for name, got, old, slack in (
                ("worst", entry.worst, before.worst, WORST_BITS),
                ("typical", entry.typical, before.typical, TYPICAL_BITS),
            ):
                if not got <= old + slack:
                    found.append(
                        (case, f"its {name} ratio is {got - old:.2f} bits above the ledger's, {slack:g} allowed")
                    )
        return found


def entries_of(results: Results) -> dict[str, Entry]:
    """The entry of every case that has a measured ratio R."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in results.measurements:
        if row.unit == "ratio R" and row.status == "measured" and row.measured is not None:
            ratios[row.case].append(row.measured if row.measured >= 1 or math.isnan(row.measured) else 1.0)
    return {
        case: Entry(
            worst=math.log2(max(values)) if not any(map(math.isnan, values)) else math.nan,
            typical=0.5 * math.log2(sum(value * value for value in values) / len(values)),
        )
        for case, values in ratios.items()
    }


def record(results: Results, onto: Ledger | None = None) -> Ledger:
    """The ledger with this run's environment recorded afresh, other environments as they were.

    Raises:
        LedgerError: if the run is incomplete or has a ratio that is not finite.
    """
    if not results.complete:
        raise LedgerError("the run is incomplete: record a ledger from a whole run.")
    entries = entries_of(results)
    broken = [case for case, entry in entries.items() if not math.isfinite(entry.worst + entry.typical)]
    if broken:
        raise LedgerError(f"{broken[0]} has a ratio that is not finite: record a ledger from a run that holds.")
    environment = environment_name(results)
    base = onto or Ledger({}, {})
    return Ledger({**base.entries, environment: entries}, {**base.runs, environment: results.started})


def environment_name(results: Results) -> str:
    """What must be the same for ratios to be comparable: torch, the machine's kind, and the devices measured."""
    environment = results.environment
    devices = sorted({row.device for row in results.measurements if row.device})
    names = [item["name"] for item in environment["devices"] if str(item["device"]).split(":")[0] in devices]
    return " / ".join([f"torch {environment['torch']}", str(environment["platform"]), *names])


def write_ledger(ledger: Ledger, path: str | Path) -> Path:
    """Write a ledger, an old one replaced whole.

    Raises:
        verify.result.ResultsError: if the folder cannot be written.
    """
    data = {
        "schema": SCHEMA,
        "version": VERSION,
        "runs": dict(ledger.runs),
        "entries": {
            environment: {case: [entry.worst, entry.typical] for case, entry in cases.items()}
            for environment, cases in ledger.entries.items()
        },
    }
    return write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", path)


def read_ledger(path: str | Path) -> Ledger:
    """Read a ledger.

    Raises:
        LedgerError: if it is not there, is damaged, or is of another version.
    """
    try:
        data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LedgerError(f"there is no ledger at {path}: record one, or leave it out.") from None
    except (OSError, ValueError) as error:
        raise LedgerError(f"{path} cannot be read as a ledger ({error}): give one that was recorded.") from error
    if not isinstance(data, dict) or cast("dict[str, Any]", data).get("schema") != SCHEMA:
        raise LedgerError(f"{path} is no ledger: give one that was recorded.")
    values = cast("dict[str, Any]", data)
    if values.get("version") != VERSION:
        raise LedgerError(
            f"{path} has version {values.get('version')!r}, this revdeq reads {VERSION}: record it again."
        )
    try:
        return Ledger(
            {
                environment: {case: Entry(float(worst), float(typical)) for case, (worst, typical) in cases.items()}
                for environment, cases in values["entries"].items()
            },
            {environment: str(started) for environment, started in values["runs"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LedgerError(f"{path} is damaged ({error}): record it again.") from error
