"""The console entry `revdeq`: says in one sentence what is missing where the command line's libraries are not there."""

from __future__ import annotations

import logging
import signal
import sys
from importlib.util import find_spec


_NEEDED = ("typer", "rich", "jinja2", "matplotlib", "pandas", "pyarrow", "numpy", "scipy", "mpmath", "flint", "sklearn")
COULD_NOT_RUN = 2


def main() -> None:
    """Run the command line; exit status 0 holds, 1 falls short, 2 could not run."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"revdeq: the command line needs {', '.join(missing)}, which the core does not install: "
            "run pip install 'revdeq[report]'.",
            file=sys.stderr,
        )
        raise SystemExit(COULD_NOT_RUN)
    asked = False

    def end(*_: object) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    # A run that is asked to end ends as an interrupted one does: its workers with it, and what is finished is kept.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, end)
    try:
        from reports.cli import app

        app()
    except (KeyboardInterrupt, SystemExit):
        if asked:
            # Whatever the command line makes of an interruption, its status must not read as a verdict.
            raise SystemExit(COULD_NOT_RUN) from None
        raise
    except Exception:
        # Python's own status for a crash is 1, which here would read as the verdict "falls short".
        logging.getLogger("revdeq").exception("revdeq: a defect of the program, which could not go on:")
        raise SystemExit(COULD_NOT_RUN) from None
