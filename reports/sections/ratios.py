"""Part of section 5: the ratio R over all problems, dtypes and settings, with its extremes named."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.content import Block, Fold, Grid, Heading, Level, Notice, Prose
from reports.dossier import Dossier
from reports.figures.ratio_histogram import ratio_histogram
from reports.figures.ratios import ratios
from reports.text import number, plural, precision
from verify.checks import CRITERIA
from verify.criteria import RATIO_LIMIT
from verify.result import Measurement
from verify.studies.rounding.ratios import TOO_GOOD


CEILING = 30.0
"""The R beyond which no explanation is accepted (A1, A2, A3)."""

NAMED = 6
"""Extremes in the table, of each kind; the first of each is named in the picture."""

_NEW_LINE = ",\n"


def ratio_rows(dossier: Dossier) -> list[Measurement]:
    """The rows that measure an R from above and have power."""
    return [
        row
        for row in dossier.measurements
        if row.unit == "ratio R"
        and row.status == "measured"
        and row.measured is not None
        and (criterion := CRITERIA.get(row.check)) is not None
        and criterion.comparison == "<="
    ]


def ratio_blocks(dossier: Dossier) -> list[Block]:
    """One histogram of everything, the extremes, and the histograms by check."""
    heading = Heading("roundoff-ratios", "One ratio for every dtype")
    rows = ratio_rows(dossier)
    if not rows:
        return [heading, Notice("bad", "No ratio R was measured.")]
    groups: dict[str, list[float]] = {}
    by_check: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        kind = precision(row.dtype, row.state_dtype, row.solver)
        groups.setdefault(kind, []).append(_value(row))
        by_check.setdefault(row.check, {}).setdefault(kind, []).append(_value(row))
    largest, smallest = extremes(rows)
    pointed = [*largest[:1], *smallest[:1]]
    levels: list[Level] = ["bad" if not _value(row) <= RATIO_LIMIT else "good" for row in (*largest, *smallest)]
    return [
        heading,
        Prose(
            "Every error is divided by the spread that rounding alone gives the same algorithm, so one limit "
            "serves every dtype, device and beta. Rows without power are left out."
        ),
        *(Prose(sentence) for sentence in ratio_sentences(dossier)),
        ratio_histogram(
            groups,
            [(_value(row), f"{number(_value(row))}: {_name(row, _NEW_LINE)}") for row in pointed],
            limit=RATIO_LIMIT,
            ceiling=CEILING,
            name="ratio-histogram",
            caption="R of every row with power, over all checks, problems, leaves and settings; both axes are "
            "logarithmic, so that a single row is seen. The first bin has all smaller values and exact zeros, the last "
            f"all larger ones and NaN. {_stored(rows)}",
        ),
        Grid(
            "The extremes of R: the largest, and the smallest that are not 0 and not of the default adjoint, which may "
            "store its states.",
            ("R", "check", "where", "leaf"),
            tuple(
                (number(_value(row)), row.check, f"{row.case} {row.adjoint}", row.leaf) for row in largest + smallest
            ),
            levels,
            frozenset({0}),
        ),
        Fold(
            "R by check",
            (
                ratios(
                    by_check,
                    limits={check: CRITERIA[check].threshold for check in by_check},
                    name="ratios",
                    caption="How the ratios R are distributed, by check and precision. What is beyond either edge, or "
                    "not finite, is counted in the last bin.",
                ),
            ),
        ),
    ]


def extremes(rows: Sequence[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """The largest ratios, NaN first, and the smallest, at most `NAMED` of each, none in both.

    The smallest are neither 0 nor of the default adjoint: where that stores its states, it reverses nothing, and its
    error is far below the spread of a reversal.
    """
    ordered = sorted(rows, key=lambda row: math.inf if math.isnan(_value(row)) else _value(row), reverse=True)
    largest = ordered[:NAMED]
    smallest = [row for row in reversed(ordered[NAMED:]) if _value(row) > 0.0 and row.adjoint != "default"][:NAMED]
    return largest, smallest


def ratio_sentences(dossier: Dossier) -> list[str]:
    """The extremes and the middle of R in words."""
    rows = ratio_rows(dossier)
    if not rows:
        return []
    values = sorted(_value(row) for row in rows if not math.isnan(_value(row)))
    broken = len(rows) - len(values)
    said = [f"{plural(broken, 'ratio')} of {len(rows)} {'is' if broken == 1 else 'are'} NaN."] if broken else []
    if values:
        above = sum(value > RATIO_LIMIT for value in values)
        (largest, *_), smallest = extremes(rows)
        least = (
            f", the least of a reversal that is not 0 is {number(_value(smallest[0]))} ({_name(smallest[0])})"
            if smallest
            else ""
        )
        said.append(
            f"Of {plural(len(rows), 'ratio')} the middle is {number(values[len(values) // 2], 2)}, the largest "
            f"{number(_value(largest))} ({_name(largest)}){least}; {sum(value == 0.0 for value in values)} are exactly "
            f"0 and {above} above the limit of {RATIO_LIMIT:g}."
        )
    return said


def _stored(rows: Sequence[Measurement]) -> str:
    """How many small ratios the default adjoint has, which reverses nothing where it stores its states."""
    count = sum(row.adjoint == "default" and 0.0 < _value(row) < TOO_GOOD for row in rows)
    if not count:
        return ""
    said = plural(count, "ratio")
    return f"{said} of the default adjoint lie below {TOO_GOOD:g}: there it stored its states and reversed nothing."


def _value(row: Measurement) -> float:
    return math.nan if row.measured is None else row.measured


def _name(row: Measurement, after_leaf: str = ", ") -> str:
    beta = "" if row.beta is None else f", beta {row.beta:g}"
    steps = "" if row.num_steps is None else f", N = {row.num_steps}"
    adjoint = f" {row.adjoint}" if row.adjoint else ""
    setting = f"{row.check}{adjoint}, {precision(row.dtype, row.state_dtype, row.solver)}{beta}{steps}"
    return f"{row.problem} {row.leaf}{after_leaf}{setting}"
