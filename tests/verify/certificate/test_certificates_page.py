"""The page on certificates: its example is run, and its claims and answers are those of the page."""

import re
from pathlib import Path
from typing import Any

from verify.certificate import certify, recheck


PAGE = (Path(__file__).parents[3] / "docs" / "certificates.md").read_text(encoding="utf-8")


def test_example_of_the_page_gives_the_claims_and_lines_of_the_page() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module: dict[str, Any] = {"__name__": "my_cell"}
    exec(example, module)
    found = certify(module["make"], beta=0.5, num_steps=8)
    printed = re.findall(r"^    (certified|refuted|undecided): (.*?): ", PAGE, re.MULTILINE)
    assert printed == [(finding.answer.value, finding.claim) for finding in found.findings]
    assert re.findall(r"^    advice: (.{20})", PAGE, re.MULTILINE) == [sentence[:20] for sentence in found.advice]
    worst = [f"{row.dtype} on {row.device}, {row.adjoint} gradient" for row in found.bits_right if row.worst]
    assert re.findall(r"^    (\w+ on \w+, \w+ gradient): ", PAGE, re.MULTILINE) == worst
    lines = [": ".join(line.split(": ")[:2]) for line in recheck(found.to_json())]
    assert re.findall(r"^    holds: (.*?: .*?): ", PAGE, re.MULTILINE) == lines[:3]
