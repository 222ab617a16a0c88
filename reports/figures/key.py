"""The legend of a figure: methods by colour and marker, dtypes by line style, apart from each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.figures.style import (
    BAND,
    BLACK,
    MARK_LINE,
    MARK_WIDTH,
    OWN_PREDICTION_LINE,
    OWN_PREDICTION_WIDTH,
    PREDICTION_LINE,
    PREDICTION_WIDTH,
    VERMILLION,
    Appearance,
    adjoint_key,
    beta_appearance,
    method_appearance,
    precision_line,
)
from reports.text import precision
from verify.result import Curve


_WIDE_FIRST = ("float64", "float32 f", "float32", "float16", "bfloat16 f", "bfloat16")


def precision_order(names: Iterable[str]) -> list[str]:
    """Precisions from wide to narrow, unknown ones last by name."""
    return sorted(set(names), key=lambda name: (_rank(name), name))


def method_entries(adjoints: Iterable[str], order: Sequence[str] = ()) -> list[tuple[Artist, str]]:
    """One entry per method: those of `order` first, in that order, then the others by name."""
    seen = {adjoint_key(adjoint): method_appearance(adjoint) for adjoint in adjoints}
    places = {key: place for place, key in enumerate(order)}
    chosen = sorted(seen, key=lambda key: (places.get(key, len(places)), key))
    return [(_line(seen[key]), seen[key].label) for key in chosen]


def precision_entries(curves: Iterable[Curve]) -> list[tuple[Artist, str]]:
    """One entry per precision, drawn in grey because the line style alone says it."""
    names = precision_order(precision(curve.dtype, curve.state_dtype) for curve in curves)
    return [
        (Line2D([], [], color="#555555", linestyle=precision_line(name), linewidth=1.6), name) for name in names if name
    ]


def beta_entries(betas: Sequence[float | None]) -> list[tuple[Artist, str]]:
    """One entry per beta, from small to large."""
    ordered = sorted(set(betas), key=lambda value: -1.0 if value is None else value)
    looks = [beta_appearance(beta, betas) for beta in ordered]
    return [(_line(look), look.label) for look in looks]


def band_entry(label: str) -> tuple[Artist, str]:
    """The entry of the shaded band."""
    return Patch(facecolor=BAND, alpha=0.45), label


def broken_entry() -> tuple[Artist, str]:
    """The entry of the cross that stands for NaN and infinity."""
    return Line2D([], [], color=VERMILLION, linestyle="none", marker="x", markeredgewidth=1.8), "NaN or infinite"


def prediction_entry(label: str, own_colour: bool = False) -> tuple[Artist, str]:
    """The entry of a predicted line: thin and black, or dashed and in the colour of what it predicts."""
    if own_colour:
        return Line2D([], [], color="#555555", linewidth=OWN_PREDICTION_WIDTH, linestyle=OWN_PREDICTION_LINE), label
    return Line2D([], [], color=BLACK, linewidth=PREDICTION_WIDTH, linestyle=PREDICTION_LINE), label


def mark_entry(label: str) -> tuple[Artist, str]:
    """The entry of a vertical line that marks a place on the x axis."""
    return Line2D([], [], color="#555555", linewidth=MARK_WIDTH, linestyle=MARK_LINE), label


def _line(look: Appearance) -> Line2D:
    face = "none" if look.hollow else look.colour
    return Line2D(
        [], [], color=look.colour, marker=look.marker, markersize=look.size, markerfacecolor=face, linewidth=1.6
    )


def _rank(name: str) -> int:
    places = [place for place, start in enumerate(_WIDE_FIRST) if name.startswith(start)]
    return places[0] if places else len(_WIDE_FIRST)
