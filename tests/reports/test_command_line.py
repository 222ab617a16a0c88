"""The command line: its statuses, and one sentence for whatever is given wrongly."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from reports import command
from reports.cli import app
from verify.result import to_json, write_results


pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def run():
    runner = CliRunner()

    def invoke(*arguments):
        return runner.invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def good_file(build_results, one_curve_of_each_kind, tmp_path):
    return write_results(build_results(curves=one_curve_of_each_kind), tmp_path / "good.json")


@pytest.fixture
def bad_file(build_results, one_curve_of_each_kind, tmp_path):
    def spoil(row):
        return replace(row, measured=math.nan) if row.check == "linear" else row

    return write_results(build_results(spoil, curves=one_curve_of_each_kind), tmp_path / "bad.json")


def test_gate_of_a_run_that_holds_has_status_0(run, good_file):
    done = run("gate", good_file)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("holds: ")


def test_gate_of_a_run_with_nan_has_status_1_and_says_how_to_replay(run, bad_file, tmp_path):
    done = run("gate", bad_file, "--out", tmp_path / "verdict", "--most", 2)
    assert done.exit_code == 1
    assert "linear" in done.stdout
    assert "measured nan" in done.stdout
    assert "Replay: revdeq verify --case" in done.stdout
    assert "more findings; --most" in done.stdout
    assert {path.name for path in (tmp_path / "verdict").iterdir()} == {"report.md", "junit.xml"}


def test_report_has_the_status_of_the_verdict(run, good_file, bad_file, tmp_path):
    held = run("report", good_file, "--out", tmp_path / "held")
    assert held.exit_code == 0, held.output
    assert str(tmp_path / "held" / "index.html") in held.stdout
    assert run("report", good_file, bad_file, "--out", tmp_path / "short").exit_code == 1
    assert "NaN" in (tmp_path / "short" / "index.html").read_text()


def test_compare_has_the_status_of_the_comparison(run, good_file, bad_file):
    assert run("compare", good_file, good_file).exit_code == 0
    worse = run("compare", good_file, bad_file)
    assert worse.exit_code == 1
    assert "introduced: linear" in worse.stdout
    assert "falls short: " in worse.stdout
    better = run("compare", bad_file, good_file)
    assert better.exit_code == 0
    assert "fixed: linear" in better.stdout


def truncated(path, data):
    path.write_text(json.dumps(data)[:-40])


def unknown_version(path, data):
    path.write_text(json.dumps({**data, "version": 99}))


def other_schema(path, data):
    path.write_text(json.dumps({**data, "schema": "asv"}))


def missing(path, data):
    del path, data


def empty(path, data):
    del data
    path.write_text("")


def binary(path, data):
    del data
    path.write_bytes(bytes(range(128, 256)))


def bare_nan(path, data):
    data["measurements"][0]["measured"] = math.nan
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("damage", [truncated, unknown_version, other_schema, missing, empty, binary, bare_nan])
@pytest.mark.parametrize("name", ["gate", "report", "compare"])
def test_file_that_cannot_be_read_is_one_sentence_and_status_2(run, build_results, tmp_path, damage, name):
    path = tmp_path / "results.json"
    damage(path, to_json(build_results(curves=())))
    arguments = {"gate": [path], "report": [path, "--out", tmp_path / "report"], "compare": [path, path]}[name]
    done = run(name, *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("revdeq: ")
    assert str(path) in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.output
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["gate", "report"])
def test_folder_that_cannot_be_written_is_one_sentence_and_status_2(run, good_file, tmp_path, name):
    (tmp_path / "taken").write_text("a file of the user's")
    done = run(name, good_file, "--out", tmp_path / "taken")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.output
    assert (tmp_path / "taken").read_text() == "a file of the user's"


def test_unknown_command_and_missing_option_have_status_2(run, good_file):
    assert run("verfy").exit_code == 2
    assert run("report", good_file).exit_code == 2


def test_missing_library_is_one_sentence_and_status_2(monkeypatch, capsys):
    def find(name):
        return None if name in ("typer", "rich") else name

    monkeypatch.setattr(command, "find_spec", find)
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "typer, rich" in said
    assert "pip install 'revdeq[report]'" in said


def test_defect_of_the_program_is_not_a_verdict(monkeypatch, capsys):
    def crash():
        raise RuntimeError("a defect")

    monkeypatch.setattr("reports.cli.app", crash)
    monkeypatch.setattr(sys, "argv", ["revdeq"])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2


def test_plan_that_meets_its_wish_has_status_0(run):
    done = run("plan", "--contraction-constant", 0.9, "--spectrum", "imaginary", "--gradient-error", 0.01)
    assert done.exit_code == 0, done.output
    assert "Reversible(beta=" in done.stdout


def test_plan_that_cannot_be_met_has_status_1_and_says_what_would(run):
    done = run("plan", "--contraction-constant", 0.9, "--dtype", "bfloat16", "--gradient-error", 1e-9)
    assert done.exit_code == 1
    assert "What would" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--contraction-constant", "nan"),
        ("--contraction-constant", "0.9", "--beta", "1"),
        ("--contraction-constant", "0.9", "--steps", "0"),
        ("--contraction-constant", "0.9", "--gradient-error", "-1"),
        ("--contraction-constant", "0.9", "--dtype", "int8"),
        (),
    ],
)
def test_plan_of_a_meaningless_wish_has_status_2(run, arguments):
    done = run("plan", *arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
