"""Meta tests of the gate: every corruption of a good run closes it, and the finding says what and how to replay."""

import math
from dataclasses import replace

import pytest

from verify.checks import CRITERIA
from verify.criteria import holds
from verify.gate import judge, judge_row
from verify.plan import row_key


POWERED = [check for check, item in CRITERIA.items() if item.power is not None]
REFERRED = [check for check, item in CRITERIA.items() if item.reference]


def rows_of(run, check, status="measured"):
    return [place for place, row in enumerate(run.measurements) if row.check == check and row.status == status]


def with_row(run, place, **changes):
    rows = list(run.measurements)
    rows[place] = replace(rows[place], **changes)
    return replace(run, measurements=tuple(rows))


def failing(run, plan):
    return {finding.check for finding in judge(run, plan).failures}


def test_good_run_holds_and_is_counted(small):
    run, plan = small
    judgement = judge(run, plan)
    assert judgement.verdict == "holds"
    assert judgement.totals["passed"] == judgement.totals["measured"]
    assert judgement.totals["passed"] + judgement.totals["no-power"] == len(run.measurements) == len(plan.rows)
    assert judgement.totals["checks"] == len(CRITERIA)
    assert judgement.totals["killed"] == judgement.totals["faults"] > 0


@pytest.mark.parametrize("comparison", ["<=", ">=", "=="])
def test_nan_meets_no_threshold(comparison):
    assert not holds(comparison, math.nan, 0.0)
    assert not holds(comparison, math.nan, math.nan)


@pytest.mark.parametrize("check", list(CRITERIA))
@pytest.mark.parametrize(
    "changes",
    [
        {"measured": math.nan},
        {"measured": None},
        {"status": "skipped", "reason": "later"},
        {"status": "failed", "reason": "it raised"},
    ],
)
def test_one_unusable_row_of_any_check_closes_the_gate(small, check, changes):
    run, plan = small
    assert failing(with_row(run, rows_of(run, check)[0], **changes), plan) == {check}


@pytest.mark.parametrize("check", list(CRITERIA))
def test_one_row_beyond_the_threshold_closes_the_gate(small, check):
    run, _ = small
    criterion = CRITERIA[check]
    beyond = {"<=": criterion.threshold * 1.001, ">=": criterion.threshold * 0.999, "==": criterion.threshold + 1}
    row = replace(run.measurements[rows_of(run, check)[-1]], measured=beyond[criterion.comparison])
    assert judge_row(row, CRITERIA).passed is False


@pytest.mark.parametrize("check", list(CRITERIA))
def test_missing_check_closes_the_gate(small, check):
    run, plan = small
    kept = tuple(row for row in run.measurements if row.check != check)
    assert check in failing(replace(run, measurements=kept), plan)


@pytest.mark.parametrize("check", list(CRITERIA))
def test_one_missing_row_closes_the_gate_and_is_named(small, check):
    run, plan = small
    gone = run.measurements[rows_of(run, check)[0]]
    kept = tuple(row for row in run.measurements if row is not gone)
    (finding,) = [f for f in judge(replace(run, measurements=kept), plan).failures if f.why.endswith(": missing")]
    assert finding.check == check
    assert gone.case in finding.why


@pytest.mark.parametrize("check", list(CRITERIA))
def test_one_row_twice_or_under_another_name_closes_the_gate(small, check):
    run, plan = small
    row = run.measurements[rows_of(run, check)[0]]
    for more in (row, replace(row, leaf="another"), replace(row, case=row.case + " ")):
        assert check in failing(replace(run, measurements=(*run.measurements, more)), plan)


def test_a_row_of_no_check_closes_the_gate(small):
    run, plan = small
    more = replace(run.measurements[0], check="unheard-of")
    assert failing(replace(run, measurements=(*run.measurements, more)), plan) == {"unheard-of"}


@pytest.mark.parametrize(
    "changes",
    [
        {"measurements": ()},
        {"complete": False},
        {"curves": ()},
        {"selftest": None},
        {"selftest": ()},
        {"profile": "full"},
        {"devices": ()},
        {"not_measured": ()},
    ],
)
def test_incomplete_or_relabelled_run_closes_the_gate(small, changes):
    run, plan = small
    assert judge(replace(run, **changes), plan).verdict == "falls short"


@pytest.mark.parametrize("check", REFERRED)
@pytest.mark.parametrize(
    "changes",
    [
        {"uncertainty": None},
        {"uncertainty": math.nan},
        {"uncertainty": 1e300},
        {"scale": None},
        {"scale": 0.0},
        {"scale": math.nan},
        {"scale": math.inf},
    ],
)
def test_blunt_or_absent_reference_closes_the_gate(small, check, changes):
    run, _ = small
    row = run.measurements[rows_of(run, check)[0]]
    assert judge_row(replace(row, **changes), CRITERIA).passed is False


