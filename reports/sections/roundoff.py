"""Section 5: what rounding does to the rebuilt states and to the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.content import Block, Fold, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.reconstruction import reconstruction
from reports.sections.census import census_blocks
from reports.sections.modes import mode_blocks, mode_cost_blocks
from reports.sections.parts import by_precision
from reports.sections.ratios import ratio_blocks
from reports.text import number, plural
from verify.result import Curve


def build(dossier: Dossier) -> Sequence[Block]:
    """Errors by mode, the ratios R, the rebuilt start on every problem, the census, and what the modes cost."""
    return [
        Prose(
            "Backward rebuilds the states by running the iteration in reverse, which amplifies rounding by the forward "
            "rate over (1 - beta) squared per step (T6). The gradient suffers less than the states, because the "
            "adjoint gives most weight to the last steps, whose states are still good (M1)."
        ),
        *mode_blocks(dossier),
        *mode_cost_blocks(dossier),
        *ratio_blocks(dossier),
        *_rebuilt(dossier),
        *census_blocks(dossier),
    ]


def _rebuilt(dossier: Dossier) -> list[Block]:
    curves = dossier.named("reconstruction")
    if not curves:
        return [Notice("bad", "No reconstruction error was measured against the number of steps.")]
    caption = "Error of the rebuilt start state"
    figures = by_precision(curves, reconstruction, "reconstruction", caption, _agreement)
    return [Fold("The rebuilt start on every problem, with the spread that rounding alone gives", tuple(figures))]


def _agreement(curves: Sequence[Curve]) -> str:
    """The span of measured over predicted errors where rounding predicts that a start is left."""
    ratios = [
        y / predicted
        for curve in curves
        for y, predicted in zip(curve.y, curve.predicted or (), strict=bool(curve.predicted))
        if 0.0 < predicted < 1.0 and y != 0.0
    ]
    if not ratios:
        return ""
    low, high = (math.nan, math.nan) if any(map(math.isnan, ratios)) else (min(ratios), max(ratios))
    return (
        f" Where it is predicted to be below 1 and is not exactly 0, it is {number(low, 2)} to {number(high, 2)} times "
        f"what rounding predicts ({plural(len(ratios), 'point')})."
    )


SECTION = Section("roundoff", "Round-off", build)
