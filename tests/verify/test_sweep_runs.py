"""The sweep: finished parts survive an interruption, results are whole or not there, and bad requests are refused."""

from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import torch

from verify import sweep
from verify.case import Case, CaseError
from verify.checks import CHECKS, Trial, checks_for
from verify.gate import judge
from verify.planning import plan_of
from verify.planted.base import Honest
from verify.problems import get_problem
from verify.profiles import CURVE_STEPS, PAPER, PROFILES, Profile
from verify.result import ResultsError
from verify.result_file import read_results
from verify.run import measuring
from verify.run.measuring import measure_task
from verify.run.parts import Part, Parts
from verify.subject import SubjectError
from verify.sweep import SweepError, run
from verify.tasks import PRECISIONS, ProblemTask, SelftestTask


TASKS = (
    ProblemTask("kepler", 0.5, "cpu", CURVE_STEPS),
    ProblemTask("kepler", 0.8, "cpu", CURVE_STEPS),
    SelftestTask(),
)


class Inline(Executor):
    """Runs each task at once in this process; breaks at the task whose place is given."""

    def __init__(self, breaks_at=None):
        self.submitted = []
        self.breaks_at = breaks_at

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if len(self.submitted) == self.breaks_at:
            raise BrokenProcessPool("killed")
        try:
            future.set_result(fn(*args, **kwargs))
        except OverflowError as error:
            future.set_exception(error)
        self.submitted.append(args[0])
        return future


def small_part(task, subject):
    """A part without measuring: one row that names its task, and the selftest's records for its task."""
    if isinstance(task, SelftestTask):
        return Part((), (), ())
    trial = Trial(Case(task.problem, task.beta, 4), Honest(), get_problem(task.problem))
    return Part((trial.row(leaf="z0", measured=1.0),))


@pytest.fixture
def small(monkeypatch):
    def planned(*arguments):
        return TASKS

    monkeypatch.setattr(Profile, "tasks", planned)
    monkeypatch.setattr(measuring, "measure_task", small_part)


@pytest.mark.usefixtures("small")
def test_run_writes_whole_results_in_the_planned_order(tmp_path):
    seen = []

    def progress(done, total, text):
        seen.append((done, total))

    results = run(out=tmp_path, executor=Inline(), progress=progress, command="revdeq verify")
    assert [row.beta for row in results.measurements] == [0.5, 0.8]
    assert results.complete
    assert results.selftest == ()
    assert read_results(tmp_path / "results.json") == results
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.usefixtures("small")
def test_absent_cuda_is_said_in_words(tmp_path, monkeypatch):
    def absent():
        return "no device on this machine"

    monkeypatch.setattr(sweep, "cuda_absence", absent)
    results = run(device="all", out=tmp_path, executor=Inline())
    assert "CUDA" in {item.what for item in results.not_measured}
    assert any(item.why.startswith("no device on this machine") for item in results.not_measured)


def raising(*betas):
    """A measurement that raises for the tasks of these betas."""

    def measure(task, subject):
        if isinstance(task, ProblemTask) and task.beta in betas:
            raise OverflowError("too big")
        return small_part(task, subject)

    return measure


@pytest.mark.usefixtures("small")
def test_broken_executor_is_said_in_a_sentence(tmp_path):
    with pytest.raises(SweepError, match=r"the workers died .*: run the same command again to go on"):
        run(out=tmp_path, executor=Inline(breaks_at=1))
    assert not (tmp_path / "results.json").exists()


@pytest.mark.usefixtures("small")
def test_task_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "measure_task", raising(0.5))
    results = run(out=tmp_path, executor=Inline())
    assert [item.what for item in results.not_measured if item.failed] == ["task kepler beta=0.5 cpu"]
    assert [item.why for item in results.not_measured if item.failed] == ["OverflowError: too big"]
    assert [row.beta for row in results.measurements] == [0.8]
    assert not results.complete
    assert read_results(tmp_path / "results.json") == results
    assert any(
        "task kepler beta=0.5 cpu failed" in finding.text() for finding in judge(results, plan_of(results)).failures
    )


@pytest.mark.usefixtures("small")
def test_run_goes_on_from_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "measure_task", raising(0.5))
    first = run(out=tmp_path, executor=Inline())
    assert len(list((tmp_path / "partial").iterdir())) == len(TASKS) - 1
    monkeypatch.setattr(measuring, "measure_task", small_part)
    second = Inline()
    results = run(out=tmp_path, executor=second)
    assert len(second.submitted) == 1
    assert results.started == first.started
    assert results.complete
    assert [row.beta for row in results.measurements] == [0.5, 0.8]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.1.json", "results.json"]


