"""Section 2: what can be trusted: the paper's own settings, and the envelope over beta, steps and precision.

References:
    The settings are those of the code published with McCallum, Arora, Foster, arXiv:2509.12917: beta 0.5 with 4 steps
    (language), beta 0.8 with 2 steps (single-scale vision), beta 0.8 with 8 steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from reports.content import Block, Fold, Grid, Level, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.sections.bits import bits_by_mode
from reports.sections.envelope import envelope_blocks
from reports.text import ABSENT, bits, number, precision
from revdeq.rates import gradient_growth, reverse_rate, worst_rate
from verify.gate import Finding


PAPER_SETTINGS: tuple[tuple[float, int, str], ...] = (
    (0.5, 4, "language model"),
    (0.8, 2, "single-scale vision"),
    (0.8, 8, "vision, more steps"),
)
ADJOINTS = ("reversible", "default")
_CONSTANTS = (0.5, 0.9, 0.99)
_FLOAT64_UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class GradientError:
    """Relative error of a whole gradient: one point of a curve "error-vs-evaluations"."""

    problem: str
    adjoint: str
    target: str
    precision: str
    beta: float
    num_steps: int
    error: float


def gradient_errors(dossier: Dossier) -> list[GradientError]:
    """The points of all curves; a step is two evaluations of f forward."""
    return [
        GradientError(
            curve.problem,
            curve.adjoint,
            curve.target,
            precision(curve.dtype, curve.state_dtype),
            math.nan if curve.beta is None else curve.beta,
            round(x / 2.0),
            y,
        )
        for curve in dossier.named("error-vs-evaluations")
        for x, y in zip(curve.x, curve.y, strict=True)
    ]


def build(dossier: Dossier) -> Sequence[Block]:
    """The paper's settings as measured, what theory says of them, and the envelope."""
    errors = gradient_errors(dossier)
    exact = [item for item in errors if item.target == "n-step" and item.adjoint in ADJOINTS]
    by_mode = [*bits_by_mode(dossier, PAPER_SETTINGS), *envelope_blocks(dossier)]
    if not exact:
        return [Notice("bad", "No exact gradient was measured, so nothing here can be trusted."), *by_mode]
    return [
        Prose(
            "The reversible gradient is exact for the map of N steps, up to rounding; the table says up to how much, "
            "for the worst of the problems, as a relative error of the whole gradient and as the bits that are right. "
            "The default adjoint reverses where that can be trusted and stores the states where it cannot. Whether N "
            "steps are near enough to the fixed point is another question: the last columns say how far the gradient "
            "of the N steps is from that of the fixed point, in the middle and at worst."
        ),
        _paper(errors, dossier),
        *by_mode,
        Fold("Theory: bits that the paper's settings cost on the worst map of a constant", (_theory(),)),
        Fold("Bits right on the problems, for every beta, number of steps and precision", tuple(_envelope(exact))),
    ]


def _paper(errors: Sequence[GradientError], dossier: Dossier) -> Grid:
    cells: list[tuple[str, ...]] = []
    levels: list[Level] = []
    for beta, num_steps, where in PAPER_SETTINGS:
        setting = f"beta {beta:g}, {num_steps} steps ({where})"
        own = [item for item in errors if item.beta == beta and item.num_steps == num_steps]
        if not own:
            cells.append((setting, "not measured", *("",) * 10))
            levels.append("bad")
        for place, name in enumerate(precision_order(item.precision for item in own)):
            group = [item for item in own if item.precision == name]
            findings = _gradient_findings(dossier, beta, num_steps, name)
            ratio, verdict, level = _verdict(findings)
            cells.append(
                (
                    "" if place else setting, name, str(len({item.problem for item in group})),
                    *_worst_of(group, "reversible"), *_worst_of(group, "default"), ratio, verdict, *_gap(group),
                )
            )  # fmt: skip
            levels.append(level)
    columns = (
        "setting", "precision", "problems", "reversible: worst error", "bits right", "at", "default: worst error",
        "bits right", "R, worst leaf", "verdict", "to the fixed point: median", "worst",
    )  # fmt: skip
    caption = (
        "The paper's own settings, as measured: the gradient against that of the same N steps in 50 digits, and "
        "against that of the fixed point."
    )
    return Grid(caption, columns, tuple(cells), tuple(levels), frozenset({2, 3, 4, 6, 7, 8, 10, 11}))


