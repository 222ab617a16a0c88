"""Meta tests of the gate: every corruption of a good run closes it, and the finding says what and how to replay."""

import math
from dataclasses import replace

import pytest

from verify.criteria import CRITERIA as TABLE, LOGIC_POWER, holds
from verify.gate import CURVES, judge as judge_by, judge_row
from verify.result import ENVIRONMENT_KEYS, Curve, FaultRecord, Measurement, Results


# The table with few rows asked for: what is tested is the rules, and a run of 10,000 rows is slow to judge 300 times.
CRITERIA = {
    check: replace(item, least=min(item.least, 3), least_logic=min(item.least_logic, 2))
    for check, item in TABLE.items()
}
ENVIRONMENT = dict.fromkeys(ENVIRONMENT_KEYS, "x")
LEAVES = ("z0", "args.W")
CONTROL = FaultRecord(fault="honest", description="the control", killed_by=(), expected=False)
DROPPED = FaultRecord(fault="dropped", description="everything is wrong", killed_by=tuple(CRITERIA))


def judge(results):
    return judge_by(results, CRITERIA)


def good_row(check, place):
    criterion = CRITERIA[check]
    return Measurement(
        check=check,
        case=f"tanh/reversible/beta=0.5/N={place // 2}/float64/cpu",
        problem="tanh",
        adjoint="reversible",
        leaf=LEAVES[place % 2],
        index=(0, 1),
        got=1.25,
        expected=1.0,
        measured=criterion.threshold if criterion.comparison != "<=" else 0.5 * criterion.threshold,
        unit="ratio R",
        scale=1.0,
        power=None if criterion.power is None else min(criterion.power, LOGIC_POWER),
        uncertainty=0.0,
        replay="revdeq verify --only CASE --out replay",
    )


def good_results():
    rows = [good_row(check, place) for check, item in CRITERIA.items() for place in range(2 * item.least + 2)]
    curves = [
        Curve(name=name, problem="tanh", solver="reversible", x_name="N", y_name="y", x=(1.0,), y=(1.0,))
        for name in CURVES
    ]
    return Results(
        profile="quick",
        command="revdeq verify",
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:01:00+00:00",
        environment=ENVIRONMENT,
        subject="revdeq",
        complete=True,
        measurements=tuple(rows),
        curves=tuple(curves),
        selftest=(CONTROL, DROPPED),
    )


GOOD = good_results()


def with_row(place, **changes):
    rows = list(GOOD.measurements)
    rows[place] = replace(rows[place], **changes)
    return replace(GOOD, measurements=tuple(rows))


def rows_of(check):
    return [place for place, row in enumerate(GOOD.measurements) if row.check == check]


def test_good_run_holds_and_is_counted():
    judgement = judge(GOOD)
    assert judgement.verdict == "holds"
    assert judgement.failures == ()
    assert judgement.totals["passed"] == judgement.totals["measured"] == len(GOOD.measurements)
    assert judgement.totals["checks"] == len(CRITERIA)
    assert (judgement.totals["faults"], judgement.totals["killed"]) == (1, 1)


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
def test_one_unusable_row_of_any_check_closes_the_gate(check, changes):
    judgement = judge(with_row(rows_of(check)[0], **changes))
    assert judgement.verdict == "falls short"
    assert [finding.check for finding in judgement.failures] == [check]


@pytest.mark.parametrize("check", list(CRITERIA))
def test_one_row_beyond_the_threshold_closes_the_gate(check):
    criterion = CRITERIA[check]
    beyond = {"<=": criterion.threshold * 1.001, ">=": criterion.threshold * 0.999, "==": criterion.threshold + 1}
    judgement = judge(with_row(rows_of(check)[-1], measured=beyond[criterion.comparison]))
    assert judgement.verdict == "falls short"
    assert len(judgement.failures) == 1


@pytest.mark.parametrize("measured", [math.inf, -math.inf])
def test_infinity_closes_every_two_sided_or_upper_limit(measured):
    for check, criterion in CRITERIA.items():
        finding = judge_row(replace(good_row(check, 0), measured=measured))
        assert finding.passed is holds(criterion.comparison, measured, criterion.threshold)
        if criterion.comparison == "==":
            assert finding.passed is False


@pytest.mark.parametrize("check", list(CRITERIA))
def test_missing_check_closes_the_gate(check):
    kept = tuple(row for row in GOOD.measurements if row.check != check)
    judgement = judge(replace(GOOD, measurements=kept))
    assert judgement.verdict == "falls short"
    assert check in {finding.check for finding in judgement.failures}


@pytest.mark.parametrize("check", list(CRITERIA))
def test_too_few_rows_close_the_gate(check):
    few = set(rows_of(check)[: CRITERIA[check].least - 1])
    kept = tuple(row for place, row in enumerate(GOOD.measurements) if row.check != check or place in few)
    assert check in {finding.check for finding in judge(replace(GOOD, measurements=kept)).failures}


