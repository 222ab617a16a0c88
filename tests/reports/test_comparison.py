"""Two runs compared: every kind of change is told from the others, and numbers are sorted as numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from reports.compare import AGAINST, CHANGES, compare, describe


CASE = "tanh/reversible/beta=0.5/N=4/float64/cpu"


def change_row(check="gradient", leaf="z0", case=CASE, **changes):
    """Replaces fields of one row."""

    def change(row):
        return replace(row, **changes) if (row.check, row.leaf, row.case) == (check, leaf, case) else row

    return change


def the_change(build_results, base, head, judge):
    comparison = compare(judge(build_results(base)), judge(build_results(head)))
    changed = [row for row in comparison.rows if row.change != "same"]
    assert len(changed) == 1, [describe(row) for row in changed]
    return changed[0], comparison


def test_equal_runs_compare_as_the_same(judge, synthetic_run):
    comparison = compare(judge(synthetic_run), judge(synthetic_run))
    assert comparison.counts["same"] == len(comparison.rows) == len(synthetic_run.measurements)
    assert comparison.holds


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (2.0, 8.0, "worse"),
        (8.0, 2.0, "improved"),
        (2.0, 3.9, "same"),
        (0.001, 0.9, "same"),
        (0.001, 4.0, "worse"),
        (2.0, 20.0, "introduced"),
        (2.0, math.nan, "introduced"),
        (2.0, None, "introduced"),
        (20.0, 2.0, "fixed"),
        (math.nan, 2.0, "fixed"),
        (20.0, 200.0, "worse"),
    ],
)
def test_change_of_one_number_is_named(judge, build_results, before, after, change):
    base, head = change_row(measured=before), change_row(measured=after)
    if change == "same":
        comparison = compare(judge(build_results(base)), judge(build_results(head)))
        assert comparison.counts["same"] == len(comparison.rows)
        assert comparison.holds
        return
    row, comparison = the_change(build_results, base, head, judge)
    assert row.change == change
    assert comparison.holds == (change not in AGAINST)


def test_check_that_wants_large_numbers_becomes_worse_when_they_fall(judge, build_results):
    base = change_row(check="not-stored", leaf="z1", measured=0.01)
    row, _ = the_change(build_results, base, change_row(check="not-stored", leaf="z1", measured=0.002), judge)
    assert row.change == "worse"
    assert row.bits == pytest.approx(math.log2(5.0))


def test_lost_row_is_lost_and_closes(judge, build_results):
    def drop(row):
        return None if (row.check, row.leaf, row.case) == ("gradient", "z0", CASE) else row

    base = build_results()
    comparison = compare(judge(base), judge(build_results(drop), of=base))
    assert comparison.counts["lost"] == 1
    assert comparison.run_introduced
    assert not comparison.holds
    other_way = compare(judge(build_results(drop), of=base), judge(base))
    assert other_way.counts["new"] == 1
    assert other_way.run_fixed
    assert other_way.holds


def test_row_that_loses_its_power_is_lost(judge, build_results):
    head = change_row(status="no-power", power=0.5, reason="rough")
    row, comparison = the_change(build_results, None, head, judge)
    assert row.change == "lost"
    assert "power" in row.reason
    assert not comparison.holds


@pytest.mark.parametrize("changes", [{"beta": 0.6}, {"state_dtype": "float32"}, {"scale": 1e-12}])
def test_changed_case_is_not_comparable(judge, build_results, changes):
    row, comparison = the_change(build_results, None, change_row(**changes), judge)
    assert row.change == "not comparable"
    assert row.bits is None
    assert comparison.holds


def test_changed_criterion_is_not_comparable(judge, synthetic_run):
    changed = {finding.check: finding.criterion for finding in judge(synthetic_run).findings if finding.criterion}
    looser = {**changed, "gradient": replace(changed["gradient"], threshold=20.0)}
    comparison = compare(judge(synthetic_run), judge(synthetic_run, looser))
    wanted = sum(row.check == "gradient" for row in synthetic_run.measurements)
    assert comparison.counts["not comparable"] == wanted
    assert all("criterion" in row.reason for row in comparison.rows if row.change == "not comparable")


def test_changed_case_that_fails_is_introduced_and_not_excused(judge, build_results):
    row, comparison = the_change(build_results, None, change_row(unit="relative", measured=1e9), judge)
    assert row.change == "introduced"
    assert not comparison.holds


def test_comparison_of_which_nothing_compares_falls_short(judge, build_results):
    def move(row):
        return replace(row, beta=0.33)

    comparison = compare(judge(build_results()), judge(build_results(move)))
    assert comparison.counts["not comparable"] == len(comparison.rows)
    assert not comparison.holds


def test_rows_are_sorted_by_number_and_not_by_text(judge, build_results):
    values = {"affine-real": 5.91, "kepler": 30.81, "tanh": 115.9, "attention": 9.5}

    def failing(factor):
        def change(row):
            chosen = row.check == "gradient" and row.leaf == "z0" and row.num_steps == 4 and row.beta == 0.5
            if not chosen or row.dtype != "float64":
                return row
            return replace(row, measured=11.0 * (values[row.problem] if factor else 1.0))

        return change

    comparison = compare(judge(build_results(failing(False))), judge(build_results(failing(True))))
    worse = [row for row in comparison.rows if row.change == "worse"]
    assert [row.key[1].split("/")[0] for row in worse] == ["tanh", "kepler", "attention", "affine-real"]
    bits = [row.bits for row in worse if row.bits is not None]
    assert bits == sorted(bits, reverse=True)


def test_every_change_is_counted_even_where_there_is_none(judge, synthetic_run):
    comparison = compare(judge(synthetic_run), judge(synthetic_run))
    assert list(comparison.counts) == list(CHANGES)


def test_description_says_from_what_to_what(judge, build_results):
    row, _ = the_change(build_results, change_row(measured=2.0), change_row(measured=20.0), judge)
    assert describe(row) == f"introduced: gradient {CASE} reversible n-step z0, 2 (pass) -> 20 (FAIL), +3.32 bits"
