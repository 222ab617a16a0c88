"""The results file: what is written is read back, and what is damaged is refused in one sentence."""

import json
import math
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from verify.json_file import printable
from verify.result import Curve, FaultRecord, Measurement, NotMeasured, Results, ResultsError
from verify.result_file import VERSION, from_json, read_results, to_json, write_results


ENVIRONMENT = {
    "commit": "abc",
    "dirty": False,
    "source": "0",
    "revdeq": "0.1",
    "python": "3.11",
    "torch": "2.13",
    "platform": "x",
    "devices": [{"device": "cuda", "name": "", "available": False, "reason": "no device on this machine"}],
    "threads": 1,
    "seed": 0,
}
GOOD = Results(
    profile="quick",
    command="revdeq verify",
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    environment=ENVIRONMENT,
    subject="revdeq",
    devices=("cpu",),
    complete=True,
    measurements=(Measurement(check="gradient", case="tanh", measured=math.nan, index=(0, 1)),),
    curves=(Curve(name="memory", problem="tanh", solver="reversible", x_name="N", y_name="bytes", x=(1.0,), y=(2.0,)),),
    not_measured=(NotMeasured(what="CUDA", why="no device on this machine"),),
    selftest=(FaultRecord(fault="honest", description="", killed_by=(), expected=False),),
)

text = st.text(max_size=8).map(printable)
number = st.none() | st.floats()
integer = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)
measurements = st.builds(
    Measurement,
    check=text,
    case=text,
    problem=text,
    leaf=text,
    beta=number,
    num_steps=integer,
    index=st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple),
    got=number,
    expected=number,
    measured=number,
    scale=number,
    power=number,
    uncertainty=number,
    saved_bytes=integer,
    seconds=number,
    status=st.sampled_from(["measured", "no-power", "skipped", "failed"]),
    reason=text,
)


@st.composite
def curves(draw):
    values = st.lists(st.floats(), min_size=2, max_size=2).map(tuple)
    return Curve(
        name=draw(text),
        problem=draw(text),
        solver=draw(text),
        beta=draw(number),
        x_name=draw(text),
        y_name=draw(text),
        x=draw(values),
        y=draw(values),
        predicted=draw(st.none() | values),
        band=draw(st.none() | values),
    )


def canonical(results):
    """JSON text: equal exactly where every field is, NaN included."""
    return json.dumps(to_json(results), sort_keys=True)


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(measurements, max_size=3), lines=st.lists(curves(), max_size=2), complete=st.booleans())
def test_round_trip_returns_every_field_to_the_bit(rows, lines, complete):
    results = replace(GOOD, measurements=tuple(rows), curves=tuple(lines), complete=complete)
    back = from_json(json.loads(json.dumps(to_json(results), allow_nan=False)))
    assert canonical(back) == canonical(results)
    for row, twin in zip(results.measurements, back.measurements, strict=True):
        for item in fields(row):
            ours, theirs = getattr(row, item.name), getattr(twin, item.name)
            assert type(ours) is type(theirs)
            assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


def test_file_round_trip_keeps_the_file_strict_json(tmp_path):
    path = write_results(GOOD, tmp_path / "deep" / "results.json")
    assert '"measured": "nan"' in path.read_text()
    assert canonical(read_results(path)) == canonical(GOOD)
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"there is no results file at .*gone\.json: make one with revdeq verify"):
        read_results(tmp_path / "gone.json")


def test_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, kept):
    path = write_results(GOOD, tmp_path / "results.json")
    content = path.read_text()
    path.write_text(content[: int(kept * len(content))])
    with pytest.raises(ResultsError, match="truncated or not JSON"):
        read_results(path)


@pytest.mark.parametrize(
    "edit",
    [
        {"subject": "another"},
        {"complete": False},
        {"measurements": []},
        {"not_measured": []},
        {"digest": "0" * 64},
        {"digest": None},
        {"environment": ENVIRONMENT | {"seed": 1}},
    ],
)
def test_what_was_changed_after_it_was_written_is_refused(edit):
    with pytest.raises(ResultsError, match="changed after a run wrote it"):
        from_json(to_json(GOOD) | edit)


def test_the_digest_does_not_depend_on_the_order_of_keys():
    whole = to_json(GOOD)
    assert from_json(dict(reversed(whole.items()))) == from_json(whole)


@pytest.mark.parametrize("version", [0, VERSION - 1, VERSION + 1, str(VERSION), None])
def test_unknown_version_is_refused(version):
    with pytest.raises(ResultsError, match=f"reads version {VERSION}"):
        from_json(to_json(GOOD) | {"version": version})


ROW = to_json(GOOD)["measurements"][0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"schema": "other"}, "schema is 'other'"),
        ({"extra": 1}, r"unknown \['extra'\]"),
        ({"complete": 1}, "results.complete is 1, allowed is true or false"),
        ({"measurements": None}, "results.measurements is None"),
        ({"measurements": [3]}, r"results.measurements\[0\] is 3"),
        ({"environment": {}}, "environment lacks"),
        ({"measurements": [ROW | {"measured": "Infinity"}]}, "a number"),
        ({"measurements": [ROW | {"status": "passed"}]}, "no-power"),
        ({"curves": [to_json(GOOD)["curves"][0] | {"y": []}]}, "1 x and 0 y"),
    ],
)
def test_damaged_content_is_refused_with_its_place(damage, message):
    with pytest.raises(ResultsError, match=message):
        from_json(to_json(GOOD) | damage)


def test_missing_key_and_foreign_value_are_refused():
    whole = to_json(GOOD)
    with pytest.raises(ResultsError, match=r"lacks \['complete'\]"):
        from_json({key: whole[key] for key in whole if key != "complete"})
    with pytest.raises(ResultsError, match="one JSON object"):
        from_json([whole])


@pytest.mark.parametrize(
    ("content", "message"), [('{"a": NaN}', "bare word NaN"), ('{"a": 1, "a": 2}', "same key twice")]
)
def test_lenient_json_is_refused(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=message):
        read_results(tmp_path / "results.json")


def test_unwritable_folder_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ResultsError, match=r"cannot be written .*: choose an output folder"):
        write_results(GOOD, tmp_path / "file" / "results.json")
    assert (tmp_path / "file").read_text() == "kept"


def test_failure_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = write_results(GOOD, tmp_path / "results.json")
    before = path.read_bytes()

    def fail(*names: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResultsError, match="No space left"):
        write_results(replace(GOOD, profile="full"), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in Path(tmp_path).iterdir()] == ["results.json"]


def test_curve_of_unequal_lengths_is_refused():
    with pytest.raises(ResultsError, match="2 x and 1 y"):
        Curve(name="memory", problem="p", solver="s", x_name="N", y_name="b", x=(1.0, 2.0), y=(1.0,))
