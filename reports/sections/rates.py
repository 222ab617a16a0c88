"""Part of section 4: rate against beta and the contraction constant, and which solver is at the tolerance first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reports.content import Block, Fold, Grid, Notice, Prose
from reports.dossier import Dossier
from reports.figures.key import precision_order
from reports.figures.rates_heat import rates_heat
from reports.figures.rates_lines import constant_of, rates_lines
from reports.figures.rates_race import rates_race, solver_order
from reports.figures.rates_regions import DRAWN_BETAS, rates_regions
from reports.text import ABSENT, number, plural
from revdeq.rates import region_semi_axes
from verify.result import Curve
from verify.trial.grid import STEPS


LINES = ("witness", "quarter-turn", "general", "triangular", "tanh-general")
"""Families of maps that are drawn; the others are in the tables."""

TOLERANCE = 1e-6
"""Residual relative to that at the start, at which solvers are compared."""

HELPS = 1.1
"""Factor in evaluations from which on a choice of beta is said to help."""

Cells = dict[str, dict[str, float]]


def rate_blocks(dossier: Dossier) -> list[Block]:
    """Everything about rates as functions of beta, k and the spectrum, and about choosing beta."""
    curves = dossier.named("rate-against-beta")
    if not curves:
        return [Notice("note", "No rate was measured against beta and the contraction constant.")]
    return [*_rates(curves), *_regions(dossier), *_race(dossier)]


def _rates(curves: Sequence[Curve]) -> list[Block]:
    device = curves[0].device
    own = [curve for curve in curves if curve.dtype == "float64" and curve.device == device]
    families: dict[str, dict[str, Curve]] = {family: {} for family in LINES}
    for curve in own:
        family, _, _ = curve.problem.partition(" k=")
        constant = constant_of(curve.problem)
        if constant is None:
            families.setdefault("trained cells", {})[curve.problem] = curve
        elif family in families:
            families[family][f"k = {constant:g}"] = curve
    families = {family: lines for family, lines in families.items() if lines}
    points = [
        (beta, constant, rate < 1.0)
        for curve in own
        if (constant := constant_of(curve.problem)) is not None
        for beta, rate in zip(curve.x, curve.y, strict=True)
        if math.isfinite(rate)
        # Each is the worst map on its own side of 1.
        and (curve.problem.startswith("witness") if beta < 1.0 else curve.problem.startswith("quarter-turn"))
    ]
    return [
        Prose(
            "How fast a step contracts depends on beta and on the eigenvalues of df/dz (T2), and, where only the "
            "contraction constant k is known, on k (T3). Points are measured by solves of the subject in float64; "
            "lines are the theory, drawn through the betas measured."
        ),
        rates_lines(families, name="rate-against-beta", caption=f"Rate of a step against beta. {_fastest(families)}"),
        rates_heat(
            points,
            name="rate-heat",
            caption="The worst rate over all maps with constant k, and what reversal costs there. The marks are "
            "measured on the maps that attain it: k times the identity below beta 1, a quarter turn above. "
            + _sides(points),
        ),
        _fits(curves),
    ]


def _fastest(families: Mapping[str, Mapping[str, Curve]]) -> str:
    """The fastest measured beta of each family of maps, at the largest constant that was measured."""
    said: list[str] = []
    for family, lines in families.items():
        label, curve = list(lines.items())[-1]
        rates = [(rate, beta) for beta, rate in zip(curve.x, curve.y, strict=True) if math.isfinite(rate)]
        if rates:
            rate, beta = min(rates)
            said.append(f"{family} ({label}) {beta:g} with rate {number(rate, 2)}")
    return f"Fastest measured betas: {'; '.join(said)}." if said else ""


def _sides(points: Sequence[tuple[float, float, bool]]) -> str:
    """On how many marks convergence is as the boundary beta = 2 / (1 + k) says."""
    wrong = sum(converges != (beta < 2.0 / (1.0 + constant)) for beta, constant, converges in points)
    return f"{len(points) - wrong} of {plural(len(points), 'mark')} lie on the side of the boundary that they should."


def _fits(curves: Sequence[Curve]) -> Grid:
    cells: list[tuple[str, ...]] = []
    for dtype in precision_order(curve.dtype for curve in curves):
        for trained in (False, True):
            own = [c for c in curves if c.dtype == dtype and (constant_of(c.problem) is None) is trained]
            if not own:
                continue
            rates = [
                (rate, predicted)
                for curve in own
                for rate, predicted in zip(curve.y, curve.predicted or (), strict=True)
            ]
            fitted = [abs(math.log(rate / predicted)) for rate, predicted in rates if math.isfinite(rate)]
            cells.append(
                (
                    dtype, "trained cells" if trained else "the grid of maps", f"{len(rates)}", f"{len(fitted)}",
                    f"{len(rates) - len(fitted)}", number(max(fitted) if fitted else None),
                    ABSENT if trained else f"{len(rates) * len(STEPS)}",
                )
            )  # fmt: skip
    columns = (
        "dtype", "maps", "pairs of map and beta", "with a sharp fit", "without", "worst |ln(observed/predicted)|",
        "cells with an error bound",
    )  # fmt: skip
    caption = (
        "Rates fitted above round-off, against T2; a fit counts where its own uncertainty is at most .02. A cell is a "
        f"map at one beta after one of {plural(len(STEPS), 'number')} of steps; its error is compared with T3's bound."
    )
    return Grid(caption, columns, tuple(cells), (), frozenset(range(2, 7)))


def _regions(dossier: Dossier) -> list[Block]:
    curves = dossier.named("eigenvalues")
    if not curves:
        return []
    return [
        Prose(
            "An iteration converges where all eigenvalues lie inside the ellipse of its beta (T5). Small betas admit "
            "rotations beyond the unit circle; a real eigenvalue at -1 or below lies in no ellipse, and the averaged "
            "map (1 - alpha) z + alpha f(z) moves it inside."
        ),
        rates_regions(
            curves,
            name="rate-regions",
            caption=f"Eigenvalues of df/dz at the fixed point, and the regions. {_inside(curves)}",
        ),
    ]


def _inside(curves: Sequence[Curve]) -> str:
    """How many equilibria have all their eigenvalues inside the ellipse of each beta."""
    counts: list[str] = []
    for beta in DRAWN_BETAS:
        across, up = region_semi_axes(beta)
        inside = sum(
            all((x / across) ** 2 + (y / up) ** 2 < 1.0 for x, y in zip(curve.x, curve.y, strict=True))
            for curve in curves
        )
        counts.append(f"beta {beta:g} {inside}")
    return f"Of {len(curves)} equilibria have all their eigenvalues inside: {', '.join(counts)}."


def _race(dossier: Dossier) -> list[Block]:
    evaluations = _at_tolerance(dossier.named("evaluations-to-tolerance"))
    if not evaluations:
        return []
    bits = _at_tolerance(dossier.named("bits-lost"))
    spent = _at_tolerance(dossier.named("evaluations-of-estimate"))
    betas = {c.problem: c.beta for c in dossier.named("evaluations-to-tolerance") if c.solver == "reversible auto"}
    solvers = solver_order(list({label for found in evaluations.values() for label in found}))
    reversible = [label for label in solvers if label.startswith("reversible")]
    others = [label for label in solvers if label not in reversible]
    return [
        Prose(
            f"The race: evaluations of f until the residual is {TOLERANCE:g} of that at the start, in float64. A step "
            "of the reversible solver takes two. Optimal is the beta of least rate for the known eigenvalues; auto "
            "estimates them first and weighs speed against the bits that 16 reversed steps cost; adaptive follows the "
            "residuals, for real spectra only; chebyshev is a schedule for an ellipse round the eigenvalues; averaged "
            "solves (1 - alpha) z + alpha f(z) with the spectrum centred on 0."
        ),
        rates_race(
            evaluations,
            name="rate-race",
            caption="Evaluations of f to the tolerance; missing marks did not get there in 400, or do not apply.",
        ),
        _table(
            "Reversible solvers: evaluations of f, and in brackets the bits of the gradient that reversing these steps "
            "costs; beyond the 53 bits of float64 nothing is left, and the gradient is computed from checkpoints.",
            evaluations,
            reversible,
            bits,
        ),
        _automatic(evaluations, spent, betas),
        *_verdicts(evaluations),
        Fold(
            "The other solvers, which have no reversed steps",
            (_table("Evaluations of f to the same tolerance.", evaluations, others, {}),),
        ),
    ]


def _at_tolerance(curves: Sequence[Curve]) -> Cells:
    found: Cells = {}
    for curve in curves:
        for x, y in zip(curve.x, curve.y, strict=True):
            if x == TOLERANCE:
                found.setdefault(curve.problem, {})[curve.solver] = y
    return found


def _table(caption: str, evaluations: Cells, solvers: Sequence[str], bits: Cells) -> Grid:
    def cell(problem: str, solver: str) -> str:
        value = evaluations[problem].get(solver)
        if value is None:
            return ABSENT
        if not math.isfinite(value):
            return "not reached"
        lost = bits.get(problem, {}).get(solver, math.nan)
        return f"{value:.0f}" + (f" ({lost:.0f})" if math.isfinite(lost) else "")

    rows = tuple((problem, *(cell(problem, solver) for solver in solvers)) for problem in evaluations)
    names = tuple(solver.removeprefix("reversible ") for solver in solvers)
    return Grid(caption, ("equilibrium", *names), rows, (), frozenset(range(1, len(solvers) + 1)))


def _automatic(evaluations: Cells, spent: Cells, betas: dict[str, float | None]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for problem, found in evaluations.items():
        auto = found.get("reversible auto", math.nan)
        extra = spent.get(problem, {}).get("reversible auto", 0.0)
        ratios = [found.get(f"reversible {label}", math.nan) / auto for label in (".5", ".8")]
        rows.append(
            (
                problem,
                number(betas.get(problem), 4) if math.isfinite(auto) else "refused: no beta converges",
                number(auto) if math.isfinite(auto) else ABSENT,
                number(extra),
                *(f"{ratio:.2f}" if math.isfinite(ratio) else ABSENT for ratio in ratios),
            )
        )
    columns = (
        "equilibrium", "beta of auto", "evaluations", "spent on the estimate, once",
        "times faster than .5", "times faster than .8",
    )  # fmt: skip
    caption = (
        "What automatic beta gains. The estimate is counted in evaluations of f and products with its Jacobian; a dash "
        "in the last columns stands where the customary beta did not get there."
    )
    return Grid(caption, columns, tuple(rows), (), frozenset(range(1, 6)))


def _verdicts(evaluations: Cells) -> list[Block]:
    """In words: where each choice of beta does not help against beta .8."""
    said: list[Block] = []
    for label in ("auto", "adaptive", "chebyshev", "averaged"):
        gains = {
            problem: found["reversible .8"] / found.get(f"reversible {label}", math.nan)
            for problem, found in evaluations.items()
            if f"reversible {label}" in found and math.isfinite(found.get("reversible .8", math.nan))
        }
        idle = [problem for problem, gain in gains.items() if not gain >= HELPS]
        helped = [gain for gain in gains.values() if gain >= HELPS]
        if not gains:
            continue
        best = f", up to {max(helped):.1f} times" if helped else ""
        without = f" It does not help on {', '.join(idle)}." if idle else ""
        said.append(
            Prose(f"Against beta .8, {label} takes fewer evaluations on {len(helped)} of {len(gains)}{best}.{without}")
        )
    if said:
        said.append(
            Prose(
                "Away from the real axis the fastest beta lies near 1, where reversal forgets most; auto stays away "
                "from it and gives up speed for bits. The optimal beta, the schedule and the averaged map need the "
                "spectrum."
            )
        )
    return said
