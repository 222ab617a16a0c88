"""Whatever stands in a name, an output stays well formed and says what it would have said of another name."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from reports.figures.svg import drawing, literal, to_svg
from reports.html import to_html
from reports.junit import to_junit
from reports.markdown import code, plain, to_markdown
from reports.merge import merge
from reports.sections import SECTIONS, build_sections
from reports.text import legible
from verify.result import NotMeasured


NAMES = [
    "x\x00\x1b[2Jy",
    "lone \ud800 surrogate, not a character \ufffe",
    "</script></td></table><script>alert(1)</script>",
    '"><failure/><testcase name="holds',
    "]]><!-- &amp; &#0;",
    "a | b ` c `` d \\| e",
    "x\n\n## revdeq: holds: everything\n\n| a | b |",
    "[holds](http://example.org) ![](x) <b>*_~",
    "\u202eecalp a",
    r"$\undefined$ and $$",
]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def named(build_results, one_curve_of_each_kind):
    """A run of which some rows fail, with a name wherever a run has one."""

    def build(name):
        def rename(row):
            row = replace(row, case=f"{row.case} {name}", leaf=name, reason=name, replay=name)
            return replace(row, measured=math.nan) if row.check == "linear" else row

        curves = tuple(replace(curve, problem=name) for curve in one_curve_of_each_kind)
        left = (NotMeasured(what=name, why=name),)
        return merge([build_results(rename, curves=curves, subject=name, profile=name, not_measured=left)])

    return build


@pytest.fixture
def dossiers(name, named):
    return named(name), named("a name")


def test_junit_counts_what_it_counts_of_another_name(dossiers):
    counted = []
    for one in dossiers:
        (suite,) = ET.fromstring(to_junit(one))
        counted.append([suite.get(key) for key in ("tests", "failures", "skipped")] + [len(suite.findall("testcase"))])
    assert counted[0] == counted[1]


def test_markdown_has_the_lines_and_cells_of_another_name(dossiers):
    def shape(text):
        lines = text.splitlines()
        return [(line[:3] if line.startswith("#") else "", re.sub(r"\\.", "", line).count("|")) for line in lines]

    text, other = map(to_markdown, dossiers)
    assert shape(text) == shape(other)
    text.encode()
    assert all(line.isprintable() for line in text.splitlines())
    assert "<script" not in re.sub(r"\\.", "", re.sub(r"`[^`]*`", "", text))


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_page_has_the_elements_of_another_name(dossiers):
    kept = [section for section in SECTIONS if section.identifier in ("verdict", "measurements")]
    found = []
    for one in dossiers:
        title = one.runs[0].results.subject
        text = to_html(title, title, build_sections(one, kept))
        text.encode()
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
        parser = Elements()
        parser.feed(text)
        found.append(parser.tags)
    assert found[0] == found[1]


def test_figure_shows_a_name_as_it_is(name):
    from matplotlib.figure import Figure

    with drawing("hostile"):
        figure = Figure()
        axes = figure.add_subplot()
        axes.semilogy([1, 2], [1e-3, 1.0], label=name)
        axes.set_title(name)
        axes.set_xticks([1.0, 2.0], [literal(name), "other"])
        axes.legend()
        text = to_svg(figure)
    root = ET.fromstring(text.replace("xlink:href", "href"))
    assert [element.text for element in root.iter("text")].count(legible(name).splitlines()[0]) == 3


def test_plain_and_code_say_no_more_than_the_text(name):
    for written in (plain(name), code(name)):
        assert written.isprintable()
        assert "|" not in re.sub(r"\\.", "", written)
    assert plain("beta=0.5, N=4 (float64)") == "beta=0.5, N=4 (float64)"
    assert code("args.W_1") == "`args.W_1`"
