"""What finished tasks leave behind until their run is whole: one file each, so that an interruption loses none."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verify.json_file import read_json, remove_unfinished, write_text
from verify.result import Curve, FaultRecord, Measurement, ResultsError
from verify.result_file import decode, encode
from verify.run.files import unchanged


_NAME = re.compile(r"[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class Part:
    """What one task gave.

    Args:
        measurements: its rows.
        curves: its curves.
        selftest: the records of the selftest task, None for the others.
        files: files of the subject that were loaded when it was finished, with their digests.
        started: when the run began that measured it, ISO 8601 in UTC; "" before the run keeps it.
    """

    measurements: tuple[Measurement, ...]
    curves: tuple[Curve, ...] = ()
    selftest: tuple[FaultRecord, ...] | None = None
    files: dict[str, str] = field(default_factory=dict[str, str])
    started: str = ""


def encode_part(part: Part, files: Mapping[str, str]) -> dict[str, Any]:
    """A part as JSON values, with the files of its subject."""
    return {**encode(part), "files": dict(files)}


def decode_part(data: object) -> Part:
    """A part from JSON values.

    Raises:
        ResultsError: if a key or a type is not a part's.
    """
    return decode(data, Part, "part")


class Parts:
    """The parts of one run in a folder that other runs may share.

    Args:
        folder: where they are; it is made when the first is written.
        key: digest of everything that a number may depend on, the task and the subject's files apart.
        files: the files that loading the subject loads now.
    """

    def __init__(self, folder: Path, key: str, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._key = key
        self._files = files
        remove_unfinished(folder, lambda name: _NAME.fullmatch(name) is not None)

    def read(self, name: str) -> Part | None:
        """The part of the task of this name, None where it is not there whole or its subject has changed since."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            part = decode_part(read_json(path, "part of a run", "measure it again"))
        except ResultsError:
            # Written in one piece, so this is not ours or was damaged since: measure it again.
            return None
        return part if unchanged(part.files, self._files) else None

    def write(self, name: str, part: Part) -> None:
        """Write a part, whole or not at all.

        Raises:
            ResultsError: if it cannot be written.
        """
        write_text(json.dumps(encode(part), allow_nan=False) + "\n", self._path(name))

    def forget(self, names: Iterable[str]) -> None:
        """Remove the parts of these tasks and no others, and the folder if nothing else is in it."""
        for name in names:
            self._path(name).unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, name: str) -> Path:
        return self._folder / (hashlib.sha256(f"{name} {self._key}".encode()).hexdigest()[:32] + ".json")
