"""The page stands alone, has its sections in order, and shows what must not be hidden."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from reports.content import Drawing
from reports.dossier import Dossier
from reports.html import to_html
from reports.merge import merge
from reports.sections import SECTIONS, build_sections


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw = ""
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.raw += data


@pytest.fixture(scope="module")
def dossier(synthetic_run) -> Dossier:
    return merge([synthetic_run])


@pytest.fixture(scope="module")
def page(dossier) -> str:
    return to_html("revdeq: verification report", "a run", build_sections(dossier))


@pytest.fixture(scope="module")
def elements(page) -> Elements:
    parser = Elements()
    parser.feed(page)
    return parser


def test_sections_stand_in_the_order_of_the_design(page):
    headings = re.findall(r'<h2><span class="place">(\d+)</span> ([^<]+)</h2>', page)
    assert headings == [
        ("1", "Verdict"),
        ("2", "What can I trust"),
        ("3", "Exact against implicit gradients"),
        ("4", "Convergence"),
        ("5", "Round-off"),
        ("6", "Cost"),
        ("7", "Every measurement"),
        ("8", "Method and sources"),
    ]


def test_contents_lead_to_every_section(elements):
    anchors = [attributes["href"] for tag, attributes in elements.tags if tag == "a" and attributes.get("href")]
    assert [f"#{section.identifier}" for section in SECTIONS] == [one for one in anchors if one and one[0] == "#"]


def test_page_loads_nothing(elements):
    loading = {"src", "srcset", "poster", "data", "action", "background", "formaction", "manifest"}
    for tag, attributes in elements.tags:
        assert not loading & set(attributes), (tag, attributes)
        for name in ("href", "xlink:href"):
            target = attributes.get(name) or ""
            if tag == "a":
                continue
            assert target == "" or target.startswith("#") or target == "data:,", (tag, target)
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    assert "@import" not in elements.raw
    assert "url(" not in elements.raw
    for word in ("fetch(", "XMLHttpRequest", "import(", "http://", "https://"):
        assert word not in elements.raw


def test_identifiers_are_unique(elements):
    found = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(found) == len(set(found))


def test_references_inside_the_page_have_their_target(elements, page):
    known = {attributes["id"] for _, attributes in elements.tags if "id" in attributes}
    wanted = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page))
    assert wanted
    assert wanted <= known


def test_page_is_the_same_text_in_every_run(page, dossier):
    (alone,) = build_sections(dossier, [section for section in SECTIONS if section.identifier == "cost"])
    drawings = [block for block in alone.blocks if isinstance(block, Drawing)]
    assert drawings
    assert all(drawing.svg in page for drawing in drawings)


def test_page_of_a_thousand_rows_stays_small(page):
    assert len(page.encode()) < 2_000_000


def test_what_was_not_measured_is_said_in_words(page):
    assert "What was not measured, and why." in page
    assert "no device on this machine" in page


def test_nan_is_shown_and_falls_short(build_results, one_curve_of_each_kind):
    first = True

    def spoil(row):
        nonlocal first
        if row.check == "gradient" and first:
            first = False
            return replace(row, measured=float("nan"))
        return row

    dossier = merge([build_results(spoil, curves=one_curve_of_each_kind)])
    page = to_html("t", "s", build_sections(dossier))
    assert not dossier.holds
    assert "Falls short: 1 finding against it." in page
    assert "NaN ratio R" in page


def test_text_of_a_run_cannot_become_markup(build_results, one_curve_of_each_kind):
    def spoil(row):
        return replace(row, reason="</script><script>alert(1)</script>", leaf="<b>z1</b>")

    page = to_html("t", "s", build_sections(merge([build_results(spoil, curves=one_curve_of_each_kind)])))
    assert "<script>alert" not in page
    assert "<b>z1" not in page


def test_table_data_holds_every_row_with_its_replay_command(page, synthetic_run):
    match = re.search(r'<script type="application/json" id="explorer-rows">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    data = json.loads(match.group(1))
    assert len(data["rows"]) == len(synthetic_run.measurements)
    replay = data["columns"].index("replay")
    found = {data["pool"][row[replay]] for row in data["rows"]}
    assert found == {row.replay for row in synthetic_run.measurements}


def test_empty_run_says_what_is_missing_in_every_section(build_results):
    def drop(row):
        del row

    dossier = merge([build_results(drop, curves=(), selftest=None)])
    sections = build_sections(dossier)
    page = to_html("t", "s", sections)
    assert not dossier.holds
    for word in (
        "nothing here can be trusted",
        "No gradient error was measured",
        "No convergence curve",
        "No reconstruction error",
        "No saved bytes",
        "There is no measurement",
        "No planted fault was tried",
    ):
        assert word in page


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("reports.command", "{'typer', 'rich', 'pandas', 'matplotlib', 'torch'}"),
        ("reports.commands.gate, reports.commands.compare", "{'pandas', 'matplotlib', 'torch', 'numpy'}"),
    ],
)
def test_what_only_reads_results_imports_nothing_heavy(module, heavy):
    code = f"import {module}, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
