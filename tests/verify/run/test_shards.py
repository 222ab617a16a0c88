"""Shards are one run in pieces: merged they are what the run would have been, and nothing less passes for it."""

from concurrent.futures import Executor, Future
from dataclasses import replace

import pytest

from verify.profiles import CURVE_STEPS, PROFILES, Profile
from verify.result import Curve, FaultRecord, Measurement, ResultsError
from verify.result_file import read_results
from verify.run import TaskError, measuring
from verify.run.parts import Part
from verify.run.shards import Shard, merge_shards
from verify.sweep import run
from verify.tasks import GridTask, ProblemTask, SelftestTask


PLAN = (
    *(ProblemTask("kepler", beta, "cpu", CURVE_STEPS) for beta in (0.5, 0.8, 1.2)),
    ProblemTask("attention", 0.5, "cpu", CURVE_STEPS),
    GridTask("cpu"),
    SelftestTask(),
)


class Inline(Executor):
    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except TaskError as error:
            future.set_exception(error)
        return future


def small_part(task, subject):
    if isinstance(task, SelftestTask):
        return Part((), (), (FaultRecord(fault="a", description="", killed_by=("gradient",)),))
    rows = tuple(Measurement(check="gradient", case=task.name, leaf=str(n), device="cpu") for n in range(3))
    curve = Curve(name="memory", problem=task.name, solver="s", x_name="x", y_name="y", x=(1.0,), y=(2.0,))
    return Part(rows, (curve,))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def planned(*arguments):
        return PLAN

    monkeypatch.setattr(Profile, "tasks", planned)
    monkeypatch.setattr(measuring, "measure_task", small_part)


@pytest.fixture
def measured(tmp_path):
    """The shards of a run, as read from their files."""

    def measure(count):
        for place in range(1, count + 1):
            run(out=tmp_path / str(place), shard=Shard(place, count), executor=Inline())
        return [read_results(tmp_path / str(place) / "results.json") for place in range(1, count + 1)]

    return measure


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_merged_shards_are_the_run(measured, tmp_path, count):
    whole = run(out=tmp_path / "whole", executor=Inline())
    merged = merge_shards(measured(count)[::-1], "")
    unlike = {"command": "", "started": "", "finished": ""}
    assert replace(merged, **unlike) == replace(whole, **unlike)
    assert merged.complete


@pytest.mark.parametrize("count", [1, 2, 3, 4, 16, 500])
def test_shards_share_the_plan_of_a_profile_out_evenly(count):
    planned = PROFILES["quick"].tasks(("cpu", "cuda"))
    shares = [Shard(place, count).share(planned) for place in range(1, count + 1)]
    assert sorted((task for share in shares for task in share), key=planned.index) == list(planned)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shard_alone_is_not_a_run_and_is_taken_up(measured, tmp_path):
    first = measured(2)[0]
    assert not first.complete
    assert any("this is shard 1 of 2" in item.why for item in first.not_measured)

    class Idle(Executor):
        pass

    assert run(out=tmp_path / "1", shard=Shard(1, 2), executor=Idle()) == first


def test_task_that_failed_in_a_shard_is_named_in_the_run(measured, monkeypatch):
    def failing(task, subject):
        if task == PLAN[1]:
            raise TaskError("it took longer than 8 s")
        return small_part(task, subject)

    monkeypatch.setattr(measuring, "measure_task", failing)
    merged = merge_shards(measured(2), "")
    assert not merged.complete
    assert [(item.what, item.why) for item in merged.not_measured if item.failed] == [
        ("task kepler beta=0.8 cpu", "it took longer than 8 s")
    ]


def marked(results, **changes):
    return replace(results, environment=results.environment | {"shard": results.environment["shard"] | changes})


SPOILED = {
    "one is missing": (lambda one, two: [one], "give 1/2 to 2/2, each once"),
    "one is there twice": (lambda one, two: [one, one], "give 1/2 to 2/2, each once"),
    "none at all": (lambda one, two: [], "no shard was given"),
    "another count": (lambda one, two: [one, marked(two, of=3)], "each once"),
    "another commit": (
        lambda one, two: [one, replace(two, environment=two.environment | {"commit": "other"})],
        "differ in commit",
    ),
    "another torch": (
        lambda one, two: [one, replace(two, environment=two.environment | {"torch": "9.9"})],
        "differ in torch",
    ),
    "another profile": (lambda one, two: [one, replace(two, profile="full")], "differ in profile"),
    "no profile": (
        lambda one, two: [replace(one, profile="none"), replace(two, profile="none")],
        "are of profile 'none': give those of quick",
    ),
    "another subject": (lambda one, two: [one, replace(two, subject="other")], "differ in subject"),
    "other devices": (lambda one, two: [one, replace(two, devices=("cuda",))], "differ in devices"),
    "a row deleted": (
        lambda one, two: [one, replace(two, measurements=two.measurements[1:])],
        "does not hold what it says",
    ),
    "a task renamed": (
        lambda one, two: [one, marked(two, tasks=[["other", *rest] for _, *rest in two.environment["shard"]["tasks"]])],
        "was measured by two shards|is none of profile",
    ),
    "a task struck out": (
        lambda one, two: [
            one,
            replace(
                marked(two, tasks=two.environment["shard"]["tasks"][1:]),
                measurements=two.measurements[3:],
                curves=two.curves[1:],
            ),
        ],
        "was measured by no shard",
    ),
    "numbers that are none": (lambda one, two: [one, marked(two, tasks=[["a", "b", "c"]])], "does not hold"),
    "a negative number": (lambda one, two: [one, marked(two, tasks=[["a", -1, 0], ["b", 1, 0]])], "does not hold"),
    "a mark of another kind": (lambda one, two: [one, marked(two, place=True)], "is no shard"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_are_not_the_shards_of_one_run_is_refused(measured, name):
    spoil, message = SPOILED[name]
    with pytest.raises(ResultsError, match=message):
        merge_shards(spoil(*measured(2)), "")


def test_whole_run_is_no_shard(tmp_path):
    with pytest.raises(ResultsError, match="is no shard"):
        merge_shards([run(out=tmp_path, executor=Inline())], "")


def test_machines_of_shards_are_all_named(measured):
    one, two = measured(2)
    two = replace(two, environment=two.environment | {"machine": "another", "threads": 64})
    assert merge_shards([one, two], "").environment["machine"] == f"{one.environment['machine']} + another"


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "-1/4", "1/4/4", "a/b", "\u0661/4", ""])
def test_shard_that_names_none_is_refused(text):
    with pytest.raises(ValueError, match="give one like 2/4"):
        Shard.parse(text)
