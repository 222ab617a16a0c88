"""What sections 2, 3 and 5 conclude, in sentences and tables for the short report, computed from the data."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Grid
from reports.dossier import Dossier
from reports.sections.bits import bits_by_mode
from reports.sections.census import census_sentences
from reports.sections.envelope import envelope_sentences
from reports.sections.modes import mode_sentences
from reports.sections.ratios import ratio_sentences
from reports.sections.trust import PAPER_SETTINGS
from reports.sections.winners import crossing_sentence


Conclusions = tuple[tuple[str, tuple[str | Grid, ...]], ...]
"""Title of a part -> its sentences and tables."""


def conclusions(dossier: Dossier) -> Conclusions:
    """What each part concludes; parts that conclude nothing are left out."""
    bits = [block for block in bits_by_mode(dossier, PAPER_SETTINGS) if isinstance(block, Grid)]
    parts: tuple[tuple[str, Sequence[str | Grid]], ...] = (
        ("What can be trusted", (*(said for _, said in envelope_sentences(dossier)), *bits)),
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
