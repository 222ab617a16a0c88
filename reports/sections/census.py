"""Part of section 5: every 16-bit state through a half step and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.content import Block, Fold, Grid, Heading, Level, Notice, Prose
from reports.dossier import Dossier
from reports.figures.census import census
from reports.text import number, plural


_PANELS = {
    "census-forgotten": "bits that no inverse can bring back",
    "census-lost": "bits wrong after the inverse",
}
_COLUMNS = (*_PANELS, "census-bound", "census-returned")


def census_blocks(dossier: Dossier) -> list[Block]:
    """The census as a picture and a table."""
    heading = Heading("roundoff-census", "Every 16-bit state, once")
    curves = [curve for name in _PANELS for curve in dossier.named(name)]
    if not curves:
        return [heading, Notice("note", "No census of half steps was taken: the run has no study of round-off.")]
    return [
        heading,
        Prose(
            "A half step s -> (1 - beta) s + beta f, and its inverse, over all finite states of a 16-bit dtype. A half "
            "step forgets where its result is spaced more coarsely than the state; the inverse then errs by that and "
            "by its own roundings, within the proved bound. In integers nothing is forgotten."
        ),
        *_notice(dossier),
        census(
            curves,
            _PANELS,
            name="census",
            caption="Above: how many bits the states that share an image differ by, counted (marks) and predicted "
            "(lines). Below: bits wrong in the state that the inverse returns (marks) and the proved bound (lines). "
            "Where the mean exceeds the bits of the dtype, small states were replaced by the error of large ones.",
        ),
        Fold("The census in numbers", (_table(dossier),)),
    ]


def census_sentences(dossier: Dossier) -> list[tuple[bool, str]]:
    """Whether a proved bound was crossed, how near the prediction is, and whether integers returned everything."""
    bounds = dossier.named("census-bound")
    if not bounds:
        return []
    crossed = sum(not y <= 1.0 for curve in bounds for y in curve.y)
    count = sum(len(curve.y) for curve in bounds)
    worst = _worst([y for curve in bounds for y in curve.y])
    said = [
        (
            not crossed,
            f"The proved bound is crossed in {crossed} of {plural(count, 'setting')} of dtype, arithmetic, beta and "
            f"value; the greatest error is {number(worst)} of it.",
        )
    ]
    gaps = [
        abs(y - predicted)
        for curve in dossier.named("census-forgotten")
        for y, predicted in zip(curve.y, curve.predicted or (), strict=True)
    ]
    if gaps:
        said.append(
            (not math.isnan(_worst(gaps)), f"Bits forgotten are predicted to within {number(_worst(gaps), 2)}.")
        )
    integers = [y for c in dossier.named("census-returned") if c.adjoint == "bitwise" for y in c.y]
    if integers:
        least = math.nan if any(map(math.isnan, integers)) else min(integers)
        text = "every state comes back to the bit" if least == 1.0 else f"only {number(least)} of the states come back"
        said.append((least == 1.0, f"In integers {text} ({plural(len(integers), 'setting')})."))
    return said


def _notice(dossier: Dossier) -> list[Block]:
    said = census_sentences(dossier)
    level: Level = "good" if all(good for good, _ in said) else "bad"
    return [Notice(level, " ".join(sentence for _, sentence in said))] if said else []


def _worst(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def _table(dossier: Dossier) -> Grid:
    groups: dict[tuple[str, str, float], dict[str, list[tuple[float, float]]]] = {}
    for name in _COLUMNS:
        for curve in dossier.named(name):
            for place, (beta, y) in enumerate(zip(curve.x, curve.y, strict=True)):
                predicted = math.nan if curve.predicted is None else curve.predicted[place]
                of = groups.setdefault((curve.dtype, curve.adjoint, beta), {})
                of.setdefault(name, []).append((y, predicted))
    rows: list[tuple[str, ...]] = []
    levels: list[Level] = []
    for (dtype, arithmetic, beta), of in sorted(groups.items()):
        forgotten, lost, bound, returned = (of.get(name, []) for name in _COLUMNS)
        crossed = not all(y <= 1.0 for y, _ in bound)
        rows.append(
            (
                dtype, arithmetic, f"{beta:.4g}", _span(forgotten, 0), _span(forgotten, 1), _span(lost, 0),
                _span(lost, 1), _span(bound, 0), _span(returned, 0),
            )
        )  # fmt: skip
        levels.append("bad" if crossed else "note")
    columns = (
        "dtype", "arithmetic", "beta", "bits forgotten", "predicted", "bits wrong", "proved bound",
        "error over bound", "returned to the bit",
    )  # fmt: skip
    caption = "A row for each dtype, arithmetic and beta; a span is over the values of f."
    return Grid(caption, columns, tuple(rows), levels, frozenset(range(2, 9)))


def _span(values: Sequence[tuple[float, float]], place: int) -> str:
    found = [value[place] for value in values]
    if not found:
        return number(None)
    if any(map(math.isnan, found)):
        return number(math.nan)
    low, high = number(min(found), 3), number(max(found), 3)
    return low if low == high else f"{low} to {high}"
