"""The ledger: a case that loses a bit is named, and a run is never its own baseline."""

import json
import math
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from verify.gate import judge
from verify.ledger import (
    TYPICAL_BITS,
    WORST_BITS,
    Ledger,
    LedgerError,
    accept,
    digest_of,
    ground_of,
    read_ledger,
    write_ledger,
)
from verify.plan import Plan
from verify.result import Measurement, Results


ENVIRONMENT = {
    "commit": "abc",
    "dirty": False,
    "source": "0",
    "revdeq": "0.1",
    "python": "3.11",
    "torch": "2.13",
    "platform": "Linux-6.1.0-18-amd64",
    "machine": "Linux x86_64 AVX2",
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
            Measurement(
                check="gradient",
                case="a",
                device="cpu",
                leaf=str(place),
                measured=ratio,
                unit="ratio R",
                seconds=SECONDS[started],
            )
            for place, ratio in enumerate(ratios)
        ),
    )


EMPTY = Plan(profile="quick", criteria={}, rows={})
FIRST, LATER = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
SECONDS = defaultdict(lambda: 0.5, {FIRST: 0.25})


def record(run, onto=None):
    return accept(run, onto or Ledger(), who="a maintainer", why="a test")


def test_ground_is_what_numbers_depend_on():
    assert ground_of(results(1.0)) == "quick of revdeq / torch 2.13 / Linux x86_64 AVX2 / x86_64"
    patched = ENVIRONMENT | {"platform": "Linux-6.1.0-19-amd64", "python": "3.12"}
    assert ground_of(replace(results(1.0), environment=patched)) == ground_of(results(1.0))
    for change in ({"profile": "full"}, {"subject": "another"}, {"environment": ENVIRONMENT | {"machine": "other"}}):
        assert ground_of(replace(results(1.0), **change)) != ground_of(results(1.0))


def test_ledger_round_trips(tmp_path):
    ledger = record(results(3.0, 1.0))
    assert read_ledger(write_ledger(ledger, tmp_path / "ledger.json")) == ledger


def test_acceptance_says_who_when_and_why():
    moment = datetime(2026, 1, 3, tzinfo=UTC)
    ledger = accept(results(3.0), Ledger(), who="Ada <ada@example.org>", why="the first run", when=moment)
    (mark,) = ledger.baselines[0].accepted
    assert (mark.who, mark.why, mark.when) == ("Ada <ada@example.org>", "the first run", "2026-01-03T00:00:00+00:00")
    assert (mark.run, mark.started, mark.commit) == (digest_of(results(3.0)), FIRST, "abc")
    for who, why in (("", "why"), ("who", " ")):
        with pytest.raises(LedgerError, match="must be said"):
            accept(results(3.0), Ledger(), who=who, why=why)


def days():
    """Moments, each a day after the one before."""
    return (f"2026-02-{day:02d}T00:00:00+00:00" for day in range(1, 28))


@pytest.mark.parametrize("bits", [0.06, 0.3, 0.49])
def test_no_chain_of_small_steps_walks_up(bits):
    ledger, ratio, steps = record(results(2.0)), 2.0, 0
    with pytest.raises(LedgerError, match="never raised"):  # noqa: PT012
        for day in days():
            ratio *= 2.0**bits
            ledger = record(results(ratio, started=day), ledger)
            steps += 1
    assert steps == int(min(WORST_BITS, TYPICAL_BITS) / bits)
    (record_of_a,) = ledger.baselines[0].records
    assert record_of_a.best == record_of_a.first


def test_best_falls_and_holds_later_runs_to_it():
    ledger = record(results(2.0, started=LATER), record(results(8.0)))
    (record_of_a,) = ledger.baselines[0].records
    assert (record_of_a.first.worst, record_of_a.best.worst) == (3.0, 1.0)
    assert ledger.worse(results(3.0, started="2026-01-03T00:00:00+00:00")) != []


def test_case_that_is_no_longer_measured_is_dropped_by_name_alone():
    def named(case, started):
        rows = tuple(replace(row, case=case) for row in results(2.0).measurements)
        return replace(results(started=started), measurements=rows)

    ledger = record(named("old", FIRST))
    with pytest.raises(LedgerError, match=r"old is recorded and was not measured: .* --drop-missing"):
        record(replace(named("new", LATER)), ledger)
    dropped = accept(named("new", LATER), ledger, who="w", why="renamed", drop_missing=True)
    assert [one.case for one in dropped.baselines[0].records] == ["new"]
    assert dropped.baselines[0].accepted[-1].dropped == ("old",)


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
    assert "nothing is recorded for quick of revdeq / torch 9.9" in ledger.worse(other)[0][1]


@pytest.mark.parametrize(
    "started", [FIRST, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "20260101T000000+0000", "yesterday", LATER]
)
def test_run_is_never_its_own_baseline_however_its_times_are_written(started):
    run = results(2.0)
    with pytest.raises(LedgerError, match="cannot be its own baseline"):
        record(run).worse(replace(run, started=started, finished=started))
    with pytest.raises(LedgerError, match="cannot be its own baseline"):
        record(replace(run, started=started), record(run))


def test_rows_with_other_durations_are_the_same_run_if_it_began_at_the_same_moment():
    run = results(2.0)
    slower = replace(run, measurements=tuple(replace(row, seconds=9.0) for row in run.measurements))
    with pytest.raises(LedgerError, match="cannot be its own baseline"):
        record(run).worse(replace(slower, started="2026-01-01T00:00:00Z"))


def test_gate_closes_on_a_case_that_became_worse():
    run = results(8.0, started=LATER)
    failures = judge(run, EMPTY, record(results(2.0))).failures
    assert "ledger" in {finding.check for finding in failures}
    assert "ledger" not in {finding.check for finding in judge(run, EMPTY).failures}


def test_incomplete_or_broken_run_is_not_recorded():
    with pytest.raises(LedgerError, match="incomplete"):
        record(replace(results(2.0), complete=False))
    with pytest.raises(LedgerError, match="no finite ratio"):
        record(results(math.inf))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no ledger"),
        ("{", "truncated or not JSON"),
        ("[]", "is no ledger"),
        (json.dumps({"schema": "revdeq-ledger", "version": 1}), "has version 1"),
        (json.dumps({"schema": "revdeq-ledger", "version": 2, "runs": {}}), "ledger.json: ledger lacks"),
    ],
)
def test_bad_ledger_is_refused(tmp_path, content, message):
    path = tmp_path / "ledger.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LedgerError, match=message):
        read_ledger(path)


def test_ledger_that_was_changed_by_hand_is_refused(tmp_path):
    path = write_ledger(record(results(2.0)), tmp_path / "ledger.json")
    path.write_text(path.read_text().replace('"worst": 1.0', '"worst": 9.0'))
    with pytest.raises(LedgerError, match="changed by hand"):
        read_ledger(path)
