"""Reads the recorded runs that lie in this folder."""

from __future__ import annotations

from pathlib import Path

from reports.errors import ReportError
from verify.result import Results
from verify.result_file import read_results


EVIDENCE = Path(__file__).parent
"""The folder of the recorded runs."""


def recorded_results(folder: Path = EVIDENCE) -> tuple[Results, ...]:
    """Every recorded run, by name of its file.

    Args:
        folder: where the files `*.json` lie.

    Returns:
        The runs; none where nothing was recorded.

    Raises:
        verify.result.ResultsError: a file is truncated, or of another version.
        ReportError: a recording without a commit, or of code that was not committed: no one could repeat it.
    """
    found: list[Results] = []
    for path in sorted(folder.glob("*.json")):
        results = read_results(path)
        commit = str(results.environment["commit"])
        if commit == "unknown" or results.environment["dirty"]:
            raise ReportError(
                f"{path} was recorded with commit {commit} and uncommitted changes "
                f"{'present' if results.environment['dirty'] else 'absent'}, allowed is a known commit without "
                "changes: record it again from a clean checkout."
            )
        found.append(results)
    return tuple(found)
