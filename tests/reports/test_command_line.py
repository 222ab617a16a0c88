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
from verify.case import CaseError
from verify.result import FaultRecord, NotMeasured
from verify.result_file import read_results, to_json, write_results
from verify.run import Limits
from verify.run.shards import Shard
from verify.subject import SubjectError
from verify.sweep import SweepError


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


def accepted(run, path, ledger, *more):
    return run("ledger", "accept", path, "--ledger", ledger, "--who", "Ada", "--why", "a test", *more)


def test_gate_with_a_ledger_closes_on_lost_bits(run, build_results, one_curve_of_each_kind, good_file, tmp_path):
    ledger = tmp_path / "ledger.json"
    done = accepted(run, good_file, ledger)
    assert done.exit_code == 0, done.output
    assert "1 run so far" in done.stdout

    def worsen(row):
        return replace(row, measured=9.0) if (row.check, row.problem) == ("gradient", "tanh") else row

    later = build_results(worsen, curves=one_curve_of_each_kind, started="2025-11-20T00:00:00+00:00")
    worse = write_results(later, tmp_path / "worse.json")
    assert run("gate", worse).exit_code == 0
    done = run("gate", worse, "--ledger", ledger)
    assert done.exit_code == 1
    assert "bits above the ledger's best" in done.stdout
    before = ledger.read_bytes()
    done = accepted(run, worse, ledger)
    assert done.exit_code == 2
    assert "never raised" in done.stderr
    assert accepted(run, good_file, ledger).exit_code == 2
    assert ledger.read_bytes() == before


def test_what_falls_short_is_not_accepted(run, bad_file, tmp_path):
    done = accepted(run, bad_file, tmp_path / "ledger.json")
    assert done.exit_code == 1
    assert "only a run that holds is accepted" in done.stdout
    assert not (tmp_path / "ledger.json").exists()


def test_accepting_asks_for_a_reason(run, good_file, tmp_path):
    assert run("ledger", "accept", good_file, "--ledger", tmp_path / "ledger.json").exit_code == 2
    assert not (tmp_path / "ledger.json").exists()


