"""The page of features says nothing that no test shows."""

import ast
import re
from pathlib import Path

import pytest


TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "features.md"


def rows_under(heading: str) -> list[list[str]]:
    """Return the cells of the table rows of one section, its head and rule left out."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index(f"\n{heading}\n") if heading != "#" else 0 :].split("\n## ")[0 if heading == "#" else 1]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named_tests() -> list[str]:
    return sorted(set(re.findall(r"`([\w/]+::\w+)`", PAGE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", named_tests())
def test_every_test_that_the_page_names_is_there(name: str):
    file, function = name.split("::")
    tree = ast.parse((TESTS / f"{file}.py").read_text(encoding="utf-8"))
    assert function.startswith("test_")
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_feature_of_ours_is_shown_by_a_test():
    compared = {row[0]: row[1] for row in rows_under("#")}
    shown = {row[0]: row[1] for row in rows_under("## Which test shows it")}
    assert len(compared) >= 29
    assert compared.keys() == shown.keys()
    assert all(re.match(r"yes|refused|raise", said) for said in compared.values())
    assert all("::test_" in named for named in shown.values())


def test_every_environment_works_or_raises_and_is_shown_by_a_test():
    rows = rows_under("## What f may touch")
    assert len(rows) >= 30
    for what, happens, named in rows:
        assert re.match(r"works|raises|detected", happens), what
        assert "::test_" in named, what
        # What needs a GPU is said to, and nothing else is.
        assert ("with a GPU" in happens) == ("test_cuda::" in named), what


def test_every_solver_stands_in_the_table_of_pairs():
    import revdeq.solver

    table = " ".join(row[0] for row in rows_under("## Any solver with any adjoint"))
    abstract = {"Iteration", "Solver", "SteppingSolver", "Splittable", "Splitting"}
    assert {name for name in vars(revdeq.solver) if name[0].isupper()} - abstract == set(re.findall(r"`(\w+)`", table))