def _worst_of(group: Sequence[GradientError], adjoint: str) -> tuple[str, ...]:
    own = [item for item in group if item.adjoint == adjoint and item.target == "n-step"]
    if not own:
        return (ABSENT, ABSENT, "") if adjoint == "reversible" else (ABSENT, ABSENT)
    worst = _worst(own)
    shown = (number(worst.error), bits(worst.error))
    return (*shown, worst.problem) if adjoint == "reversible" else shown


def _gap(group: Sequence[GradientError]) -> tuple[str, str]:
    """How far the N steps are from the fixed point, as the default adjoint's gradient has it, else the reversible's."""
    for adjoint in ("default", "reversible"):
        found = [item.error for item in group if item.adjoint == adjoint and item.target == "fixed-point"]
        if any(math.isnan(error) for error in found):
            return number(math.nan), number(math.nan)
        if found:
            return number(median(found), 2), number(max(found), 2)
    return ABSENT, ABSENT


def _gradient_findings(dossier: Dossier, beta: float, num_steps: int, name: str) -> list[Finding]:
    return [
        finding
        for _, finding in dossier.findings
        if (row := finding.measurement) is not None
        and row.check == "gradient"
        and row.adjoint in ADJOINTS
        and row.beta == beta
        and row.num_steps == num_steps
        and precision(row.dtype, row.state_dtype, row.solver) == name
    ]


def _verdict(findings: Sequence[Finding]) -> tuple[str, str, Level]:
    """The worst ratio among the rows with power, and what the gate says of all of them."""
    if not findings:
        return ABSENT, "not judged", "bad"
    failed = sum(finding.passed is False for finding in findings)
    powered = [finding.measurement for finding in findings if finding.passed is not None]
    values = [math.nan if row is None or row.measured is None else row.measured for row in powered]
    worst = math.nan if any(math.isnan(value) for value in values) else max(values, default=None)
    powerless = len(findings) - len(powered)
    if failed:
        return number(worst), f"{failed} of {len(findings)} FAIL", "bad"
    if not powered:
        return number(worst), "no power", "note"
    return number(worst), f"pass, {powerless} of {len(findings)} without power" if powerless else "pass", "good"


def _theory() -> Grid:
    cells: list[tuple[str, ...]] = []
    for beta, num_steps, _ in PAPER_SETTINGS:
        for place, constant in enumerate(_CONSTANTS):
            rate = worst_rate(beta, constant)
            growth = gradient_growth(rate, beta)
            loss = math.log2(sum(growth**step for step in range(num_steps)))
            cells.append(
                (
                    "" if place else f"beta {beta:g}, {num_steps} steps", f"{constant:g}", number(rate),
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


def _envelope(errors: Sequence[GradientError]) -> Iterator[Grid]:
    for name in precision_order(item.precision for item in errors):
        for adjoint in ADJOINTS:
            own = [item for item in errors if item.precision == name and item.adjoint == adjoint]
            if not own:
                continue
            betas = sorted({item.beta for item in own})
            steps = sorted({item.num_steps for item in own})
            cells = tuple((f"{beta:.4g}", *(_envelope_cell(own, beta, count) for count in steps)) for beta in betas)
            caption = f"{name}, {adjoint} adjoint: bits right in the worst gradient, with the problem it belongs to."
            yield Grid(caption, ("beta", *(f"N = {count}" for count in steps)), cells)


def _envelope_cell(errors: Sequence[GradientError], beta: float, num_steps: int) -> str:
    group = [item for item in errors if item.beta == beta and item.num_steps == num_steps]
    if not group:
        return ""
    worst = _worst(group)
    return f"{bits(worst.error)} ({worst.problem})"


def _worst(errors: Sequence[GradientError]) -> GradientError:
    return max(errors, key=lambda item: math.inf if math.isnan(item.error) else item.error)


SECTION = Section("trust", "What can I trust", build)
