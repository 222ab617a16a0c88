"""What is public is named once, and the site has a member for each name."""

import importlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

import revdeq


ROOT = Path(__file__).parents[2]
PACKAGES = [
    *("revdeq", "revdeq.nn", "revdeq.rates", "revdeq.solver", "revdeq.adjoint", "revdeq.arithmetic"),
    *("verify", "verify.problems", "verify.reference", "verify.checks", "verify.module"),
]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_has_its_place_on_the_site(package):
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    page = (ROOT / "docs" / "api" / f"{package.partition('.')[0]}.md").read_text()
    shown = re.findall(rf"^::: {re.escape(package)}\.(\w+)$", page, flags=re.MULTILINE)
    assert shown == list(module.__all__)


def test_a_star_import_takes_nothing_but_the_public_names():
    taken: dict[str, object] = {"nn": "mine", "rates": "mine"}
    exec("from revdeq import *", taken)
    assert taken["nn"] == taken["rates"] == "mine"
    assert set(revdeq.__all__) <= set(taken)


def test_no_public_name_shadows_a_module():
    for name in revdeq.__all__:
        assert importlib.util.find_spec(f"revdeq.{name}") is None, name


def test_the_version_is_that_of_the_distribution():
    assert revdeq.__version__ == importlib.metadata.version("revdeq")
