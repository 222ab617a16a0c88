"""Section 5: what rounding does to the rebuilt states and to the gradient."""

from __future__ import annotations

from collections.abc import Sequence

from reports.content import Block, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.ratios import ratios
from reports.figures.reconstruction import reconstruction
from reports.sections.parts import by_precision
from reports.text import precision
from verify.criteria import CRITERIA


def build(dossier: Dossier) -> Sequence[Block]:
    """Reconstruction error against N with its prediction, and the distribution of the ratios R."""
    blocks: list[Block] = [
        Prose(
            "Backward rebuilds the states by running the iteration in reverse, which amplifies rounding by the forward "
            "rate over (1 - beta) squared per step (T6). The gradient suffers less than the states, because the "
            "adjoint gives most weight to the last steps, whose states are still good (M1)."
        )
    ]
    curves = dossier.named("reconstruction")
    if not curves:
        blocks.append(Notice("bad", "No reconstruction error was measured against the number of steps."))
    blocks += by_precision(curves, reconstruction, "reconstruction", "Error of the rebuilt start state")
    groups = _ratio_groups(dossier)
    if groups:
        blocks += [
            Prose(
                "Every error is divided by the spread that rounding alone gives the same algorithm, so one limit "
                "serves every dtype, device and beta. Rows without power are left out."
            ),
            ratios(
                groups,
                limits={check: CRITERIA[check].threshold for check in groups},
                name="ratios",
                caption="How the ratios R are distributed, by check and precision. What is beyond either edge, or not "
                "finite, is counted in the last bin.",
            ),
        ]
    else:
        blocks.append(Notice("bad", "No ratio R was measured."))
    return blocks


def _ratio_groups(dossier: Dossier) -> dict[str, dict[str, list[float]]]:
    groups: dict[str, dict[str, list[float]]] = {}
    for row in dossier.measurements:
        criterion = CRITERIA.get(row.check)
        judged = criterion is not None and criterion.comparison == "<="
        if judged and row.unit == "ratio R" and row.status == "measured" and row.measured is not None:
            by_precision = groups.setdefault(row.check, {})
            by_precision.setdefault(precision(row.dtype, row.state_dtype), []).append(row.measured)
    return groups


SECTION = Section("roundoff", "Round-off", build)
