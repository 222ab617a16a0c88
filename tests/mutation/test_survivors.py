"""The reasons why mutants may survive are about code that is still there."""

import tomllib
from pathlib import Path

import pytest


HERE = Path(__file__).parent
SURVIVORS = tomllib.loads((HERE / "survivors.toml").read_text())["survivor"]


@pytest.mark.parametrize("entry", SURVIVORS, ids=lambda entry: f"{entry['file']}: {entry['after']}")
def test_what_may_survive_stands_in_the_code_and_has_a_reason(entry):
    assert set(entry) == {"file", "before", "after", "reason"}
    lines = [line.strip() for line in (HERE.parents[1] / entry["file"]).read_text().splitlines()]
    assert entry["before"] in lines
    assert entry["after"] != entry["before"]
    assert len(entry["reason"].split()) > 3
