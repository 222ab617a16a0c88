import re
from pathlib import Path
from typing import Any

import torch

from verify.certificate import Answer, certify
from verify.reference.graph import covered_operations, operation_table, unregister


PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_page_of_operations_is_the_registry() -> None:
    assert operation_table() in PAGE.read_text(encoding="utf-8")


def test_at_least_eighty_operations_are_covered() -> None:
    assert len(covered_operations()) >= 80


def test_example_of_a_registered_operation_is_certified() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module: dict[str, Any] = {"__name__": "example"}
    torch.manual_seed(0)
    exec(example, module)
    try:
        found = certify(module["cell"], num_steps=2, digits=15, dtypes=(torch.float64,))
    finally:
        unregister("aten.acosh.default")
    assert found.answer is Answer.CERTIFIED
    assert min(row.bits for row in found.bits_right if row.adjoint == "reversible") > 45
