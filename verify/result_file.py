"""The file of a run's results: one versioned JSON file.

It is strict JSON (RFC 8259, `verify.json_file`): a float that JSON cannot hold is written as "nan", "inf" or "-inf" and
read back as that float, unknown and missing keys are errors.
"""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from verify.digest import digest_of
from verify.json_file import printable, read_json, write_text
from verify.result import Results, ResultsError


SCHEMA = "revdeq-results"
VERSION = 2
MOST_NAMED = 5
"""Unknown or missing keys that a message names."""

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

T = TypeVar("T")


@dataclass(frozen=True)
class _Path:
    """Where in the file a value stands, for error messages."""

    text: str = field(default="results")

    def __truediv__(self, part: str | int) -> _Path:
        return _Path(f"{self.text}[{part}]" if isinstance(part, int) else f"{self.text}.{part}")


def to_json(results: Results) -> dict[str, Any]:
    """Plain JSON values of `results`, schema, version and digest first."""
    body = encode(results)
    return {"schema": SCHEMA, "version": VERSION, "digest": digest_of(body), **body}


def from_json(data: object) -> Results:
    """Results from plain JSON values.

    Raises:
        ResultsError: if the schema, the version, a key or a type is not the one that this version writes, or the digest
            is not that of the rest.
    """
    if not isinstance(data, dict):
        raise ResultsError("a results file holds one JSON object, not a list or a value: write it with revdeq verify.")
    values = cast("dict[str, Any]", data)
    if values.get("schema") != SCHEMA:
        raise ResultsError(f"schema is {values.get('schema')!r}, not {SCHEMA!r}: give a file that revdeq verify wrote.")
    if type(values.get("version")) is not int or values["version"] != VERSION:
        raise ResultsError(
            f"schema version is {values.get('version')!r} and this revdeq reads version {VERSION}: "
            "read it with the revdeq that wrote it, or run revdeq verify again."
        )
    body = {key: value for key, value in values.items() if key not in ("schema", "version", "digest")}
    results = decode(body, Results)
    if values.get("digest") != digest_of(body):
        raise ResultsError(
            "the digest is not that of the rest of the file, so it was changed after a run wrote it: run revdeq verify "
            "again."
        )
    return results


def read_results(path: str | Path) -> Results:
    """Read a results file.

    Raises:
        ResultsError: if the file is not there or is damaged (`verify.json_file`), or is of another schema or version.
    """
    data = read_json(path, "results file", "make one with revdeq verify --out DIR")
    try:
        return from_json(data)
    except ResultsError as error:
        raise ResultsError(f"{printable(str(path))}: {error}") from error


def write_results(results: Results, path: str | Path) -> Path:
    """Write a results file; an existing one is replaced whole, or left untouched if anything goes wrong.

    Returns:
        The path written.

    Raises:
        ResultsError: if the folder cannot be made or written.
    """
    return write_text(_one_row_a_line(to_json(results)) + "\n", path)


def _one_row_a_line(data: dict[str, Any]) -> str:
    """JSON with each row, curve and record on a line of its own: small, and lines can be compared."""
    parts: list[str] = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(row, allow_nan=False) for row in cast("list[object]", value))
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(parts) + "\n}"


def encode(record: object) -> dict[str, Any]:
    """The JSON values of a record of `verify.result`, or of any dataclass of such fields.

    Its strings become one line of printable characters each, whatever an exception or a name held.
    """
    return cast("dict[str, Any]", _encode(record))


def decode(data: object, kind: type[T], name: str = "results") -> T:
    """A record from its JSON values.

    Args:
        data: what `encode` gave.
        kind: the dataclass.
        name: what it is called in messages.

    Raises:
        ResultsError: if a key or a type is not the record's.
    """
    return _decode(data, kind, _Path(name))


def _encode(value: object) -> object:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {printable(key): _encode(item) for key, item in cast("dict[str, object]", value).items()}
    return {item.name: _encode(getattr(value, item.name)) for item in fields(cast("Any", value))}


def _decode(value: object, kind: Any, path: _Path) -> Any:
    if kind is Any or kind is object:
        return value
    origin = get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:
        options = get_args(kind)
        if value is None:
            if type(None) not in options:
                raise _wrong(path, value, kind)
            return None
        (only,) = (option for option in options if option is not type(None))
        return _decode(value, only, path)
    if origin is Literal:
        if value not in get_args(kind):
            raise _wrong(path, value, " or ".join(get_args(kind)))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(path, value, "a list")
        return tuple(
            _decode(item, get_args(kind)[0], path / place) for place, item in enumerate(cast("list[object]", value))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(path, value, "an object")
        return cast("dict[str, Any]", value)
    if kind is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(path, value, 'a number, "nan", "inf" or "-inf"')
        return float(value)
    if kind in (str, bool, int):
        if type(value) is not kind:
            raise _wrong(path, value, {str: "a string", bool: "true or false", int: "an integer"}[kind])
        return value
    return _decode_object(value, kind, path)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the types of the fields of a record, which are resolved once and not once a row."""
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(cast("Any", kind))}


def _decode_object(value: object, kind: type[T], path: _Path) -> T:
    if not isinstance(value, dict):
        raise _wrong(path, value, "an object")
    values = cast("dict[str, object]", value)
    hints = _hints(kind)
    unknown = sorted(set(values) - set(hints))[:MOST_NAMED]
    missing = [name for name in hints if name not in values][:MOST_NAMED]
    if unknown or missing:
        raise ResultsError(
            f"{path.text} lacks {missing} and has unknown {unknown}: "
            f"version {VERSION} of the schema has exactly its own keys; run revdeq verify again."
        )
    return kind(**{name: _decode(values[name], hint, path / name) for name, hint in hints.items()})


def _wrong(path: _Path, value: object, allowed: object) -> ResultsError:
    shown = repr(value)
    return ResultsError(
        f"{path.text} is {shown if len(shown) <= 60 else shown[:57] + '...'}, allowed is {allowed}: "
        "run revdeq verify again instead of editing the file."
    )
