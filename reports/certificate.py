"""The page of a certificate: what was proved, the bits that torch gets right, and what to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from reports.content import Block, BuiltSection, Facts, Fold, Grid, Level, Notice, Prose
from reports.html import to_html
from reports.text import number, plural
from verify.certificate import Answer, Certificate, LeafBits


MOST_COMPONENTS = 24
"""Components of a leaf that the page shows; the file has all of them."""

_LEVELS: dict[Answer, Level] = {Answer.CERTIFIED: "good", Answer.REFUTED: "bad", Answer.UNDECIDED: "note"}

_HEADLINES = {
    Answer.CERTIFIED: "Everything that was asked is proved.",
    Answer.REFUTED: "Something that was asked is proved to be otherwise.",
    Answer.UNDECIDED: "Something that was asked could not be decided.",
}


def certificate_page(certificate: Certificate) -> str:
    """The certificate as one HTML page that needs no network and no second file."""
    builders: tuple[tuple[str, str, Callable[[Certificate], Sequence[Block]]], ...] = (
        ("answer", "What is proved", _answer),
        ("contraction", "Is it a contraction here", _contraction),
        ("bits", "Bits right", _bits),
        ("advice", "What to change", _advice),
        ("values", "Enclosures", _values),
        ("again", "Check it again", _again),
    )
    sections = [
        BuiltSection(place, identifier, title, tuple(build(certificate)))
        for place, (identifier, title, build) in enumerate(builders, 1)
    ]
    subtitle = (
        f"beta {certificate.beta:g}, {plural(certificate.num_steps, 'step')}, {certificate.digits} digits asked, "
        f"{certificate.bits} bits of working precision; scope: {certificate.scope}"
    )
    return to_html(f"{certificate.source}: certificate", subtitle, sections)


def _answer(certificate: Certificate) -> list[Block]:
    rows = tuple((found.claim, found.answer.value, found.sentence) for found in certificate.findings)
    levels: list[Level] = [_LEVELS[found.answer] for found in certificate.findings]
    blocks: list[Block] = [
        Notice(_LEVELS[certificate.answer], _HEADLINES[certificate.answer]),
        Grid("The claims and their answers.", ("claim", "answer", "what was found"), rows, levels),
    ]
    if certificate.scope != "whole":
        blocks.append(Notice("note", f"This certificate is not of the whole: {certificate.scope}."))
    if certificate.said["cuts"]:
        blocks.append(
            Notice(
                "note",
                "Something that a gradient could flow through is detached, or computed without one, at "
                f"{'; '.join(certificate.said['cuts'])}.",
            )
        )
    if certificate.said["casts"]:
        blocks.append(
            Notice(
                "note",
                "Casts between floating dtypes inside f were dropped on purpose, the certificate is of the function of "
                f"real numbers: {'; '.join(certificate.said['casts'])}.",
            )
        )
    if certificate.not_run:
        left_out = tuple((entry["what"], entry["why"]) for entry in certificate.not_run)
        blocks.append(Grid("What was not run, and why.", ("what", "why"), left_out))
    return blocks


def _contraction(certificate: Certificate) -> list[Block]:
    found = certificate.contraction
    if found is None:
        return [Prose("No fixed point was certified, so nothing is known about df/dz at it.")]
    moduli = [math.hypot(real, imaginary) for real, imaginary in found["eigenvalues"]]
    where = f"within {found['radius']:.1e} of the fixed point" if found["radius"] else "at the fixed point"
    # Its eigenvalues are bounded by the norm, and apart from it only where that is no less than 1.
    bounded = found["upper"] if math.isinf(found["spectral_radius"]) else found["spectral_radius"]
    return [
        Facts(
            (
                ("contraction constant, proved", f"at most {found['constant']:.9g} {where}"),
                ("norm of df/dz at the fixed point, proved", f"{found['lower']:.9g} to {found['upper']:.9g}"),
                ("greatest eigenvalue of df/dz, proved", f"at most {bounded:.9g} in modulus"),
                ("greatest eigenvalue of df/dz, estimated", number(max(moduli, default=0.0), 9)),
            ),
            wide=True,
        )
    ]


def _bits_text(row: LeafBits) -> str:
    if math.isinf(row.bits):
        return "all" if row.bits > 0 else "none: not finite"
    return f"{max(0.0, row.bits):.1f}"


def _bits(certificate: Certificate) -> list[Block]:
    if not certificate.bits_right:
        return [Prose("No torch result was compared.")]
    columns = ("dtype", "device", "gradient", "state", "gradient's worst leaf", "leaf", "index", "dtype stores")
    rows: list[tuple[str, ...]] = []
    for row in certificate.bits_right:
        if not row.worst:
            continue
        same = [
            other
            for other in certificate.bits_right
            if (other.dtype, other.device, other.adjoint) == (row.dtype, row.device, row.adjoint)
        ]
        states = [other for other in same if other.leaf.startswith("z1")]
        state = min(states, key=lambda other: other.bits)
        rows.append(
            (
                row.dtype,
                row.device,
                f"{row.adjoint}, against the {row.target} truth",
                _bits_text(state),
                _bits_text(row),
                row.leaf,
                str(list(row.index)),
                str(row.stored),
            )
        )
    every = tuple(
        (
            row.dtype,
            row.device,
            row.adjoint,
            row.leaf,
            _bits_text(row),
            str(list(row.index)),
            repr(row.got),
            row.expected,
        )
        for row in certificate.bits_right
    )
    details = Grid(
        "Every leaf: its worst component as torch returned it, and the enclosure of the truth there.",
        ("dtype", "device", "gradient", "leaf", "bits", "index", "torch", "truth"),
        every,
        (),
        frozenset({4}),
    )
    return [
        Prose(
            "Right bits of a leaf are -log2 of its greatest error over its greatest component, or over that of all "
            "leaves where it vanishes beside them, proved. Each dtype is held to the problem as that dtype stores it. "
            "The implicit gradient is taken after the same steps, so what the steps leave counts as error."
        ),
        Grid("Bits right of each torch result, by its worst leaf.", columns, tuple(rows), (), frozenset({3, 4, 7})),
        Fold("Every leaf", (details,)),
    ]


def _advice(certificate: Certificate) -> list[Block]:
    if not certificate.advice:
        return [Prose("Nothing is known that would do better.")]
    return [Prose(sentence[:1].upper() + sentence[1:] + ".") for sentence in certificate.advice]


def _leaf_grid(caption: str, balls: Sequence[str]) -> Grid:
    shown = balls[:MOST_COMPONENTS]
    if len(shown) < len(balls):
        caption += f" The first {len(shown)} of {len(balls)}; certificate.json has all."
    rows = tuple((str(place), text) for place, text in enumerate(shown))
    return Grid(caption, ("component", "enclosure"), rows, (), frozenset({0}))


def _values(certificate: Certificate) -> list[Block]:
    values = certificate.values
    if not values:
        return [Prose("Nothing was enclosed.")]
    blocks: list[Block] = [
        Prose("Every number lies in its ball, midpoint +/- radius; leaves are flattened row by row.")
    ]
    for key, title in (("z_star", "The fixed point z*"), ("z_n", f"The state after {certificate.num_steps} steps")):
        if key in values:
            blocks.append(Fold(title, (_leaf_grid(f"{title}.", values[key]),)))
    for key, title in (("implicit", "The implicit gradient"), ("n_step", "The N-step gradient")):
        if key in values:
            grids = tuple(_leaf_grid(f"By {leaf}.", balls) for leaf, balls in values[key].items())
            blocks.append(Fold(title, grids))
    return blocks


def _again(certificate: Certificate) -> list[Block]:
    said = certificate.said
    operations = ", ".join(f"{name} ({count})" for name, count in said["operations"].items())
    seconds = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in said["seconds"].items())
    return [
        Prose(
            Markup(
                "Beside this page lies <code>recheck.py</code>, which needs python-flint and nothing else: "
                "<code>python recheck.py certificate.json</code> proves every enclosure again from the "
                "recorded program of f, which it differentiates itself, and derives every answer on this page."
            )
        ),
        Prose(Markup("Make the certificate again: <code>{}</code>").format(said["replay"])),
        Facts(
            (
                ("operations of f", operations),
                ("leaves", ", ".join(f"{name} {shape}" for name, shape in said["leaves"].items())),
                ("time", seconds),
                *said["environment"].items(),
            ),
            wide=True,
        ),
    ]
