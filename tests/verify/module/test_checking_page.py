"""The examples of docs/checking.md run as they stand, and its table names every claim."""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from reports import pytest_plugin
from verify.module import CLAIMS, check_module


pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "checking.md"
PLUGIN = (
    "-p",
    "no:revdeq",
    "-p",
    "reports.pytest_plugin",
    "-p",
    "no:randomly",
    "-p",
    "no:xdist",
    "-p",
    "no:cacheprovider",
)


def blocks() -> dict[str, str]:
    """The indented blocks of the page that begin with the name of a file."""
    found = re.findall(r"(?m)^    # (\w+\.py)\n((?:(?:    .*)?\n)*)", PAGE.read_text())
    return {name: textwrap.dedent(text) for name, text in found}


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in blocks().items():
        (pytester.path / name).write_text(text)
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.delitem(sys.modules, "my_cell", raising=False)
    return pytester.path


def test_python_example_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile((folder / "check_my_cell.py").read_text(), "check_my_cell.py", "exec"), {})
    assert "gradient-exact holds" in capsys.readouterr().out
    assert all("--only" in finding.replay for finding in check_module("my_cell:make", only=["returns"]))


def test_pytest_example_runs_in_the_dtypes_that_are_chosen(folder: Path, pytester: pytest.Pytester) -> None:
    del folder
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=2)
    chosen = pytester.runpytest_inprocess(*PLUGIN, "-v", "--revdeq-dtype", "bfloat16", "--revdeq-device", "cpu")
    chosen.assert_outcomes(passed=1)
    chosen.stdout.fnmatch_lines(["*test_my_cell*bfloat16*PASSED*"])


def test_table_of_claims_is_whole() -> None:
    assert re.findall(r"(?m)^\| `([\w-]+)` \|", PAGE.read_text()) == list(CLAIMS)


def test_plugin_is_an_entry_point_and_imports_neither_torch_nor_the_harness(pytester: pytest.Pytester) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"revdeq": pytest_plugin.__name__}
    pytester.makepyfile(
        """
        import sys

        def test_nothing_heavy_is_imported():
            assert not {"torch", "numpy", "verify", "revdeq", "typer"} & set(sys.modules)
        """
    )
    pytester.syspathinsert(ROOT)
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_a_device_that_is_not_there_fails_the_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    pytester.makepyfile("def test_it(revdeq_device): pass")
    done = pytester.runpytest_inprocess(*PLUGIN, "--revdeq-device", "all")
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["*asks for cuda, and torch finds no CUDA device here; give cpu*"])
