"""The ledger: how large the ratios of each case were in runs that a person accepted, and who, when and why.

A run may be one bit worse in its worst ratio and half a bit worse in the root mean square than the best run that was
ever accepted on its ground (A14); since the best only falls, no chain of small steps walks up. Ratios below 1 count as
1: below one rounding there is nothing to lose. Only `accept` changes a ledger, and no run judges itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from verify.json_file import printable, read_json, write_text
from verify.result import Results, ResultsError
from verify.result_file import decode, encode


SCHEMA = "revdeq-ledger"
VERSION = 2
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
class Record:
    """What is recorded of a case.

    Args:
        case: its id.
        first: in the run with which it came into the ledger.
        best: the least of each number in all accepted runs; what a run is compared with.
    """

    case: str
    first: Entry
    best: Entry


@dataclass(frozen=True)
class Acceptance:
    """That a run was accepted.

    Args:
        run: digest of its rows (`digest_of`).
        started: when it began, as its results say.
        commit: what it measured.
        who: who accepted it.
        when: ISO 8601 time with offset.
        why: the reason, in words.
        dropped: cases that were recorded before and are no longer measured.
    """

    run: str
    started: str
    commit: str
    who: str
    when: str
    why: str
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """What is recorded of one ground.

    Args:
        ground: what must be the same for ratios to be comparable (`ground_of`).
        accepted: the runs, in order.
        records: one per case.
    """

    ground: str
    accepted: tuple[Acceptance, ...]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Ledger:
    """Recorded baselines, one per ground."""

    baselines: tuple[Baseline, ...] = ()

    def baseline(self, ground: str) -> Baseline | None:
        """The baseline of a ground, None where nothing is recorded of it."""
        return next((one for one in self.baselines if one.ground == ground), None)

    def worse(self, results: Results) -> list[tuple[str, str]]:
        """The cases that became worse or were not measured: (case, what is wrong).

        Raises:
            LedgerError: if this very run was accepted into the ledger.
        """
        self._refuse_own(results)
        baseline = self.baseline(ground_of(results))
        if baseline is None:
            return [("", f"nothing is recorded for {ground_of(results)}: accept a run, or leave the ledger out")]
        now = entries_of(results)
        found: list[tuple[str, str]] = []
        for record in baseline.records:
            entry = now.get(record.case)
            if entry is None:
                found.append((record.case, "is recorded and was not measured"))
                continue
            for name, got, best, slack in (
                ("worst", entry.worst, record.best.worst, WORST_BITS),
                ("typical", entry.typical, record.best.typical, TYPICAL_BITS),
            ):
                if not got <= best + slack:
                    why = f"its {name} ratio is {got - best:.2f} bits above the ledger's best, {slack:g} allowed"
                    found.append((record.case, why))
        return found

    def _refuse_own(self, results: Results) -> None:
        # Times are rewritten easily, and so is the form of a time; the rows hold the run's own durations.
        run, began = digest_of(results), _instant(results.started)
        for baseline in self.baselines:
            for one in baseline.accepted:
                if one.run == run or _instant(one.started) == began:
                    raise LedgerError(
                        f"this very run ({results.started}) was accepted into the ledger: a run cannot be its own "
                        "baseline; measure again with revdeq verify --fresh, or give the ledger of earlier runs."
                    )


def accept(
    results: Results, onto: Ledger, *, who: str, why: str, when: datetime | None = None, drop_missing: bool = False
) -> Ledger:
    """The ledger with a run accepted into it: cases that are new come in, and the best of the others may fall.

    Args:
        results: a run that the gate holds, which the caller sees to.
        onto: the ledger so far.
        who: who accepts it.
        why: the reason.
        when: now, if not said.
        drop_missing: forget the cases that the run has not measured, and record that they were dropped.

    Raises:
        LedgerError: if the run is incomplete, has a ratio that is not finite, is worse than what is recorded, lacks a
            recorded case, was accepted before, or nobody or no reason is named.
    """
    if not who.strip() or not why.strip():
        raise LedgerError("who accepts the run and why must be said in words: give --who and --why.")
    if not results.complete:
        raise LedgerError("the run is incomplete: accept a whole run.")
    now, ground = entries_of(results), ground_of(results)
    broken = [case for case, entry in now.items() if not math.isfinite(entry.worst + entry.typical)]
    if broken or not now:
        raise LedgerError(f"{broken[0] if broken else 'the run'} has no finite ratio: accept a run that holds.")
    before = onto.baseline(ground) or Baseline(ground, (), ())
    dropped = tuple(record.case for record in before.records if record.case not in now)
    worse = [] if not before.accepted else [item for item in onto.worse(results) if item[0] not in dropped]
    if worse:
        case, text = worse[0]
        raise LedgerError(
            f"{case} {text}: what is recorded is never raised; mend it, or name it as a known failure with its reason."
        )
    if dropped and not drop_missing:
        raise LedgerError(f"{dropped[0]} is recorded and was not measured: measure it, or give --drop-missing.")
    first = {record.case: record.first for record in before.records}
    best = {record.case: record.best for record in before.records}
    records = tuple(
        Record(case, first.get(case, entry), _least(best.get(case, entry), entry)) for case, entry in now.items()
    )
    moment = (when or datetime.now(UTC)).isoformat(timespec="seconds")
    commit = str(results.environment["commit"]) + (" with uncommitted changes" if results.environment["dirty"] else "")
    mark = Acceptance(digest_of(results), results.started, commit, who, moment, why, dropped)
    baseline = replace(before, accepted=(*before.accepted, mark), records=records)
    return Ledger((*(one for one in onto.baselines if one.ground != ground), baseline))


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


def ground_of(results: Results) -> str:
    """What must be the same for ratios to be comparable: subject, profile, torch, machine and devices.

    The version of a kernel or of Python does not matter to a number; the vector instructions that torch uses do.
    """
    environment = results.environment
    used = {row.device for row in results.measurements if row.device}
    listed = cast("list[dict[str, Any]]", environment["devices"])
    names = [str(item["name"]) for item in listed if item["name"] and str(item["device"]).split(":")[0] in used]
    machine = str(environment.get("machine", "a machine that the run does not name"))
    return " / ".join(
        [f"{results.profile} of {results.subject}", f"torch {environment['torch']}", machine, *dict.fromkeys(names)]
    )


def digest_of(results: Results) -> str:
    """SHA-256 over the rows in any order: it tells one run from another, for no two take the same times."""
    lines = sorted(json.dumps(encode(row), sort_keys=True) for row in results.measurements)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_ledger(ledger: Ledger, path: str | Path) -> Path:
    """Write a ledger, an old one replaced whole.

    Raises:
        verify.result.ResultsError: if the folder cannot be written.
    """
    content = encode(ledger)
    data = {"schema": SCHEMA, "version": VERSION, "digest": _digest(content), **content}
    return write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", path)


def read_ledger(path: str | Path) -> Ledger:
    """Read a ledger.

    Raises:
        LedgerError: if it is not there, is damaged, is of another version, or was changed by hand.
    """
    name = printable(str(path))
    try:
        data = read_json(path, "ledger", "make one with revdeq ledger accept")
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise LedgerError(f"{name} is no ledger: give one that revdeq ledger accept wrote.")
        values = cast("dict[str, Any]", data)
        if values.get("version") != VERSION:
            raise LedgerError(
                f"{name} has version {values.get('version')!r}, this revdeq reads {VERSION}: accept a run again."
            )
        content = {key: value for key, value in values.items() if key not in ("schema", "version", "digest")}
        ledger = decode(content, Ledger, "ledger")
    except ResultsError as error:
        raise LedgerError(str(error) if name in str(error) else f"{name}: {error}") from error
    if values.get("digest") != _digest(content):
        raise LedgerError(f"{name} was changed by hand: take it back, and change it with revdeq ledger accept alone.")
    return ledger


def _least(left: Entry, right: Entry) -> Entry:
    return Entry(min(left.worst, right.worst), min(left.typical, right.typical))


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _instant(text: str) -> datetime | str:
    """The moment that a time says, however it is written; the text itself where it says none."""
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return text.strip()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
