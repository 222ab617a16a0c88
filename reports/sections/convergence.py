"""Section 4: how fast the iteration converges, and whether that is what theory predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.content import Block, Fold, Grid, Level, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.convergence import convergence, until_flat
from reports.ranking import verdict_level, verdict_word
from reports.sections.parts import by_precision
from reports.sections.rates import rate_blocks
from reports.text import number
from verify.result import Curve


def build(dossier: Dossier) -> Sequence[Block]:
    """Convergence curves with the predicted rate, and the fitted rates beside the predicted ones."""
    curves = dossier.named("convergence")
    if not curves:
        return [Notice("bad", "No convergence curve was measured."), *rate_blocks(dossier)]
    blocks: list[Block] = [
        Prose(
            "Each step costs two evaluations of f. Where the spectrum of the Jacobian at the fixed point is known, the "
            "rate is that of successive over-relaxation (T2); thin black lines show it."
        )
    ]
    shown = [until_flat(curve) for curve in curves]
    caption = "Convergence, each curve cut soon after it is flat"
    blocks += by_precision(shown, convergence, "convergence", caption, _floors)
    blocks += _rates(dossier)
    blocks += rate_blocks(dossier)
    return blocks


def _floors(curves: Sequence[Curve]) -> str:
    """How near to the fixed point the iterates of a figure come, at best and at worst."""
    ends = [(min(curve.y, default=math.nan), curve) for curve in curves]
    if not ends:
        return ""
    (least, _), (most, worst) = (
        choose(ends, key=lambda item: math.inf if math.isnan(item[0]) else item[0]) for choose in (min, max)
    )
    return (
        f" The iterates come to within {number(least, 2)} of the fixed point at best, and {number(most, 2)} at worst "
        f"({worst.problem}, beta {worst.beta:g})."
    )


def _rates(dossier: Dossier) -> list[Block]:
    rows = [
        (finding.measurement, finding)
        for _, finding in dossier.findings
        if finding.measurement is not None and finding.check == "convergence-rate"
    ]
    if not rows:
        return [Notice("bad", "No convergence rate was fitted.")]
    cells = tuple(
        (
            row.problem, number(row.beta, 4), row.device, number(row.got, 6), number(row.expected, 6),
            number(row.measured), finding.allowed, verdict_word(finding.passed),
        )
        for row, finding in rows
    )  # fmt: skip
    columns = ("problem", "beta", "device", "observed rate", "predicted rate", "|ln ratio|", "allowed", "verdict")
    levels: list[Level] = [verdict_level(finding.passed) for _, finding in rows]
    grid = Grid(
        "Rates fitted above round-off, against the spectral rate.", columns, cells, levels, frozenset({1, 3, 4, 5})
    )
    failed = sum(finding.passed is not True for _, finding in rows)
    return [Fold(f"Fitted rates: {len(rows)} fits, {failed} of them beyond the limit", (grid,))]


SECTION = Section("convergence", "Convergence", build)
