"""Section 8: how it was measured, what the words mean, and where the mathematics comes from."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reports.content import Block, Facts, Prose, Section
from reports.dossier import Dossier


_SOURCES: tuple[tuple[str, str, str], ...] = (
    (
        "The method",
        "McCallum, Arora, Foster, Reversible Deep Equilibrium Models, 2025",
        "https://arxiv.org/abs/2509.12917",
    ),
    (
        "Rates",
        "Young, Iterative methods for solving partial difference equations of elliptic type, 1954",
        "https://doi.org/10.1090/S0002-9947-1954-0059635-7",
    ),
    (
        "Deep equilibrium models",
        "Bai, Kolter, Koltun, Deep Equilibrium Models, 2019",
        "https://arxiv.org/abs/1909.01377",
    ),
    (
        "Random rounding",
        "Parker, Monte Carlo Arithmetic, UCLA CSD-970002, 1997; Higham, Mary, A new approach to probabilistic rounding "
        "error analysis, 2019",
        "https://doi.org/10.1137/18M1226312",
    ),
    (
        "Test ratios",
        "Blackford, Dongarra, Installation Guide for LAPACK, LAPACK Working Note 41, 1999",
        "https://www.netlib.org/lapack/lawnspdf/lawn41.pdf",
    ),
    (
        "Colours",
        "Wong, Points of view: Color blindness, Nature Methods 8, 441, 2011",
        "https://doi.org/10.1038/nmeth.1618",
    ),
)


def build(dossier: Dossier) -> Sequence[Block]:
    """The method in a page, the words, the commands and the sources."""
    commands = tuple((run.label, run.results.command) for run in dossier.runs)
    return [
        Prose(
            "Coupled states y and z start at z0. One step is y' = (1 - beta) y + beta f(z), z' = (1 - beta) z + beta "
            "f(y'); its inverse is z = (z' - beta f(y')) / (1 - beta), y = (y' - beta f(z)) / (1 - beta). The loss of "
            "every measurement is linear in the result, with fixed cotangents on z and on y."
        ),
        Prose(
            "The references are the same N steps and the same fixed point in another arithmetic, 50 digits and twice "
            "that; the difference of the two is the reference's own uncertainty, and a reference whose uncertainty "
            "exceeds a thousandth of what it judges closes the gate. Two oracles that share no code must agree before "
            "a case is used."
        ),
        Prose(
            "A check measures and does not judge. The gate alone compares a number with its limit, and it is closed "
            "unless everything is shown: a NaN, a missing check, too few rows or a planted fault that survives falls "
            "short. A row that could not see a fault is counted as without power and is never a pass."
        ),
        Facts(
            (
                ("ratio R", "error over the spread that rounding alone gives the same algorithm, over eight seeds"),
                ("power", "that spread over the size of the reference: the smallest relative fault a row can see"),
                ("bits over", "log2 of a number over its limit; negative means bits to spare"),
                ("beta", "relaxation parameter; N is the number of steps, two evaluations of f each"),
                ("n-step", "the gradient of the map that takes N steps"),
                ("fixed-point", "the gradient of the fixed point, by the implicit function theorem"),
            ),
            wide=True,
        ),
        Facts(commands, wide=True),
        *(
            Prose(Markup('{}: <a href="{}">{}</a>.').format(topic, address, title))
            for topic, title, address in _SOURCES
        ),
    ]


SECTION = Section("method", "Method and sources", build)
