"""Markdown, JUnit and tables say the same verdict, and lose nothing."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pandas as pd
import pytest

from reports.errors import ReportError
from reports.junit import to_junit
from reports.markdown import to_markdown
from reports.merge import merge
from reports.ranking import excess
from reports.tables import curve_table, measurement_table, write_tables
from reports.text import ABSENT, binary_size, bits, number, plural
from verify.checks import CRITERIA


def one_bad(check, value):
    """Changes the first row of a check to have this number."""
    done = False

    def change(row):
        nonlocal done
        if row.check == check and not done:
            done = True
            return replace(row, measured=value)
        return row

    return change


def drop(row):
    """Changes every row into none."""
    del row


def test_markdown_of_a_run_that_holds_fits_a_pull_request(synthetic_run):
    text = to_markdown(merge([synthetic_run]))
    lines = text.splitlines()
    assert lines[0] == f"## revdeq: holds: {len(synthetic_run.measurements)} measurements within their limits"
    assert "### What falls short" not in text
    assert "- CUDA: no device on this machine" in lines
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines if line.count(" | ") == 5][1:] == list(CRITERIA)
    assert len(text) < 20_000


def test_markdown_puts_the_worst_finding_first_and_counts_the_rest(build_results):
    def spoil(row):
        if row.check != "gradient":
            return row
        return replace(row, measured=11.0 if row.leaf == "z0" else math.nan)

    text = to_markdown(merge([build_results(spoil)]))
    failing = [line for line in text.splitlines() if line.startswith("- gradient")]
    assert "measured nan ratio R" in failing[0]
    assert "more, in index.html" in text


def test_markdown_table_survives_a_bar_in_a_name(build_results):
    def rename(row):
        return replace(row, leaf="a|b")

    text = to_markdown(merge([build_results(rename)]))
    assert "a\\|b" in text


def test_junit_has_one_case_per_check_and_case(synthetic_run):
    root = ET.fromstring(to_junit(merge([synthetic_run])))
    (suite,) = root
    names = {(case.get("classname"), case.get("name")) for case in suite}
    assert names == {(row.check, row.case) for row in synthetic_run.measurements}
    assert suite.get("tests") == str(len(suite))
    assert suite.get("failures") == "0"


@pytest.mark.parametrize("value", [math.nan, math.inf, 11.0, None])
def test_junit_fails_the_case_of_a_bad_row(build_results, value):
    root = ET.fromstring(to_junit(merge([build_results(one_bad("forward", value))])))
    (suite,) = root
    failures = suite.findall("testcase/failure")
    assert suite.get("failures") == "1" == str(len(failures))
    assert "forward" in (failures[0].text or "")


def test_junit_of_an_empty_run_fails(build_results):
    root = ET.fromstring(to_junit(merge([build_results(drop, curves=())])))
    assert int(root[0].get("failures", "0")) > 0


def test_junit_skips_a_case_without_power(build_results):
    def weaken(row):
        weak = row.check == "gradient" and row.problem == "tanh"
        return replace(row, status="no-power", power=0.5, reason="too rough") if weak else row

    (suite,) = ET.fromstring(to_junit(merge([build_results(weaken)])))
    skipped = [case for case in suite if case.find("skipped") is not None]
    assert skipped
    assert all(case.get("name", "").startswith("tanh") for case in skipped)


def test_junit_survives_control_characters(build_results):
    spoil = one_bad("forward", math.nan)

    def rename(row):
        return spoil(replace(row, leaf="z\x00\x1b[1m"))

    text = to_junit(merge([build_results(rename)]))
    assert ET.fromstring(text).tag == "testsuites"


def test_tables_keep_nan_apart_from_nothing(build_results, tmp_path):
    nan, none = one_bad("forward", math.nan), one_bad("linear", None)

    def spoil(row):
        return none(nan(row))

    dossier = merge([build_results(spoil)])
    write_tables(dossier, tmp_path)
    text = (tmp_path / "measurements.csv").read_text().splitlines()
    place = text[0].split(",").index("measured")
    frame = pd.read_parquet(tmp_path / "measurements.parquet", dtype_backend="pyarrow")
    spoiled = frame[frame["verdict"] == "FAIL"]
    assert sorted(spoiled["check"]) == ["forward", "linear"]
    by_check = dict(zip(spoiled["check"], spoiled["measured"], strict=True))
    assert by_check["linear"] is pd.NA
    assert isinstance(by_check["forward"], float)
    assert math.isnan(by_check["forward"])
    assert sum(line.split(",")[place] == "nan" for line in text[1:] if line.count('"') == 0) <= 1


def test_tables_have_one_row_per_measurement_and_per_point(synthetic_run):
    dossier = merge([synthetic_run])
    assert len(measurement_table(dossier)) == len(synthetic_run.measurements)
    assert len(curve_table(dossier)) == sum(len(curve.x) for curve in synthetic_run.curves)
    assert set(measurement_table(dossier)["verdict"]) == {"pass"}


def test_merge_says_duplicates_and_differing_commits(synthetic_run):
    other = replace(synthetic_run, environment={**synthetic_run.environment, "commit": "9" * 40, "dirty": True})
    dossier = merge([synthetic_run, other])
    said = " ".join(dossier.remarks)
    assert "differ in commit" in said
    assert "999999999999" in said
    assert "measured by more than one run" in said
    assert "uncommitted changes" in said
    assert [run.label for run in dossier.runs] == ["cpu quick (1)", "cpu quick (2)"]


def test_merge_does_not_let_a_later_success_hide_a_failure(synthetic_run, build_results):
    failing = build_results(one_bad("gradient", math.nan))
    assert not merge([failing, synthetic_run]).holds
    assert not merge([synthetic_run, failing]).holds
    assert not merge([synthetic_run], recorded=[failing]).holds


def test_merge_without_a_run_is_refused():
    with pytest.raises(ReportError, match="at least one run"):
        merge([])


def test_merge_with_too_few_judgements_is_refused(judge, synthetic_run):
    with pytest.raises(ReportError, match="one for each run"):
        merge([synthetic_run, synthetic_run], [judge(synthetic_run)])


@pytest.mark.parametrize(
    ("comparison", "threshold", "measured", "expected"),
    [
        ("<=", 10.0, 20.0, 1.0),
        ("<=", 10.0, 2.5, -2.0),
        ("<=", 10.0, 0.0, -math.inf),
        ("<=", 10.0, math.inf, math.inf),
        ("<=", 10.0, math.nan, math.inf),
        (">=", 1.0, 0.25, 2.0),
        (">=", 1.0, 0.0, math.inf),
        ("==", 0.0, 0.0, -math.inf),
        ("==", 0.0, 1e-300, math.inf),
        ("==", 0.0, math.nan, math.inf),
    ],
)
def test_excess_measures_the_distance_from_the_limit_in_bits(comparison, threshold, measured, expected):
    criterion = replace(CRITERIA["forward"], comparison=comparison, threshold=threshold)
    assert excess(measured, criterion) == pytest.approx(expected)


def test_numbers_never_make_nan_look_empty():
    assert number(math.nan) == "NaN"
    assert number(None) == ABSENT
    assert number(-math.inf) == "-INF"
    assert bits(math.nan) == "NaN"
    assert bits(0.0) == "all"
    assert bits(2.0**-20) == "20.0"
    assert bits(3.0) == "0.0"
    assert binary_size(1536) == "1.5 KiB"
    assert plural(1, "case") == "1 case"
