"""Section 3: the exact against the implicit gradient: which error each makes, against its cost."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Block, Drawing, Fold, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.gradient_error import gradient_error
from reports.figures.svg import figure_name
from reports.sections.trust import PAPER_SETTINGS
from reports.text import plural
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
            "targets. Colour and marker say the method, the line style says the precision; a value of exactly zero "
            "lies on the lower edge, a NaN is a cross on the upper edge."
        )
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
            figures.append(gradient_error(own, name=name, caption=f"Beta {beta:.4g}, {device}. {caption}"))
    return figures


SECTION = Section("gradients", "Exact against implicit gradients", build)
