"""The folder of a run: one run at a time, and results that lie there already are moved aside, never overwritten."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from verify.json_file import printable, remove_unfinished
from verify.result import ResultsError


@contextmanager
def claimed(out: Path, results: str) -> Generator[None]:
    """Keep other runs out of a folder, which is made if need be, while the block runs; the claim ends with the process.

    Args:
        out: the folder.
        results: name of its results file.

    Raises:
        ResultsError: if it cannot be written, or another run holds it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise ResultsError(
            f"the folder {printable(str(out))} cannot be written ({error.strerror or error}): choose another --out."
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResultsError(
                f"another run measures into {printable(str(out))} ({error.strerror}): wait for its end, or choose "
                "another --out."
            ) from error
        remove_unfinished(out, lambda name: name == results)
        yield
    finally:
        os.close(handle)


def set_aside(path: Path) -> Path | None:
    """Rename a file that is there to the first free name of "results.1.json", "results.2.json", ...

    Returns:
        Its new path, None if there was no file.

    Raises:
        ResultsError: if it cannot be renamed.
    """
    if not os.path.lexists(path):
        return None
    names = (path.with_name(f"{path.stem}.{place}{path.suffix}") for place in count(1))
    free = next(name for name in names if not os.path.lexists(name))
    try:
        path.rename(free)
    except OSError as error:
        raise ResultsError(
            f"{printable(str(path))} cannot be moved aside ({error.strerror or error}): choose another --out."
        ) from error
    return free
