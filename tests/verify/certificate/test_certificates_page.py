"""The page on certificates: its example is run, and its claims and answers are those of the page."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from verify.certificate import Answer, certify, recheck


PAGE = (Path(__file__).parents[3] / "docs" / "certificates.md").read_text(encoding="utf-8")


EXAMPLE, OF_A_SET = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_example_of_the_page_gives_the_claims_and_lines_of_the_page() -> None:
    module: dict[str, Any] = {"__name__": "my_cell"}
    exec(EXAMPLE, module)
    found = certify(module["make"], beta=0.5, num_steps=8)
    printed = re.findall(r"^    (certified|refuted|undecided): (.*?): ", PAGE, re.MULTILINE)
    assert printed == [(finding.answer.value, finding.claim) for finding in found.findings]
    assert re.findall(r"^    advice: (.{20})", PAGE, re.MULTILINE) == [sentence[:20] for sentence in found.advice]
    worst = [f"{row.dtype} on {row.device}, {row.adjoint} gradient" for row in found.bits_right if row.worst]
    assert re.findall(r"^    (\w+ on \w+, \w+ gradient): ", PAGE, re.MULTILINE) == worst
    lines = [": ".join(line.split(": ")[:2]) for line in recheck(found.to_json())]
    assert re.findall(r"^    holds: (.*?: .*?): ", PAGE, re.MULTILINE) == lines[:3]


def test_example_of_a_set_is_certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: dict[str, Any] = {"__name__": "my_cell"}
    exec(EXAMPLE, module)
    cell, z0, x = module["make"]()
    names: dict[str, Any] = {
        "cell": cell,
        "z0": z0[:1],
        "image": x[:1],
        "readout": torch.nn.Linear(8, 3, dtype=torch.float64),
    }
    monkeypatch.chdir(tmp_path)
    exec(OF_A_SET, names)
    assert names["found"].findings[0].answer is Answer.CERTIFIED
    assert {path.name for path in (tmp_path / "certificate").iterdir()} == {"certificate.json", "recheck.py"}