def test_rows_without_power_are_counted_and_are_not_passed(small):
    run, plan = small
    rows = [row for row in run.measurements if row.status == "no-power"]
    assert {"gradient", "reconstruction", "rounding-bound", "rate-grid"} <= {row.check for row in rows}
    assert all(judge_row(row, CRITERIA, plan.rows[row_key(row)]).passed is None for row in rows)


@pytest.mark.parametrize("check", POWERED)
@pytest.mark.parametrize("power", [None, math.nan, 1e9])
def test_measured_row_without_power_closes_the_gate(small, check, power):
    run, _ = small
    assert judge_row(replace(run.measurements[rows_of(run, check)[0]], power=power), CRITERIA).passed is False


@pytest.mark.parametrize("check", list(CRITERIA))
def test_row_that_hides_behind_no_power_closes_the_gate(small, check):
    run, _ = small
    row = run.measurements[rows_of(run, check)[0]]
    assert judge_row(replace(row, status="no-power", reason="bfloat16"), CRITERIA).passed is False


def test_gradient_that_says_that_reversal_loses_the_states_closes_the_gate_where_it_does_not(small):
    run, plan = small
    place = next(place for place in rows_of(run, "gradient") if run.measurements[place].adjoint == "reversible")
    hidden = with_row(run, place, status="no-power", power=math.inf, reason="reversal loses the states")
    assert failing(hidden, plan) == {"gradient"}


@pytest.mark.parametrize("check", POWERED)
def test_mostly_powerless_check_closes_the_gate(small, check):
    run, plan = small
    rows = list(run.measurements)
    for place in rows_of(run, check):
        rows[place] = replace(rows[place], status="no-power", power=math.inf, reason="none")
    why = {finding.why for finding in judge(replace(run, measurements=tuple(rows)), plan).failures}
    assert any(text.startswith("0 of ") and text.endswith("rows have power") for text in why)


def test_finding_says_check_case_leaf_index_numbers_limit_reason_and_replay(small):
    run, _ = small
    row = run.measurements[rows_of(run, "gradient")[1]]
    scaled = replace(row, error=31.5 * row.scale, measured=31.5 * row.scale / row.scale)
    text = judge_row(scaled, CRITERIA).text()
    for part in (
        f"gradient {row.case} {row.adjoint} {row.leaf}{list(row.index)}:",
        f"got {row.got:.6g}, expected {row.expected:.6g},",
        "measured 31.5 ratio R, allowed <= 10:",
        "R is 1 on average",
        f"Replay: revdeq verify --only {row.case}",
    ):
        assert part in text


def test_judging_changes_nothing_and_repeats(small):
    run, plan = small
    assert judge(run, plan) == judge(run, plan)


def test_scale_so_large_that_nothing_could_fail_closes_the_gate(small):
    run, plan = small
    rows = [
        replace(row, measured=1e-4) if row.check == "gradient" and row.status == "measured" else row
        for row in run.measurements
    ]
    why = {finding.why for finding in judge(replace(run, measurements=tuple(rows)), plan).failures}
    assert any("median ratio" in text for text in why)


def test_a_check_without_any_power_closes_the_gate_however_little_it_asks_for(small):
    run, plan = small
    check = POWERED[0]
    rows = list(run.measurements)
    for place in rows_of(run, check):
        rows[place] = replace(rows[place], status="no-power", power=math.inf, reason="none")
    modest = replace(plan, criteria={**plan.criteria, check: replace(plan.criteria[check], effective=0.0)})
    why = {finding.why for finding in judge(replace(run, measurements=tuple(rows)), modest).failures}
    assert any(text.startswith("0 of ") for text in why)


@pytest.mark.parametrize("kind", [float, str])
def test_an_environment_that_holds_what_is_planned_as_another_type_closes_the_gate(small, kind):
    run, plan = small
    seed = kind(run.environment["seed"])
    found = replace(run, environment=run.environment | {"seed": seed})
    why = [finding.why for finding in judge(found, plan).failures]
    assert any(f"the environment's seed is {seed!r}, and this judge knows" in text for text in why)


@pytest.mark.parametrize("wrong", ["twice", "by none of the checks"])
def test_a_fault_that_is_said_to_be_killed_twice_or_by_nobody_closes_the_gate(small, wrong):
    run, plan = small
    assert run.selftest is not None
    place = next(place for place, record in enumerate(run.selftest) if record.killed_by)
    record, records = run.selftest[place], list(run.selftest)
    more = record.killed_by[0] if wrong == "twice" else "nobody"
    records[place] = replace(record, killed_by=(*record.killed_by, more))
    why = [finding.why for finding in judge(replace(run, selftest=tuple(records)), plan).failures]
    assert any(text.startswith(f"{record.fault} is said to be killed by ") for text in why)
