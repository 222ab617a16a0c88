"""Section 2: what can be trusted: the paper's own settings, and the envelope over beta, steps and precision.

References:
    The settings are those of the code published with McCallum, Arora, Foster, arXiv:2509.12917: beta 0.5 with 4 steps
    (language), beta 0.8 with 2 steps (single-scale vision), beta 0.8 with 8 steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports.content import Block, Fold, Grid, Level, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.text import bits, number, precision
from revdeq.rates import gradient_growth, reverse_rate, worst_rate
from verify.gate import Finding
from verify.result import Measurement


PAPER_SETTINGS: tuple[tuple[float, int, str], ...] = (
    (0.5, 4, "language model"),
    (0.8, 2, "single-scale vision"),
    (0.8, 8, "vision, more steps"),
)
ADJOINTS = ("reversible", "default")
_CONSTANTS = (0.5, 0.9, 0.99)
_FLOAT64_UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class GradientRow:
    """A row of the check "gradient" with the relative error that it stands for."""

    row: Measurement
    passed: bool | None
    error: float


def gradient_rows(dossier: Dossier) -> list[GradientRow]:
    """Rows of the exact gradient: of the reversible adjoint, and of the default one, which may refuse to reverse.

    R is the error over the rounding scale, and power is the scale over the size of the reference, so their product is
    the relative error.
    """
    found: list[GradientRow] = []
    for _, finding in dossier.findings:
        row = finding.measurement
        if row is not None and row.check == "gradient" and row.adjoint in ADJOINTS:
            found.append(GradientRow(row, finding.passed, _relative_error(finding)))
    return found


def build(dossier: Dossier) -> Sequence[Block]:
    """The paper's settings as measured, what theory says of them, and the envelope."""
    rows = gradient_rows(dossier)
    if not rows:
        return [Notice("bad", "No exact gradient was measured, so nothing here can be trusted.")]
    return [
        Prose(
            "The reversible gradient is exact for the map of N steps, up to rounding. The tables say up to how much: "
            "the error of the worst leaf of the worst problem, relative to the true gradient of the N steps, as a "
            "number and as the bits that are right. Whether N steps are near enough to the fixed point is another "
            "question, which section 3 answers."
        ),
        _paper(rows),
        _theory(),
        Fold("The envelope: bits that are right for every beta, number of steps and precision", tuple(_envelope(rows))),
    ]


def _relative_error(finding: Finding) -> float:
    row = finding.measurement
    if row is None or row.measured is None or row.power is None:
        return math.nan
    return row.measured * row.power


def _paper(rows: Sequence[GradientRow]) -> Grid:
    cells: list[tuple[str, ...]] = []
    levels: list[Level] = []
    for beta, num_steps, where in PAPER_SETTINGS:
        setting = f"beta {beta:g}, {num_steps} steps ({where})"
        own = [item for item in rows if item.row.beta == beta and item.row.num_steps == num_steps]
        if not own:
            cells.append((setting, "not measured", *("",) * 8))
            levels.append("bad")
        keys = [(name, adjoint) for name in precision_order(_name(item) for item in own) for adjoint in ADJOINTS]
        for name, adjoint in keys:
            group = [item for item in own if _name(item) == name and item.row.adjoint == adjoint]
            if not group:
                continue
            worst = _worst(group)
            ratio = _worst_ratio(group)
            verdict, level = _verdict(group)
            problems = {item.row.problem for item in group}
            cells.append(
                (
                    setting, name, adjoint, f"{len(problems)}", f"{len(group)}", number(worst.error), bits(worst.error),
                    f"{worst.row.problem} {worst.row.leaf}", number(ratio), verdict,
                )
            )  # fmt: skip
            levels.append(level)
    columns = (
        "setting", "precision", "adjoint", "problems", "gradients", "relative error, worst", "bits right", "worst at",
        "R, worst", "verdict",
    )  # fmt: skip
    caption = "The paper's own settings, as measured: the gradient against that of the same N steps in 50 digits."
    return Grid(caption, columns, tuple(cells), tuple(levels), frozenset({3, 4, 5, 6, 8}))


def _theory() -> Grid:
    cells: list[tuple[str, ...]] = []
    for beta, num_steps, _ in PAPER_SETTINGS:
        for constant in _CONSTANTS:
            rate = worst_rate(beta, constant)
            growth = gradient_growth(rate, beta)
            loss = math.log2(sum(growth**step for step in range(num_steps)))
            cells.append(
                (
                    f"beta {beta:g}, {num_steps} steps", f"{constant:g}", number(rate),
                    number(reverse_rate(rate, beta)), number(growth), f"{loss:.1f}",
                    bits(_FLOAT64_UNIT_ROUNDOFF * 2.0**loss),
                )
            )  # fmt: skip
    columns = (
        "setting", "contraction constant k", "rate per step", "inverse amplifies per step",
        "gradient error grows per step", "bits lost over the run", "bits left, float64 states",
    )  # fmt: skip
    caption = (
        "What theory says of the same settings for the worst map with contraction constant k: "
        "rates T3, T6 and the gradient's growth M1."
    )
    return Grid(caption, columns, tuple(cells), (), frozenset(range(1, 7)))


def _envelope(rows: Sequence[GradientRow]) -> Iterable[Block]:
    for name in precision_order(_name(item) for item in rows):
        own = [item for item in rows if _name(item) == name and item.row.adjoint == "reversible"]
        betas = sorted({item.row.beta for item in own if item.row.beta is not None})
        steps = sorted({item.row.num_steps for item in own if item.row.num_steps is not None})
        cells = tuple((f"{beta:.4g}", *(_envelope_cell(own, beta, count) for count in steps)) for beta in betas)
        caption = f"{name}, reversible adjoint: bits right in the worst gradient leaf, with the problem it belongs to."
        yield Grid(caption, ("beta", *(f"N = {count}" for count in steps)), cells)


def _envelope_cell(rows: Sequence[GradientRow], beta: float, num_steps: int) -> str:
    group = [item for item in rows if item.row.beta == beta and item.row.num_steps == num_steps]
    if not group:
        return ""
    worst = _worst(group)
    return f"{bits(worst.error)} ({worst.row.problem})"


def _worst(rows: Sequence[GradientRow]) -> GradientRow:
    return max(rows, key=lambda item: math.inf if math.isnan(item.error) else item.error)


def _worst_ratio(rows: Sequence[GradientRow]) -> float:
    values = [math.nan if item.row.measured is None else item.row.measured for item in rows]
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _verdict(rows: Sequence[GradientRow]) -> tuple[str, Level]:
    failed = sum(item.passed is False for item in rows)
    powerless = sum(item.passed is None for item in rows)
    if failed:
        return f"{failed} of {len(rows)} FAIL", "bad"
    if powerless == len(rows):
        return "no power", "note"
    return ("pass" if not powerless else f"pass, {powerless} without power"), "good"


def _name(item: GradientRow) -> str:
    return precision(item.row.dtype, item.row.state_dtype)


SECTION = Section("trust", "What can I trust", build)
