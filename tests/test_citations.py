"""The tags that sources cite, "(T6)" or "(A4)", stand on a page of the documentation."""

import io
import re
import tokenize
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PAGES = {"T": ROOT / "docs" / "theory.md", "M": ROOT / "docs" / "theory.md", "A": ROOT / "docs" / "acceptance.md"}
SOURCES = ("revdeq", "verify", "reports", "tests", "benchmarks")
# A tag stands alone: not within a word, a name in code or a longer number.
TAG = re.compile(r"(?<![\w.`'\"-])([TMA])(0|[1-9]\d?)(?![\w'\"`])")
ANCHOR = re.compile(r'<a id="([tma]\d{1,2})"></a>')


def anchors(page):
    return {tag.upper() for tag in ANCHOR.findall(page.read_text(encoding="utf-8"))}


def cited(path):
    """The tags in comments and strings of a module, or on a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        spoken = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        text = "\n".join(token.string for token in tokens if token.type in spoken)
    return {letter + number for letter, number in TAG.findall(text)}


def sources():
    modules = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*modules, *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def test_every_tag_that_is_cited_stands_on_its_page():
    known = {letter: anchors(page) for letter, page in PAGES.items()}
    unknown = {
        f"{path.relative_to(ROOT)}: {tag}" for path in sources() for tag in cited(path) if tag not in known[tag[0]]
    }
    assert not unknown


def test_no_page_outside_the_repository_is_cited():
    # Names of pages in capitals stand for files that a reader does not have.
    words = re.compile(r"\b(?:THE" + r"ORY|ACCEP" + r"TANCE)\b")
    assert [path for path in sources() if words.search(path.read_text(encoding="utf-8"))] == []


def test_every_kind_of_tag_is_cited():
    letters = {tag[0] for path in sources() if path.suffix == ".py" for tag in cited(path)}
    assert letters == set(PAGES)


@pytest.mark.parametrize("page", sorted(set(PAGES.values())), ids=lambda page: page.name)
def test_anchors_are_unique_and_named_after_their_tag(page):
    text = page.read_text(encoding="utf-8")
    found = ANCHOR.findall(text)
    assert len(found) == len(set(found)) > 0
    assert all(f'<a id="{tag}"></a>**{tag.upper()}' in text for tag in found)


@pytest.mark.parametrize("page", sorted(set(PAGES.values())), ids=lambda page: page.name)
def test_links_between_the_pages_lead_to_anchors(page):
    for name, tag in re.findall(r"\((\w*\.?\w*)#([tma]\d{1,2})\)", page.read_text(encoding="utf-8")):
        assert tag.upper() in anchors(page.parent / name if name else page)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('"""(T6, M1)."""', {"T6", "M1"}),
        ("x = T6  # (A4)", {"A4"}),
        ('f"{x} (A14): so"', {"A14"}),
        ('"A100, a4, `T1`, MA1"', set()),
    ],
)
def test_tags_are_found_in_what_is_said_and_not_in_names(tmp_path, text, tags):
    path = tmp_path / "module.py"
    path.write_text(text, encoding="utf-8")
    assert cited(path) == tags
