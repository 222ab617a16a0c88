"""How far a long command is: a bar on a terminal, a plain line for every tenth elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


Report: TypeAlias = Callable[[int, int, str], None]
"""Called with the number of parts done, the number of all, and what was done last."""

_TENTHS = 10
QUIET_SECONDS = 60.0
"""After so much silence a plain line says what runs."""


@contextmanager
def progress(title: str, console: Console | None = None) -> Generator[Report]:
    """Show progress on standard error while the block runs.

    Args:
        title: what is being done.
        console: where to show it; standard error by default.

    Yields:
        The function to report to.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _plain(title, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title}: {what}")

        yield show


def _plain(title: str, console: Console) -> Report:
    said, last = -1, time.monotonic()

    def say(done: int, total: int, what: str) -> None:
        nonlocal said, last
        tenth = _TENTHS if total == 0 else _TENTHS * done // total
        if tenth > said or time.monotonic() - last >= QUIET_SECONDS:
            said, last = tenth, time.monotonic()
            console.out(f"{title}: {done} of {total} ({what})", highlight=False)

    return say