@pytest.mark.parametrize(
    "changes",
    [
        {"measurements": ()},
        {"complete": False},
        {"curves": ()},
        {"curves": GOOD.curves[1:]},
        {"selftest": None},
        {"selftest": ()},
        {"selftest": (CONTROL,)},
        {"selftest": (DROPPED,)},
        {"selftest": (CONTROL, replace(DROPPED, killed_by=()))},
        {"selftest": (replace(CONTROL, killed_by=("gradient",)), DROPPED)},
        {"selftest": (CONTROL, replace(DROPPED, killed_by=tuple(CRITERIA)[1:]))},
        {"measurements": (*GOOD.measurements, GOOD.measurements[0])},
        {"measurements": (*GOOD.measurements, replace(GOOD.measurements[0], check="unheard-of", leaf="z0"))},
    ],
)
def test_incomplete_or_padded_run_closes_the_gate(changes):
    assert judge(replace(GOOD, **changes)).verdict == "falls short"


@pytest.mark.parametrize("check", [check for check, item in CRITERIA.items() if item.reference])
@pytest.mark.parametrize(
    "changes",
    [
        {"uncertainty": None},
        {"uncertainty": math.nan},
        {"uncertainty": 2.0**-9},
        {"scale": None},
        {"scale": 0.0},
        {"scale": math.nan},
        {"scale": math.inf},
    ],
)
def test_blunt_or_absent_reference_closes_the_gate(check, changes):
    assert judge(with_row(rows_of(check)[0], **changes)).verdict == "falls short"


POWERED = [check for check, item in CRITERIA.items() if item.power is not None]


@pytest.mark.parametrize("check", POWERED)
def test_row_without_power_is_counted_and_is_not_a_pass(check):
    judgement = judge(with_row(rows_of(check)[0], status="no-power", power=0.9, measured=0.1, reason="bfloat16"))
    assert judgement.verdict == "holds"
    assert judgement.totals["no-power"] == 1
    assert judgement.totals["passed"] == len(GOOD.measurements) - 1


@pytest.mark.parametrize("check", POWERED)
@pytest.mark.parametrize("power", [None, math.nan, 0.9])
def test_measured_row_without_power_closes_the_gate(check, power):
    assert judge(with_row(rows_of(check)[0], power=power)).verdict == "falls short"


def test_row_that_hides_behind_no_power_closes_the_gate():
    assert judge(with_row(rows_of("gradient")[0], status="no-power", measured=1e9)).verdict == "falls short"


def test_no_power_in_a_check_that_rounding_cannot_touch_closes_the_gate():
    assert judge(with_row(rows_of("evaluations")[0], status="no-power")).verdict == "falls short"


@pytest.mark.parametrize("check", POWERED)
def test_mostly_powerless_check_closes_the_gate(check):
    rows = list(GOOD.measurements)
    for place in rows_of(check)[: len(rows_of(check)) // 2]:
        rows[place] = replace(rows[place], status="no-power", power=math.inf)
    assert check in {finding.check for finding in judge(replace(GOOD, measurements=tuple(rows))).failures}


def test_leaf_lost_in_one_case_closes_the_gate():
    place = rows_of("gradient")[1]
    kept = GOOD.measurements[:place] + GOOD.measurements[place + 1 :]
    failures = judge(replace(GOOD, measurements=kept)).failures
    assert [finding.why for finding in failures] == [
        "tanh/reversible/beta=0.5/N=0/float64/cpu reversible lacks ['args.W']"
    ]


def test_finding_says_check_case_leaf_index_numbers_limit_reason_and_replay():
    text = judge(with_row(rows_of("gradient")[1], measured=31.5)).failures[0].text()
    for part in (
        "gradient tanh/reversible/beta=0.5/N=0/float64/cpu reversible args.W[0, 1]:",
        "got 1.25, expected 1,",
        "measured 31.5 ratio R, allowed <= 10:",
        "R is 1 on average",
        "Replay: revdeq verify --only CASE --out replay",
    ):
        assert part in text


def test_judging_changes_nothing_and_repeats():
    assert judge(GOOD) == judge(GOOD)


def test_every_check_asks_for_rows():
    assert all(item.least > 0 for item in TABLE.values())
    assert all(item.least_logic <= item.least for item in TABLE.values())


def test_few_rows_fail_by_the_real_table():
    assert judge_by(GOOD).verdict == "falls short"


def test_scale_so_large_that_nothing_could_fail_closes_the_gate():
    rows = [replace(row, measured=1e-4) if row.check == "gradient" else row for row in GOOD.measurements]
    (failure,) = judge(replace(GOOD, measurements=tuple(rows))).failures
    assert failure.check == "gradient"
    assert "median ratio" in failure.why


def test_row_that_is_luckily_exact_does_not_close_the_gate():
    assert judge(with_row(rows_of("gradient")[0], measured=0.0)).verdict == "holds"
