"""Matplotlib figures as small, reproducible SVG that can stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Generator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text

from reports.text import legible


FONT_STACK = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
_PIXELS = 103.0
"""Pixels for an inch, so that figures of full width fill the column of the page."""

_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


@contextmanager
def drawing(name: str) -> Generator[None]:
    """Settings under which every figure is drawn and written.

    Args:
        name: name of the figure, unique in a report; it seeds the identifiers inside the SVG, so that two figures in
            one page do not share any and the same figure is the same text in every run.
    """
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.family": "DejaVu Sans",
            "font.size": 9.0,
            "axes.titlesize": 9.0,
            "axes.labelsize": 9.0,
            "axes.edgecolor": "#444444",
            "axes.linewidth": 0.7,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "lines.linewidth": 1.4,
            "lines.markersize": 4.0,
            "xtick.labelsize": 8.0,
            "ytick.labelsize": 8.0,
            "path.simplify": True,
        }
    ):
        yield


def figure_name(*parts: str) -> str:
    """A name of a figure that can stand in an identifier: letters, digits, hyphens and underscores."""
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", part.replace("-", "_")).strip("_") for part in parts)


def to_svg(figure: Figure) -> str:
    """The figure as one `<svg>` element that shrinks with the page and never grows beyond its own size.

    Call it inside `drawing`, which fixes the identifiers and the fonts.
    """
    _take_literally(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Group names such as "axes_1" repeat from figure to figure and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' (?:xmlns(?::xlink)?)="[^"]*"', "", text)
    width = round(figure.get_figwidth() * _PIXELS)
    style = f"max-width: {width}px; font-family: {FONT_STACK}"
    # Said once, for every text inherits it; and a hundredth of a point is finer than any screen.
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" style="{style}"', text, count=1)
    text = re.sub(r' (?:d|x|y|transform|points)="[^"]*"', _shorter, text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", text).strip()


def literal(text: str) -> str:
    """`text` as matplotlib must be given it to show it as it is: a name that holds dollars is no formula.

    `to_svg` sees to titles, legends and notes; labels of ticks are for those who give them, since matplotlib's own are
    formulas.
    """
    return legible(text).replace("\\$", "$").replace("$", "\\$")


def _take_literally(figure: Figure) -> None:
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().startswith("$\\mathdefault"):
            text.set_text(literal(text.get_text()))


def _shorter(attribute: re.Match[str]) -> str:
    """An attribute of coordinates with two decimals."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), attribute[0])
