"""The benchmark runs from a clean clone and says what it did not measure."""

import importlib
import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch


ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("benchmarks.training_step")
    for name in ("benchmarks.training_step", "verify.studies.cost.peers"):
        monkeypatch.setattr(f"{name}.absent_peers", lambda: {"torchdeq": "it is not installed"})
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_a_run_writes_every_method_with_counts_and_names_absent_peers(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "rows.json"
    command = ["training_step", "--widths", "32", "--tokens", "4", "--steps", "2", "--rounds", "3", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    benchmark.main()
    document = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["method"]: row for row in document["rows"]}
    assert rows["floor"]["ratio_to_floor"] == 1.0
    reversible = rows["reversible, reversible, float64"]
    assert (reversible["evaluations"], reversible["vjps"]) == (8, 4)
    # So few steps store what f sees, float32 numbers of 4 x 32 components, and a fingerprint, twice a step.
    assert reversible["saved_bytes_per_step"] == 2 * (4 * 32 * 4 + 8)
    assert rows["reversible, unrolled, float64"]["saved_bytes_per_step"] > 0
    assert document["not_measured"].keys() == {"torchdeq", "JAX library revdeq"}
    printed = capsys.readouterr().out
    assert "not measured: torchdeq: it is not installed" in printed
    assert all(name in printed for name in rows)


def test_every_option_of_the_page_exists(benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr("sys.argv", ["training_step", "--help"])
    with pytest.raises(SystemExit):
        benchmark.main()
    offered = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    said = set(re.findall(r"(?<!-)--[a-z][\w-]+", page)) - {"--out"}
    assert said
    assert said <= offered
