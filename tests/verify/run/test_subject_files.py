"""What a subject is made of: each file that it imports, late ones too, and nothing that is installed."""

import sys
from pathlib import Path

import pytest

from verify.run import Limits, Workers
from verify.run.files import digest, loaded_files, unchanged


SUBJECT = """
import json, subject_part
from verify.run.files import loaded_files

def load(): return loaded_files()

def solve():
    import subject_late
    return loaded_files()
"""


@pytest.fixture
def subject(tmp_path, monkeypatch):
    (tmp_path / "subject_main.py").write_text(SUBJECT)
    (tmp_path / "subject_part").mkdir()
    (tmp_path / "subject_part" / "__init__.py").write_text("from subject_part import inner")
    (tmp_path / "subject_part" / "inner.py").write_text("")
    (tmp_path / "subject_late.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    import subject_main  # pyright: ignore[reportMissingImports]

    yield subject_main
    for name in [name for name in sys.modules if name.startswith("subject_")]:
        del sys.modules[name]


def test_files_are_those_that_were_imported_by_now(subject, tmp_path):
    with Workers(1, Limits()) as workers:
        at_first, later = (workers.submit(one).result() for one in (subject.load, subject.solve))
    names = {str(Path(path).relative_to(tmp_path.resolve())) for path in at_first}
    assert names == {"subject_main.py", "subject_part/__init__.py", "subject_part/inner.py"}
    assert set(later) - set(at_first) == {str(tmp_path.resolve() / "subject_late.py")}
    assert all(digest(path) == value for path, value in later.items())


def test_change_anywhere_is_a_change(tmp_path):
    recorded = {}
    for name in ("a.py", "late.py"):
        (tmp_path / name).write_text(name)
        recorded[str(tmp_path / name)] = digest(str(tmp_path / name))
    now = {str(tmp_path / "a.py"): digest(str(tmp_path / "a.py"))}
    assert unchanged(recorded, now)
    assert unchanged({}, {})
    assert not unchanged({}, now)
    (tmp_path / "late.py").write_text("changed")
    assert not unchanged(recorded, now)
    (tmp_path / "late.py").unlink()
    assert not unchanged(recorded, now)
    assert not unchanged({str(tmp_path / "gone.py"): ""}, {})


def test_our_own_files_have_their_digest_elsewhere():
    import verify

    assert verify.__file__ not in loaded_files()
