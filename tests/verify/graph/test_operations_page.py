from pathlib import Path

from verify.reference.graph import covered_operations, operation_table


PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_page_of_operations_is_the_registry():
    assert operation_table() in PAGE.read_text()


def test_at_least_eighty_operations_are_covered():
    assert len(covered_operations()) >= 80
