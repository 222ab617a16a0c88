"""Progress is a few plain lines in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from reports.commands.progress import progress


def lines_of(total):
    file = io.StringIO()
    with progress("verify", Console(file=file, force_terminal=False, width=200)) as show:
        for done in range(total + 1):
            show(done, total, f"case {done}")
    return file.getvalue().splitlines()


@pytest.mark.parametrize("total", [0, 1, 3, 1000])
def test_plain_progress_is_at_most_a_line_per_tenth_and_says_the_end(total):
    lines = lines_of(total)
    assert 1 <= len(lines) <= 11
    assert lines[-1] == f"verify: {total} of {total} (case {total})"


def test_progress_on_a_terminal_draws_a_bar():
    file = io.StringIO()
    with progress("verify", Console(file=file, force_terminal=True, width=100)) as show:
        show(3, 7, "tanh")
    assert "3/7" in file.getvalue()
