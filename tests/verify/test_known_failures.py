"""A known failure is set apart until its day, and never longer than it fails."""

import json
from dataclasses import replace
from datetime import date

import pytest

from verify.gate import Finding, Judgement
from verify.known_failures import KnownFailure, excuse, read_known_failures
from verify.result import Measurement, ResultsError


ROW = Measurement(check="gradient", case="a", leaf="z0", measured=11.0)
DAY = date(2026, 6, 1)
KNOWN = KnownFailure(check="gradient", case="a", leaf="z0", reason="issue 7", expires="2026-06-01")


def finding(row, passed):
    return Finding(check=row.check, measurement=row, criterion=None, passed=passed, allowed="<= 10", why="too rough")


def judgement(*findings):
    failed = sum(one.passed is False for one in findings)
    verdict = "falls short" if failed else "holds"
    return Judgement(verdict=verdict, findings=findings, totals={"failed": failed, "no-power": 0})


FAILING = finding(ROW, False)
PASSING = finding(replace(ROW, case="b"), True)


def test_known_failure_is_counted_and_neither_passed_nor_failed():
    left = excuse(judgement(FAILING, PASSING), [KNOWN], DAY)
    assert left.verdict == "holds"
    assert left.findings[0].passed is None
    assert left.findings[0].why == "known until 2026-06-01: issue 7 (too rough)"
    assert left.totals == {"failed": 0, "no-power": 0, "known": 1}


@pytest.mark.parametrize(
    ("known", "day", "said"),
    [
        (KNOWN, date(2026, 6, 2), "its day 2026-06-01 is over"),
        (replace(KNOWN, case="b"), DAY, "no such row fails any more"),
        (replace(KNOWN, leaf="z1"), DAY, "no such row fails any more"),
    ],
)
def test_failure_that_is_over_or_another_one_closes_the_gate(known, day, said):
    left = excuse(judgement(FAILING, PASSING), [known], day)
    assert left.verdict == "falls short"
    assert any(said in one.why for one in left.failures)


def test_failure_that_is_mended_must_leave_the_file():
    left = excuse(judgement(finding(ROW, True)), [KNOWN], DAY)
    assert left.verdict == "falls short"


def test_other_failures_and_those_of_the_run_close_the_gate_still():
    other = finding(replace(ROW, case="c"), False)
    whole = Finding(check="run", measurement=None, criterion=None, passed=False, allowed="", why="interrupted")
    for one in (other, whole):
        assert excuse(judgement(FAILING, one, PASSING), [replace(KNOWN, leaf="")], DAY).verdict == "falls short"


def test_file_is_read_and_what_is_wrong_in_it_is_said(tmp_path):
    path = tmp_path / "known.json"
    entry = {"check": "gradient", "case": "a", "leaf": "z0", "reason": "issue 7", "expires": "2026-06-01"}

    def write(**changes):
        data = {"schema": "revdeq-known-failures", "version": 1, "failures": [entry | changes]}
        path.write_text(json.dumps(data))
        return path

    assert read_known_failures(write()) == (KNOWN,)
    for changes, message in (
        ({"reason": " "}, "lacks its check, case or reason"),
        ({"expires": "some day"}, "write one like 2026-12-31"),
        ({"extra": 1}, "unknown"),
    ):
        with pytest.raises(ResultsError, match=message):
            read_known_failures(write(**changes))
    path.write_text("{}")
    with pytest.raises(ResultsError, match="no file of known failures"):
        read_known_failures(path)
