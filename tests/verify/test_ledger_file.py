"""The ledger: a case that loses a bit is named, and a run is never its own baseline."""

import json
import math
from dataclasses import replace

import pytest

from verify.gate import judge
from verify.ledger import LedgerError, environment_name, read_ledger, record, write_ledger
from verify.plan import Plan
from verify.result import Measurement, Results


ENVIRONMENT = {
    "commit": "abc",
    "dirty": False,
    "source": "0",
    "revdeq": "0.1",
    "python": "3.11",
    "torch": "2.13",
    "platform": "Linux",
    "devices": [{"device": "cpu", "name": "x86_64", "available": True, "reason": ""}],
    "threads": 1,
    "seed": 0,
}


def results(*ratios, started="2026-01-01T00:00:00+00:00"):
    return Results(
        profile="quick",
        command="revdeq verify",
        started=started,
        finished=started,
        environment=ENVIRONMENT,
        subject="revdeq",
        devices=("cpu",),
        complete=True,
        measurements=tuple(
            Measurement(check="gradient", case="a", device="cpu", leaf=str(place), measured=ratio, unit="ratio R")
            for place, ratio in enumerate(ratios)
        ),
    )


EMPTY = Plan(profile="quick", criteria={}, rows={})
LATER = "2026-01-02T00:00:00+00:00"


def test_environment_names_torch_machine_and_device():
    assert environment_name(results(1.0)) == "torch 2.13 / Linux / x86_64"


def test_ledger_round_trips(tmp_path):
    ledger = record(results(3.0, 1.0))
    assert read_ledger(write_ledger(ledger, tmp_path / "ledger.json")) == ledger


@pytest.mark.parametrize(("before", "after", "holds"), [(2.0, 2.7, True), (2.0, 4.1, False), (0.01, 0.9, True)])
def test_case_may_lose_half_a_typical_bit_and_no_more(before, after, holds):
    worse = record(results(before)).worse(results(after, started=LATER))
    assert (worse == []) is holds


def test_worst_ratio_may_lose_one_bit():
    many = [1.0] * 99
    ledger = record(results(1.5, *many))
    assert ledger.worse(results(2.9, *many, started=LATER)) == []
    assert [case for case, _ in ledger.worse(results(3.1, *many, started=LATER))] == ["a"]


def test_nan_is_worse():
    assert record(results(2.0)).worse(results(math.nan, started=LATER)) != []


def test_lost_case_and_unknown_environment_are_said():
    ledger = record(results(2.0))
    assert ledger.worse(results(started=LATER)) != []
    other = replace(results(2.0, started=LATER), environment=ENVIRONMENT | {"torch": "9.9"})
    assert "nothing is recorded for torch 9.9" in ledger.worse(other)[0][1]


def test_run_is_never_its_own_baseline():
    run = results(2.0)
    with pytest.raises(LedgerError, match="cannot be its own baseline"):
        record(run).worse(run)


def test_gate_closes_on_a_case_that_became_worse():
    run = results(8.0, started=LATER)
    failures = judge(run, EMPTY, record(results(2.0))).failures
    assert "ledger" in {finding.check for finding in failures}
    assert "ledger" not in {finding.check for finding in judge(run, EMPTY).failures}


def test_incomplete_or_broken_run_is_not_recorded():
    with pytest.raises(LedgerError, match="incomplete"):
        record(replace(results(2.0), complete=False))
    with pytest.raises(LedgerError, match="not finite"):
        record(results(math.inf))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no ledger"),
        ("{", "cannot be read"),
        ("[]", "is no ledger"),
        (json.dumps({"schema": "revdeq-ledger", "version": 2}), "has version 2"),
        (json.dumps({"schema": "revdeq-ledger", "version": 1, "runs": {}}), "is damaged"),
    ],
)
def test_bad_ledger_is_refused(tmp_path, content, message):
    path = tmp_path / "ledger.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LedgerError, match=message):
        read_ledger(path)