@pytest.mark.usefixtures("small")
def test_what_is_measured_and_is_no_measurement_is_a_failed_task(tmp_path, monkeypatch):
    def odd(task, subject):
        part = small_part(task, subject)
        return replace(part, measurements=tuple(replace(row, num_steps="four") for row in part.measurements))

    monkeypatch.setattr(measuring, "measure_task", odd)
    results = run(out=tmp_path, executor=Inline())
    whys = [item.why for item in results.not_measured if item.failed]
    assert len(whys) == 2
    assert all(why.startswith("ResultsError: part.measurements[0].num_steps is 'four'") for why in whys)


@pytest.mark.usefixtures("small")
def test_finished_run_is_taken_up_until_the_sources_change(tmp_path, monkeypatch):
    first = run(out=tmp_path, executor=Inline())
    again = Inline()
    assert run(out=tmp_path, executor=again) == first
    assert again.submitted == []
    described = sweep.describe()

    def changed():
        return described | {"source": "another"}

    monkeypatch.setattr(sweep, "describe", changed)
    afresh = Inline()
    run(out=tmp_path, executor=afresh)
    assert len(afresh.submitted) == len(TASKS)


@pytest.mark.usefixtures("small")
def test_fresh_measures_again(tmp_path):
    run(out=tmp_path, executor=Inline())
    again = Inline()
    run(out=tmp_path, executor=again, fresh=True)
    assert len(again.submitted) == len(TASKS)


@pytest.mark.usefixtures("small")
def test_results_of_something_else_are_moved_aside_before_a_run(tmp_path):
    (tmp_path / "results.json").write_text("yesterday's")
    (tmp_path / "results.1.json").write_text("of last week")
    with pytest.raises(SweepError):
        run(out=tmp_path, executor=Inline(breaks_at=0))
    assert not (tmp_path / "results.json").exists()
    assert (tmp_path / "results.2.json").read_text() == "yesterday's"
    assert (tmp_path / "results.1.json").read_text() == "of last week"


@pytest.mark.usefixtures("small")
def test_damaged_part_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "measure_task", raising(0.5))
    run(out=tmp_path, executor=Inline())
    for part in (tmp_path / "partial").iterdir():
        part.write_text("{")
    again = Inline()
    run(out=tmp_path, executor=again)
    assert len(again.submitted) == len(TASKS)


@pytest.mark.usefixtures("small")
def test_finished_run_leaves_the_parts_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "measure_task", raising(0.5))
    run("full", out=tmp_path, executor=Inline())
    others = sorted((tmp_path / "partial").iterdir())
    monkeypatch.setattr(measuring, "measure_task", small_part)
    run(out=tmp_path, executor=Inline())
    assert sorted((tmp_path / "partial").iterdir()) == others


@pytest.mark.usefixtures("small")
def test_full_disk_loses_nothing_that_was_measured(tmp_path, monkeypatch):
    def full(self, name, part):
        raise ResultsError("No space left on device")

    monkeypatch.setattr(Parts, "write", full)
    results = run(out=tmp_path, executor=Inline())
    assert results.complete
    assert len(results.measurements) == 2


@pytest.mark.usefixtures("small")
def test_clock_that_jumps_back_does_not_end_a_run_before_it_began(tmp_path, monkeypatch):
    class Jumping(datetime):
        calls = 0

        @classmethod
        def now(cls, tz=None):
            cls.calls += 1
            return datetime(2026, 1, 2, tzinfo=tz) - cls.calls * timedelta(days=1)

    monkeypatch.setattr(sweep, "datetime", Jumping)
    results = run(out=tmp_path, executor=Inline())
    assert datetime.fromisoformat(results.finished) >= datetime.fromisoformat(results.started)


@pytest.mark.usefixtures("small")
def test_second_run_in_a_folder_is_refused_while_the_first_runs(tmp_path):
    class Twice(Inline):
        def submit(self, fn, /, *args, **kwargs):
            with pytest.raises(ResultsError, match="another run measures into"):
                run(out=tmp_path, executor=Inline())
            return super().submit(fn, *args, **kwargs)

    assert run(out=tmp_path, executor=Twice()).complete


