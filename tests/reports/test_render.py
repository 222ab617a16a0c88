"""A report is written whole or not at all, and nothing that was there is destroyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import render as render_module
from reports.errors import ReportError
from reports.render import FILES, render


pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture
def small_run(build_results, one_curve_of_each_kind):
    return build_results(curves=one_curve_of_each_kind)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_report_has_its_files_and_no_others(judge, small_run, tmp_path):
    page = render([small_run], [judge(small_run)], tmp_path / "new" / "report")
    assert page == tmp_path / "new" / "report" / "index.html"
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(FILES)
    assert {path.name for path in (page.parent / "tables").iterdir()} == {
        f"{name}.{kind}" for name in ("measurements", "curves", "run_findings") for kind in ("csv", "parquet")
    }


def test_second_report_replaces_the_first_and_leaves_other_files(small_run, build_results, tmp_path):
    render([small_run], None, tmp_path)
    (tmp_path / "results.json").write_text("mine")
    render([build_results(curves=())], None, tmp_path)
    assert "falls short" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "results.json").read_text() == "mine"


@pytest.mark.parametrize("stage", ["to_html", "to_markdown", "to_junit", "write_tables"])
def test_failure_while_a_report_is_made_leaves_the_old_one(small_run, tmp_path, monkeypatch, stage):
    render([small_run], None, tmp_path)
    before = contents(tmp_path)

    def fail(*arguments):
        del arguments
        raise MemoryError("no room")

    monkeypatch.setattr(render_module, stage, fail)
    with pytest.raises(MemoryError):
        render([small_run], None, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stuck", FILES)
def test_failure_while_a_report_is_moved_puts_the_old_one_back(small_run, build_results, tmp_path, monkeypatch, stuck):
    render([small_run], None, tmp_path)
    before = contents(tmp_path)
    rename = Path.rename

    def refuse(self, target):
        if self.parent.name.startswith(".report-") and self.name == stuck:
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ReportError, match="cannot be written"):
        render([build_results(curves=())], None, tmp_path)
    assert contents(tmp_path) == before


def test_folder_that_is_a_file_is_refused_and_kept(small_run, tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(ReportError, match="choose a folder that can be written"):
        render([small_run], None, tmp_path / "report")
    assert (tmp_path / "report").read_text() == "a file"
