"""How a method, a dtype and a device look, the same in every figure.

References:
    M. Okabe and K. Ito, "Color Universal Design" (2008), for the palette; B. Wong, Nature Methods 8, 441 (2011),
    doi:10.1038/nmeth.1618.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias


LineStyle: TypeAlias = Literal["-", ":", "--"] | tuple[float, tuple[float, ...]]

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
BAND = "#BBBBBB"

PREDICTION_LINE: LineStyle = "-"
PREDICTION_WIDTH = 0.6
OWN_PREDICTION_LINE: LineStyle = (0.0, (3.5, 1.8))
OWN_PREDICTION_WIDTH = 0.9
MARK_LINE: LineStyle = (0.0, (1.0, 1.2))
MARK_WIDTH = 1.3

_SPARE = (ORANGE, SKY, BLACK)
_SPARE_MARKERS = ("v", "P", "X")


@dataclass(frozen=True)
class Appearance:
    """Colour and marker of a method, and the name that the legend gives it; what is large and hollow lies behind."""

    colour: str
    marker: str
    label: str
    size: float = 3.6
    hollow: bool = False
    order: float = 3.0


_KNOWN: dict[str, Appearance] = {
    "reversible": Appearance(BLUE, "o", "exact (reversible adjoint)"),
    "unrolled": Appearance(GREEN, "^", "exact (unrolled adjoint)", 6.5, hollow=True, order=2.0),
    "default": Appearance(PURPLE, "d", "exact (default adjoint)", 5.0, hollow=True, order=2.5),
    "implicit": Appearance(VERMILLION, "s", "implicit adjoint"),
    "none": Appearance(BLACK, "D", "forward only"),
    "floating": Appearance(BLUE, "o", "reversed, states as narrow as f"),
    "wide": Appearance(SKY, "P", "reversed, float64 states", 4.6),
    "bitwise": Appearance(BLACK, "x", "reversed, bitwise", 5.0, order=3.5),
    "checkpointed": Appearance(ORANGE, "v", "checkpointed", 6.0, hollow=True, order=2.2),
}

_LINES: dict[str, LineStyle] = {
    "float64": "-",
    "float32 f, float64 state": (0.0, (5.0, 1.6)),
    "bfloat16 f, float64 state": (0.0, (1.2, 1.4)),
    "float32": (0.0, (5.0, 1.4, 1.2, 1.4)),
    "bfloat16": (0.0, (1.2, 3.0)),
}


def adjoint_key(adjoint: str) -> str:
    """`ReversibleAdjoint()`, `reversible adjoint` and `reversible` all name the method `reversible`; "" is `none`."""
    key = adjoint.split("(")[0].strip().lower().removesuffix("adjoint").strip()
    return key or "none"


def method_appearance(adjoint: str) -> Appearance:
    """Colour, marker and label of an adjoint; one that is not known gets a spare colour chosen by its name alone."""
    key = adjoint_key(adjoint)
    if key in _KNOWN:
        return _KNOWN[key]
    # A sum of code points, unlike hash(), is the same in every process.
    place = sum(map(ord, key)) % len(_SPARE)
    return Appearance(_SPARE[place], _SPARE_MARKERS[place], f"{key} adjoint")


def precision_line(name: str) -> LineStyle:
    """Line style of a precision, named as by `reports.text.precision`: float64 is solid."""
    return _LINES.get(name, (0.0, (8.0, 2.0, 1.2, 2.0, 1.2, 2.0)))


_RAMP = (SKY, BLUE, GREEN, ORANGE, VERMILLION, PURPLE, BLACK)
_RAMP_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def beta_appearance(beta: float | None, betas: Sequence[float | None]) -> Appearance:
    """Colour and marker of a beta by its place among the betas of a figure; from the eighth on they repeat."""
    ordered = sorted(set(betas), key=lambda value: -1.0 if value is None else value)
    place = ordered.index(beta) % len(_RAMP)
    label = "no beta" if beta is None else f"beta {beta:.4g}"
    return Appearance(_RAMP[place], _RAMP_MARKERS[place], label)
