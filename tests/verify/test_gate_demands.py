"""What a judge may ask of a run besides its plan: its commit, and how old it may be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from verify.gate import Demands, judge


COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)
"""An hour after the small run finished."""


def said(small, demands, **environment):
    run, plan = small
    run = replace(run, environment=run.environment | {"commit": COMMIT, "dirty": False} | environment)
    return [finding.why for finding in judge(run, plan, demands=demands).failures]


@pytest.mark.parametrize("commit", [COMMIT, COMMIT[:8]])
def test_the_commit_asked_for_or_its_beginning_holds(small, commit):
    assert said(small, Demands(commit=commit)) == []


@pytest.mark.parametrize("commit", ["", "f" * 40, COMMIT[1:9]])
def test_another_commit_closes_the_gate(small, commit):
    (why,) = said(small, Demands(commit=commit))
    assert why == f"it is of commit {COMMIT}, asked for is {commit}"


def test_changed_sources_are_of_no_commit(small):
    assert said(small, Demands(commit=COMMIT), dirty=True) == ["its sources were changed since their commit"]
    assert said(small, Demands(), dirty=True) == []


@pytest.mark.parametrize(("hours", "holds"), [(2, True), (1, True), (0.5, False)])
def test_a_run_may_be_as_old_as_is_allowed(small, hours, holds):
    found = said(small, Demands(max_age=timedelta(hours=hours), now=NOW))
    assert (found == []) is holds
    assert all("longer ago" in why for why in found)


def test_a_run_of_the_future_closes_the_gate(small):
    (why,) = said(small, Demands(now=NOW - timedelta(hours=2)))
    assert why.endswith("which is in the future")
