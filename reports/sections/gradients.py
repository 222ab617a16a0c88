"""Section 3: the exact against the implicit gradient: which error each makes, against its cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from reports.content import Block, Drawing, Fold, Heading, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.gradient_error import gradient_error
from reports.figures.svg import figure_name
from reports.sections.trust import PAPER_SETTINGS
from reports.sections.winners import winner_blocks
from reports.text import number, plural, precision
from verify.result import Curve


_CAPTIONS = {
    "n-step": (
        "Against the gradient of the N-step map itself. The exact methods differ from it by rounding alone; the "
        "implicit gradient belongs to another target and meets it only as N grows, at the forward rate (M2)."
    ),
    "fixed-point": (
        "Against the gradient of the fixed point. Here the exact methods carry the truncation of N steps; an implicit "
        "gradient taken at an unconverged state is wrong too."
    ),
}


def build(dossier: Dossier) -> Sequence[Block]:
    """Error against evaluations of f, to both targets, one figure per beta, target and device."""
    curves = dossier.named("error-vs-evaluations")
    if not curves:
        return [Notice("bad", "No gradient error was measured against evaluations of f.")]
    paper = {beta for beta, _, _ in PAPER_SETTINGS}
    keys = sorted({(curve.device, -1.0 if curve.beta is None else curve.beta) for curve in curves})
    blocks: list[Block] = [
        Prose(
            "Two gradients are asked for under one name. The exact one differentiates the N steps that were taken; "
            "the implicit one differentiates the fixed point that they approach. Each is shown against both "
            "targets."
        ),
        *winner_blocks(dossier, sorted(paper)),
        Heading("gradients-problems", "Problem by problem"),
        Prose(
            "Colour and marker say the method, the line style says the precision; a value of exactly zero lies on the "
            "lower edge, a NaN is a cross on the upper edge."
        ),
    ]
    others: list[Block] = []
    for device, beta in keys:
        own = [
            curve for curve in curves if curve.device == device and (-1.0 if curve.beta is None else curve.beta) == beta
        ]
        (blocks if beta in paper else others).extend(_figures(own, device, beta))
    if others:
        blocks.append(Fold(f"The same for other betas ({plural(len(others), 'figure')})", tuple(others)))
    return blocks


def _figures(curves: Sequence[Curve], device: str, beta: float) -> list[Drawing]:
    figures: list[Drawing] = []
    for target, caption in _CAPTIONS.items():
        own = [curve for curve in curves if curve.target == target]
        if own:
            name = figure_name("gradient-error", target, device, f"beta {beta:g}")
            text = f"Beta {beta:.4g}, {device}. {caption} {_conclusion(own, target)}".rstrip()
            figures.append(gradient_error(own, name=name, caption=text))
    return figures


def _conclusion(curves: Sequence[Curve], target: str) -> str:
    """The largest error in units of its prediction; or how near both come to the fixed point's gradient."""
    if target == "n-step":
        found = [
            (y / predicted, curve, x)
            for curve in curves
            for x, y, predicted in zip(curve.x, curve.y, curve.predicted or (), strict=bool(curve.predicted))
            if 0.0 < predicted < 1.0
        ]
        if not found:
            return ""
        worst, curve, x = max(found, key=lambda item: math.inf if math.isnan(item[0]) else item[0])
        where = f"{curve.problem}, {precision(curve.dtype, curve.state_dtype)}, {x:g} evaluations"
        return f"The reversed gradient's error is at most {number(worst, 2)} times the predicted size ({where})."
    most = max(x for curve in curves for x in curve.x)
    said: list[str] = []
    for adjoint in ("default", "implicit"):
        ends = [c.y[-1] for c in curves if c.adjoint == adjoint and c.dtype == "float64" and c.x[-1] == most]
        if ends:
            middle = math.nan if any(map(math.isnan, ends)) else median(ends)
            said.append(f"{number(middle, 2)} for the {adjoint} adjoint")
    return f"In float64, after {most:g} evaluations, the middle error is {' and '.join(said)}." if said else ""


SECTION = Section("gradients", "Exact against implicit gradients", build)
