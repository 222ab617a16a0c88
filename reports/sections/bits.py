"""Part of section 2: the bits that are left in the gradient of the paper's own settings, by way and dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.content import Block, Grid, Heading, Notice, Prose
from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.sections.modes import mode_gradients, mode_label, modes_in
from reports.text import ABSENT, bits
from verify.result import Curve


def bits_by_mode(dossier: Dossier, settings: Sequence[tuple[float, int, str]]) -> list[Block]:
    """The bits left, measured, with what the model promises in brackets.

    Args:
        dossier: the runs.
        settings: (beta, N, where it is used).
    """
    heading = Heading("trust-bits", "Bits left in the gradient")
    curves = [curve for curve in mode_gradients(dossier) if curve.adjoint != "implicit"]
    if not curves:
        return [heading, Notice("note", "No gradient was measured by mode: the run has no study of round-off.")]
    modes = modes_in(curves)
    rows: list[tuple[str, ...]] = []
    for beta, num_steps, where in settings:
        for place, dtype in enumerate(precision_order(curve.dtype for curve in curves)):
            own = [curve for curve in curves if curve.dtype == dtype and curve.beta == beta]
            cells = (bits_cell([curve for curve in own if curve.adjoint == mode], num_steps) for mode in modes)
            rows.append(("" if place else f"beta {beta:g}, {num_steps} steps ({where})", dtype, *cells))
    problems = ", ".join(dict.fromkeys(curve.problem for curve in curves))
    return [
        heading,
        Prose(
            "The same settings by the way in which the gradient is had. A gradient cannot have more bits than f has: "
            "53 in float64, 24 in float32, 8 in bfloat16, give or take the one by which a mean over a whole gradient "
            "differs from its worst component. The model's promise is made before anything is run."
        ),
        Grid(
            f"Bits right in the worst gradient of {problems}; in brackets what the model promises.",
            ("setting", "dtype of f", *(mode_label(mode) for mode in modes)),
            tuple(rows),
            (),
            frozenset(range(2, 2 + len(modes))),
        ),
    ]


def bits_cell(curves: Sequence[Curve], num_steps: int) -> str:
    """Bits right in the worst of several curves at N steps, with those promised in brackets; NaN is shown as NaN."""
    found = [
        (y, math.nan if curve.predicted is None else curve.predicted[place])
        for curve in curves
        for place, (x, y) in enumerate(zip(curve.x, curve.y, strict=True))
        if x == num_steps
    ]
    if not found:
        return ABSENT
    worst = max((error for error, _ in found), key=lambda error: math.inf if math.isnan(error) else error)
    promised = [error for _, error in found if not math.isnan(error)]
    return bits(worst) + (f" ({bits(max(promised))})" if promised else "")