def test_gate_sets_known_failures_apart(run, bad_file, tmp_path):
    rows = [row for row in read_results(bad_file).measurements if row.check == "linear"]
    failures = [
        {"check": "linear", "case": case, "leaf": "", "reason": "issue 7", "expires": "9999-12-31"}
        for case in dict.fromkeys(row.case for row in rows)
    ]
    data = {"schema": "revdeq-known-failures", "version": 1, "failures": failures}
    (tmp_path / "known.json").write_text(json.dumps(data))
    done = run("gate", bad_file, "--known", tmp_path / "known.json", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert f"{len(rows)} known failures (counted, not passed)" in done.stdout
    (tmp_path / "known.json").write_text(json.dumps(data | {"failures": failures[1:]}))
    assert run("gate", bad_file, "--known", tmp_path / "known.json").exit_code == 1


@pytest.mark.parametrize("text", [None, "{", '{"schema": "revdeq-ledger", "version": 7}'])
def test_gate_with_a_ledger_that_cannot_be_read_has_status_2(run, good_file, tmp_path, text):
    if text is not None:
        (tmp_path / "ledger.json").write_text(text)
    done = run("gate", good_file, "--ledger", tmp_path / "ledger.json")
    assert done.exit_code == 2
    assert done.stderr.startswith("revdeq: ")
    assert "Traceback" not in done.output


@pytest.fixture
def measured(monkeypatch, synthetic_run):
    """Stands in for the sweep; returns what it was asked for."""
    asked = {}

    def sweep(profile, device, subject, **options):
        asked.update(profile=profile, device=device, subject=subject, **options)
        options["progress"](1, 1, "a task")
        only = options["only"]
        rows = tuple(row for row in synthetic_run.measurements if only in (None, row.case))
        results = replace(synthetic_run, measurements=rows, curves=(), complete=only is None)
        write_results(results, options["out"] / "results.json")
        return results

    monkeypatch.setattr("verify.sweep.run", sweep)
    return asked


def test_verify_writes_results_and_says_where(run, measured, tmp_path):
    done = run("verify", "--profile", "full", "--fresh", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "results.json") in done.stdout
    assert "verify: 1 of 1 (a task)" in done.stderr
    assert measured["profile"] == "full"
    assert measured["fresh"] is True
    assert measured["executor"] is None
    assert read_results(tmp_path / "results.json").complete


def test_verify_of_one_case_judges_it_at_once(run, measured, tmp_path):
    case = "tanh/reversible/beta=0.5/N=4/float64/cpu"
    done = run("verify", "--only", case, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert measured["only"] == case
    assert " 0 failed, 0 without power." in done.stdout
    nothing = run("verify", "--only", "tanh/reversible/beta=0.5/N=5/float64/cpu", "--out", tmp_path)
    assert nothing.exit_code == 1


def test_verify_names_each_task_that_failed_and_has_status_1(run, monkeypatch, synthetic_run, tmp_path):
    left = (
        NotMeasured(what="task kepler beta=0.5 cpu", why="it took longer than 8 s"),
        NotMeasured(what="CUDA", why="no device on this machine"),
    )

    def fall_short(*arguments, **options):
        del arguments, options
        return replace(synthetic_run, complete=False, not_measured=left)

    monkeypatch.setattr("verify.sweep.run", fall_short)
    done = run("verify", "--out", tmp_path)
    assert done.exit_code == 1
    assert done.stderr == "task kepler beta=0.5 cpu failed: it took longer than 8 s\n"


def test_verify_hands_its_limits_on(run, measured, tmp_path):
    assert run("verify", "--task-seconds", 8, "--task-memory", 1.5, "--out", tmp_path).exit_code == 0
    assert measured["limits"] == Limits(seconds=8.0, memory=3 << 29)


def test_verify_of_a_shard_asks_for_it(run, measured, tmp_path):
    assert run("verify", "--shard", "2/4", "--out", tmp_path).exit_code == 0
    assert measured["shard"] == Shard(2, 4)
    assert run("verify", "--shard", "5/4", "--out", tmp_path).exit_code == 2
    assert run("verify", "--shard", "2/4", "--only", "a", "--out", tmp_path).exit_code == 2


def test_merge_judges_the_run_of_its_shards(run, monkeypatch, good_file, bad_file, tmp_path):
    assert run("merge", good_file, "--out", tmp_path / "merged").exit_code == 2
    assert not (tmp_path / "merged").exists()

    def put_together(shards, command):
        return shards[0]

    monkeypatch.setattr("verify.run.shards.merge_shards", put_together)
    held = run("merge", good_file, "--out", tmp_path / "merged")
    assert held.exit_code == 0, held.output
    assert held.stdout.startswith("holds: ")
    assert run("merge", bad_file, "--out", tmp_path / "merged").exit_code == 1
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert names == {"results.json", "results.1.json", "report.md", "junit.xml"}


@pytest.mark.parametrize("option", ["--task-seconds", "--task-memory"])
@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_verify_with_a_limit_that_allows_nothing_has_status_2(run, measured, tmp_path, option, value):
    assert run("verify", option, value, "--out", tmp_path).exit_code == 2
    assert measured == {}


@pytest.mark.parametrize(
    "error", [CaseError("a case"), SubjectError("a subject"), SweepError("a device"), KeyboardInterrupt()]
)
def test_verify_that_cannot_run_is_one_sentence_and_status_2(run, monkeypatch, tmp_path, error):
    def refuse(*arguments, **options):
        del arguments, options
        raise error

    monkeypatch.setattr("verify.sweep.run", refuse)
    done = run("verify", "--out", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("revdeq: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--profile", "huge"), ("--device", "tpu"), ()])
def test_verify_with_a_meaningless_option_has_status_2(run, measured, tmp_path, arguments):
    out = ("--out", tmp_path) if arguments else ()
    assert run("verify", *arguments, *out).exit_code == 2
    assert measured == {}


def test_verify_with_a_scheduler_says_which_extra_it_needs(run, monkeypatch, measured, tmp_path):
    def nowhere(name):
        del name

    monkeypatch.setattr("reports.commands.scheduler.find_spec", nowhere)
    done = run("verify", "--scheduler", "tcp://127.0.0.1:9", "--out", tmp_path)
    assert done.exit_code == 2
    assert "pip install 'revdeq[cluster]'" in done.stderr
    assert measured == {}


@pytest.mark.parametrize("survives", [False, True])
def test_selftest_prints_which_check_killed_which_fault(run, monkeypatch, tmp_path, survives):
    records = (
        FaultRecord(fault="honest", description="nothing", killed_by=(), expected=False),
        FaultRecord(fault="drop-vjp", description="a|b", killed_by=() if survives else ("gradient",)),
    )

    def plant(progress):
        progress(1, 1, "drop-vjp")
        return records

    def nothing_else(found):
        return ("drop-vjp survives: a|b",) if not found[1].killed_by else ()

    monkeypatch.setattr("verify.planted.selftest.selftest", plant)
    monkeypatch.setattr("verify.planning.selftest_shortfalls", nothing_else)
    done = run("selftest", "--out", tmp_path)
    assert done.exit_code == int(survives), done.output
    if survives:
        assert "falls short: drop-vjp survives" in done.stdout
        assert "0 of 1 planted faults killed" in done.stdout
    else:
        assert "drop-vjp  gradient" in done.stdout
        assert "1 of 1 planted faults killed" in done.stdout
    data = json.loads((tmp_path / "selftest.json").read_text())
    assert [record["fault"] for record in data["records"]] == ["honest", "drop-vjp"]
    assert "a\\|b" in (tmp_path / "selftest.md").read_text()
