"""Files of JSON: read strictly and whole, or refused in one sentence whatever they hold; written whole or not at all.

A file that is read may come from anywhere. What stands in one is at most `MOST_BYTES` of a regular file, nested at most
`MOST_DEPTH` deep, with integers of 64 bits, finite numbers, and strings that are one line of printable characters, so
that nothing in it can stall a reader or pass for a reader's own words.
"""

from __future__ import annotations

import json
import math
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

from verify.result import ResultsError


MOST_BYTES = 1 << 28
MOST_DEPTH = 16
MOST_INTEGER = 2**63 - 1
_DIGITS = 20


def read_json(path: str | Path, what: str, make: str) -> object:
    """The JSON value of a file.

    Args:
        path: of the file.
        what: what it should be, for messages: "results file".
        make: how to come by one, for messages.

    Raises:
        ResultsError: if it is not there, is no regular file, is too large, is not UTF-8, is not strict JSON, or holds
            what the module's docstring excludes.
    """
    path = Path(path)
    try:
        text = _read(path).decode("utf-8")
    except FileNotFoundError:
        raise ResultsError(f"there is no {what} at {printable(str(path))}: {make}.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ResultsError(f"{printable(str(path))} cannot be read as a {what} ({why}): {make}.") from error
    try:
        data = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
            object_pairs_hook=_object,
        )
        _check(data)
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ResultsError(f"{printable(str(path))} is truncated or not JSON ({why}): {make}.") from error
    except RecursionError as error:
        raise ResultsError(f"{printable(str(path))} is nested too deeply for a {what}: {make}.") from error
    except ResultsError as error:
        raise ResultsError(f"{printable(str(path))}: {error}: {make}.") from error
    return data


def write_text(text: str, path: str | Path) -> Path:
    """Write `text` to `path` through a temporary file in the same folder and `os.replace`.

    Raises:
        ResultsError: if the folder cannot be made or written.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_prefix(path.name), dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ResultsError(
            f"{printable(str(path))} cannot be written ({error.strerror or error}): "
            "choose an output folder that can be."
        ) from error
    return path


def remove_unfinished(folder: Path, of: Callable[[str], bool]) -> None:
    """Remove what writers left that were killed in `write_text`, where `of` says that the file's name is ours."""
    for path in folder.glob(".*.*") if folder.is_dir() else ():
        name, _, _ = path.name[1:].rpartition(".")
        if of(name) and path.name.startswith(_prefix(name)):
            path.unlink(missing_ok=True)


def printable(text: str) -> str:
    r"""`text` with all that does not print written as an escape, so that it is one line: a line feed becomes \n."""
    if text.isprintable():
        return text
    letters = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return "".join(letters)


def _prefix(name: str) -> str:
    return f".{name}."


def _read(path: Path) -> bytes:
    # Not blocking, because a pipe without a writer would otherwise be waited for.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise OSError("it is a folder")
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is no regular file")
        content = b"" if found.st_size > MOST_BYTES else stream.read(MOST_BYTES + 1)
    if found.st_size > MOST_BYTES or len(content) > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return content


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _check(data: object) -> None:
    """Refuse what is nested too deeply, and strings that are not one line of printable characters."""
    waiting: list[tuple[object, int]] = [(data, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            if not value.isprintable():
                raise ResultsError(f"a string holds characters that do not print ({printable(value)[:60]})")
        elif isinstance(value, (dict, list)):
            if depth >= MOST_DEPTH:
                raise ResultsError(f"it is nested more than {MOST_DEPTH} deep")
            if isinstance(value, dict):
                inner = cast("dict[str, object]", value)
                waiting += [(item, depth + 1) for item in (*inner.keys(), *inner.values())]
            else:
                waiting += [(item, depth + 1) for item in cast("list[object]", value)]


def _integer(text: str) -> int:
    if len(text) > _DIGITS or abs(int(text)) > MOST_INTEGER:
        raise ResultsError(f"an integer of {len(text)} characters has more than 64 bits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ResultsError(f"the number {text[:30]} is too large for float64")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ResultsError(f"the bare word {name} is not JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ResultsError("an object holds the same key twice")
    return values
