"""Shards: one run, measured in pieces on several machines and put together again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

from verify.profiles import PROFILES
from verify.result import (
    FAILED_TASK,
    SUBJECT_FILES,
    Curve,
    FaultRecord,
    Measurement,
    NotMeasured,
    Results,
    ResultsError,
)
from verify.run.parts import Part
from verify.run.tasks import longest_first
from verify.tasks import Task


SHARD = "shard"
"""Key of the environment block under which a shard says which it is and what its tasks gave."""

_MAY_DIFFER = {"dirty", "platform", "machine", "processors", "threads", "devices", SUBJECT_FILES, SHARD}
"""What shards may differ in: a worker has one thread on any machine, and ratios are to each dtype's own rounding."""

_OTHERS = "the other shards"


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a run's tasks.

    Args:
        place: which, from 1.
        of: how many.
    """

    place: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that "2/4" names.

        Raises:
            ValueError: if it names none.
        """
        found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text, re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError(f"shard is {text!r}, allowed is 1/N to N/N: give one like 2/4.")
        return cls(int(found[1]), int(found[2]))

    def share(self, planned: Sequence[Task]) -> tuple[Task, ...]:
        """The tasks of this shard in the order of the plan; the long ones are dealt out first, one to each."""
        own = set(longest_first(planned)[self.place - 1 :: self.of])
        return tuple(task for task in planned if task in own)

    @property
    def left_out(self) -> NotMeasured:
        """What is said of the rest."""
        return NotMeasured(what=_OTHERS, why=f"this is shard {self.place} of {self.of}: merge it with them")

    def describe(self, done: Mapping[Task, Part]) -> dict[str, Any]:
        """What the results of a shard say of themselves: which they are, and how much each task gave."""
        counts = [[task.name, len(part.measurements), len(part.curves)] for task, part in done.items()]
        return {"place": self.place, "of": self.of, "tasks": counts}


def is_shard(results: Results, shard: Shard | None) -> bool:
    """Whether results are those of a shard, or of a whole run where `shard` is None."""
    said = results.environment.get(SHARD)
    if not isinstance(said, dict):
        return said is None and shard is None
    found = cast("dict[str, Any]", said)
    return shard is not None and (found.get("place"), found.get("of")) == (shard.place, shard.of)


def merge_shards(shards: Sequence[Results], command: str) -> Results:
    """The run that shards are pieces of, as if it had been measured at once.

    Args:
        shards: every shard of one run, once, in any order.
        command: what put them together, for the record.

    Raises:
        ResultsError: if they are not the shards of one run, one is missing or there twice, or one contradicts itself.
    """
    if not shards:
        raise ResultsError("no shard was given: give the results of each revdeq verify --shard PLACE/OF.")
    marks = [_mark(one) for one in shards]
    count = marks[0]["of"]
    places = sorted(mark["place"] for mark in marks)
    if any(mark["of"] != count for mark in marks) or places != list(range(1, count + 1)):
        said = ", ".join(f"{mark['place']}/{mark['of']}" for mark in marks)
        raise ResultsError(f"the shards {said} were given: give 1/{count} to {count}/{count}, each once.")
    first = shards[0]
    for one in shards:
        _same("profile", first.profile, one.profile)
        _same("subject", first.subject, one.subject)
        _same("devices", first.devices, one.devices)
        for key in sorted({*first.environment, *one.environment} - _MAY_DIFFER):
            _same(key, first.environment.get(key), one.environment.get(key))
    pieces: dict[str, tuple[tuple[Measurement, ...], tuple[Curve, ...]]] = {}
    for one, mark in zip(shards, marks, strict=True):
        for name, piece in _pieces(one, mark).items():
            if name in pieces:
                raise ResultsError(f"the task {name} was measured by two shards: measure them again.")
            pieces[name] = piece
    if first.profile not in PROFILES:
        raise ResultsError(f"the shards are of profile {first.profile!r}: give those of {', '.join(PROFILES)}.")
    planned = [task.name for task in PROFILES[first.profile].tasks(first.devices)]
    foreign = sorted(set(pieces) - set(planned))
    if foreign:
        raise ResultsError(f"the task {foreign[0]} is none of profile {first.profile}: merge where it was measured.")
    left = [item for one in shards for item in one.not_measured if item.what != _OTHERS]
    failed = [item for item in left if item.failed]
    known = {*pieces, *(item.what.removeprefix(FAILED_TASK) for item in failed)}
    lost = [name for name in planned if name not in known]
    if lost:
        raise ResultsError(f"the task {lost[0]} was measured by no shard: measure them again.")
    records: list[tuple[FaultRecord, ...]] = [one.selftest for one in shards if one.selftest is not None]
    return Results(
        profile=first.profile,
        command=command,
        started=min(one.started for one in shards),
        finished=max(one.finished for one in shards),
        environment=_environment(shards),
        subject=first.subject,
        devices=first.devices,
        complete=not failed,
        measurements=tuple(row for name in planned if name in pieces for row in pieces[name][0]),
        curves=tuple(curve for name in planned if name in pieces for curve in pieces[name][1]),
        not_measured=tuple(dict.fromkeys([*failed, *(item for item in left if not item.failed)])),
        selftest=records[0] if records else None,
    )


