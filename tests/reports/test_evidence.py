"""Recorded runs are read with their provenance, and refused without it."""

from __future__ import annotations

import pytest

from reports.errors import ReportError
from reports.evidence import EVIDENCE, recorded_results
from verify.result import ResultsError
from verify.result_file import write_results


def test_recorded_runs_of_this_distribution_can_be_read():
    assert len(recorded_results()) == len(list(EVIDENCE.glob("*.json")))


def test_recorded_runs_come_by_name(build_results, tmp_path):
    write_results(build_results(profile="full"), tmp_path / "b.json")
    write_results(build_results(profile="quick"), tmp_path / "a.json")
    assert [run.profile for run in recorded_results(tmp_path)] == ["quick", "full"]


@pytest.mark.parametrize("changes", [{"commit": "unknown"}, {"dirty": True}])
def test_recording_that_cannot_be_repeated_is_refused(build_results, synthetic_run, tmp_path, changes):
    write_results(build_results(environment={**synthetic_run.environment, **changes}), tmp_path / "a.json")
    with pytest.raises(ReportError, match="clean checkout"):
        recorded_results(tmp_path)


def test_truncated_recording_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"schema": ')
    with pytest.raises(ResultsError, match="truncated"):
        recorded_results(tmp_path)
