"""The report as one HTML page that needs no network and no second file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined

from reports.content import BuiltSection
from reports.text import legible


@cache
def _resource(name: str) -> str:
    return resources.files("reports").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment


def to_html(title: str, subtitle: str, sections: Sequence[BuiltSection]) -> str:
    """The page: styles, figures, data and script inside it.

    Args:
        title: heading of the page.
        subtitle: one line under it.
        sections: what the page shows, in order.

    Returns:
        A complete HTML document.
    """
    template = _environment().from_string(_resource("page.html.jinja"))
    page = template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        style=_resource("style.css"),
        script=_resource("table.js"),
    )
    # HTML cannot hold all that a name can, and would hide or turn some of the rest.
    return legible(page)