def _mark(results: Results) -> dict[str, Any]:
    mark = results.environment.get(SHARD)
    found = cast("dict[str, Any]", mark) if isinstance(mark, dict) else {}
    kinds = {"place": int, "of": int, "tasks": list}
    if any(type(found.get(key)) is not kind for key, kind in kinds.items()):
        raise ResultsError(
            f"a run of {results.profile} that began {results.started} is no shard: give results of "
            "revdeq verify --shard PLACE/OF."
        )
    return found


def _pieces(results: Results, mark: Mapping[str, Any]) -> dict[str, tuple[tuple[Measurement, ...], tuple[Curve, ...]]]:
    """What each task of a shard gave, from the numbers of rows and curves that it says."""
    try:
        names, rows, curves = zip(*[(str(a), int(b), int(c)) for a, b, c in mark["tasks"]], strict=True)
    except (TypeError, ValueError):
        names, rows, curves = (), (), ()
    ends = [*accumulate(rows)], [*accumulate(curves)]
    sums = (sum(rows), sum(curves))
    if sums != (len(results.measurements), len(results.curves)) or min((0, *rows, *curves)) < 0:
        raise ResultsError(f"shard {mark['place']}/{mark['of']} does not hold what it says: measure it again.")
    return {
        name: (results.measurements[a - m : a], results.curves[b - n : b])
        for name, m, n, a, b in zip(names, rows, curves, *ends, strict=True)
    }


def _environment(shards: Sequence[Results]) -> dict[str, Any]:
    """That of the first shard, with all machines and files named."""
    blocks = [one.environment for one in shards]
    files: dict[str, str] = {}
    for block in blocks:
        for path, digest in cast("dict[str, str]", block.get(SUBJECT_FILES, {})).items():
            _same(path, files.setdefault(path, digest), digest)
    joined = {
        key: " + ".join(dict.fromkeys(str(block[key]) for block in blocks)) if key in blocks[0] else None
        for key in ("platform", "machine")
    }
    devices = [device for block in blocks for device in block["devices"]]
    merged = {
        **blocks[0],
        **{key: value for key, value in joined.items() if value is not None},
        "dirty": any(block["dirty"] for block in blocks),
        "devices": [device for place, device in enumerate(devices) if device not in devices[:place]],
        **({SUBJECT_FILES: files} if SUBJECT_FILES in blocks[0] else {}),
    }
    return {key: value for key, value in merged.items() if key != SHARD}


def _same(name: str, first: object, other: object) -> None:
    if first != other:
        raise ResultsError(
            f"the shards differ in {name} ({str(first)[:60]} and {str(other)[:60]}): measure them all of one commit, "
            "with the same libraries."
        )
