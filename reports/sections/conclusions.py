"""What sections 2, 3 and 5 conclude, in sentences for the short report; each is computed from the data."""

from __future__ import annotations

from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.sections.bits import bits_cell
from reports.sections.census import census_sentences
from reports.sections.envelope import envelope_sentences
from reports.sections.modes import mode_gradients, mode_label, mode_sentences, modes_in
from reports.sections.ratios import ratio_sentences
from reports.sections.trust import PAPER_SETTINGS
from reports.sections.winners import crossing_sentence


Conclusions = tuple[tuple[str, tuple[str, ...]], ...]
"""Title of a part -> its sentences."""


def conclusions(dossier: Dossier) -> Conclusions:
    """The sentences of each part; parts that have none are left out."""
    parts = (
        ("What can be trusted", (*(said for _, said in envelope_sentences(dossier)), *_bits(dossier))),
        ("Exact against implicit gradients", crossing_sentence(dossier)),
        (
            "Round-off",
            (
                *mode_sentences(dossier),
                *ratio_sentences(dossier),
                *(said for _, said in census_sentences(dossier)),
            ),
        ),
    )
    return tuple((title, tuple(said)) for title, said in parts if said)


def _bits(dossier: Dossier) -> list[str]:
    """For each of the paper's settings, the bits right in the worst gradient of every way and dtype."""
    curves = [curve for curve in mode_gradients(dossier) if curve.adjoint != "implicit"]
    said: list[str] = []
    for beta, num_steps, _ in PAPER_SETTINGS:
        parts: list[str] = []
        for mode in modes_in(curves):
            own = [curve for curve in curves if curve.adjoint == mode and curve.beta == beta]
            dtypes = precision_order(curve.dtype for curve in own)
            cells = [
                f"{bits_cell([c for c in own if c.dtype == dtype], num_steps, promised=False)} in {dtype}"
                for dtype in dtypes
            ]
            parts.append(f"{mode_label(mode)} {', '.join(cells)}")
        if parts:
            said.append(f"Bits right at beta {beta:g}, {num_steps} steps: {'; '.join(parts)}.")
    return said
