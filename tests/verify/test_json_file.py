"""Whatever bytes stand where a results file should be: one sentence, at once."""

import os
import stat

import pytest
from hypothesis import given, settings, strategies as st

from verify.json_file import MOST_DEPTH, printable, read_json, remove_unfinished, write_text
from verify.result import ResultsError
from verify.result_file import read_results


BYTES = {
    "lists without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 50_000,
    "deep and whole": b"[" * 900 + b"]" * 900,
    "a little too deep": b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1),
    "an integer of many digits": b'{"schema": ' + b"9" * 10_000 + b"}",
    "an integer of 65 bits": b'{"schema": 18446744073709551616}',
    "a float beyond all": b'{"schema": 1e999}',
    "a lone surrogate": rb'{"schema": "\ud800"}',
    "a lone surrogate as a key": rb'{"\udfff": 1}',
    "an escape that clears the screen": rb'{"schema": "\u001b[2J"}',
    "letters that run backwards": '{"schema": "\u202egood"}'.encode(),
    "a bare control character": b'{"schema": "\x1b"}',
    "a line feed in a name": rb'{"schema": "a\nb"}',
    "another encoding": '{"schema": "x"}'.encode("utf-16"),
    "an older encoding": '{"schema": "\u00e9"}'.encode("latin-1"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "zeros": bytes(1000),
    "nothing": b"",
    "a number": b"3",
    "the same key twice": b'{"a": 1, "a": 2}',
    "a version that is true": b'{"schema": "revdeq-results", "version": true}',
    "many unknown keys": b'{"schema": "revdeq-results", "version": 1, '
    + b", ".join(b'"%d": 0' % n for n in range(10_000))
    + b"}",
}


def sentence(path):
    with pytest.raises(ResultsError) as caught:
        read_results(path)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 1000
    return said


@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_results_are_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    assert "results.json" in sentence(tmp_path / "results.json")


@settings(deadline=None, derandomize=True, max_examples=50)
@given(content=st.binary(max_size=64))
def test_any_bytes_are_refused_in_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "results.json"
    path.write_bytes(content)
    sentence(path)


def test_pipe_device_link_and_folder_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(1 << 40)
    for name in ("pipe", "endless", "loop", "sparse", ".", "gone", "line\nfeed"):
        sentence(tmp_path / name)


def test_printable_shows_what_does_not_print():
    assert printable("a\nb\x1b[1m\ud800\u202e") == r"a\nb\x1b[1m\ud800\u202e"
    assert printable("beta = 0.5 \u2013 \u00e9") == "beta = 0.5 \u2013 \u00e9"


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    write_text("{}", tmp_path / "results.json")
    for name in (".results.json.abcd", ".report.md.abcd", ".results.json", "results.1.json"):
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path, lambda name: name == "results.json")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"results.json", ".report.md.abcd", ".results.json", "results.1.json"}


def test_written_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "other").write_text("")
    mode = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert stat.S_IMODE(write_text("{}", tmp_path / "file.json").stat().st_mode) == mode
    assert read_json(tmp_path / "file.json", "file", "make one") == {}