@pytest.mark.usefixtures("small")
def test_replay_does_not_replace_a_run(tmp_path):
    run(out=tmp_path, executor=Inline())
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ResultsError, match="holds results of quick, which --only does not replace"):
        run(only="kepler/reversible/beta=0.5/N=2/float64/cpu", out=tmp_path, executor=Inline())
    assert (tmp_path / "results.json").read_bytes() == before


def test_replay_measures_one_case_and_is_not_a_run(tmp_path):
    case = "kepler/reversible/beta=0.5/N=2/float64/cpu"
    results = run(only=case, out=tmp_path, executor=Inline())
    assert run(only=case, out=tmp_path, executor=Inline()).profile == "replay"
    assert {row.case for row in results.measurements} == {case}
    assert {row.check for row in results.measurements} >= {"gradient", "forward", "evaluations"}
    assert {row.status for row in results.measurements} == {"measured", "no-power"}
    assert not results.complete
    assert judge(results, plan_of(results)).verdict == "falls short"
    assert f"--only {case}" in results.measurements[0].replay


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"profile": "fast"}, ValueError, "give one of quick, full, nightly"),
        ({"device": "tpu"}, ValueError, "give one of cpu, cuda, all"),
        ({"subject": "no_such_module"}, SubjectError, "cannot be imported"),
        ({"only": "kepler"}, CaseError, "copy an id"),
        ({"only": "nothing/reversible/beta=0.5/N=2/float64/cpu"}, ValueError, "no known problem"),
    ],
)
def test_bad_request_is_refused(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        run(out=tmp_path / "out", executor=Inline(), **arguments)
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("arguments", [{"device": "cuda"}, {"only": "kepler/reversible/beta=0.5/N=2/float64/cuda"}])
def test_missing_device_is_refused(tmp_path, monkeypatch, arguments):
    def absent():
        return "no device on this machine"

    monkeypatch.setattr(sweep, "cuda_absence", absent)
    with pytest.raises(SweepError, match="no device on this machine"):
        run(out=tmp_path, **arguments)


def test_unwritable_folder_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ResultsError, match="choose another --out"):
        run(out=tmp_path / "file", executor=Inline())
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_the_papers_settings_on_every_problem(profile):
    planned = [task for task in PROFILES[profile].tasks(("cpu",)) if isinstance(task, ProblemTask)]
    for problem in {task.problem for task in planned}:
        settings = {
            (case.beta, case.num_steps, case.dtype, case.state_dtype)
            for task in planned
            if task.problem == problem
            for case in task.cases()
        }
        for beta, steps in PAPER:
            assert {(beta, steps, *precision) for precision in PRECISIONS} <= settings


def test_tasks_are_distinct_and_end_with_the_selftest():
    planned = PROFILES["quick"].tasks(("cpu", "cuda"))
    assert len(set(planned)) == len({task.name for task in planned}) == len(planned)
    assert planned[-1] == SelftestTask()


def test_every_check_is_planned_somewhere():
    cases = [case for task in PROFILES["quick"].tasks(("cpu",)) for case in task.cases()]
    assert {check.name for case in cases for check in checks_for(case)} == set(CHECKS)


def test_measuring_a_task_restores_threads_and_passes(monkeypatch):
    task = ProblemTask("kepler", 0.5, "cpu", (1, 2))
    two = task.cases()[:2]

    def two_cases(_):
        return two

    monkeypatch.setattr(ProblemTask, "cases", two_cases)
    before = torch.get_num_threads()
    part = measure_task(task, "revdeq")
    assert torch.get_num_threads() == before
    assert {curve.name for curve in part.curves} == {"error-vs-evaluations", "convergence", "reconstruction", "memory"}
    assert {row.status for row in part.measurements} == {"measured", "no-power"}
    exact = [c for c in part.curves if (c.adjoint, c.target, c.dtype) == ("reversible", "n-step", "float64")]
    assert all(error <= 1e-12 for error in exact[0].y)
    far = [c for c in part.curves if (c.adjoint, c.target, c.dtype) == ("reversible", "fixed-point", "float64")]
    assert all(error >= 1e-3 for error in far[0].y)


@pytest.mark.nightly
def test_worker_processes_give_what_this_process_gives(tmp_path, monkeypatch):
    def one(*arguments):
        return TASKS[:1]

    monkeypatch.setattr(Profile, "tasks", one)
    results = run(out=tmp_path)
    own = measure_task(TASKS[0], "revdeq")

    def timeless(rows):
        return [replace(row, seconds=None) for row in rows]

    assert timeless(results.measurements) == timeless(own.measurements)
