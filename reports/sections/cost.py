"""Section 6: what a gradient costs: evaluations of f, bytes kept, and time as information."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from reports.content import Block, Fold, Grid, Notice, Prose, Section
from reports.dossier import Dossier
from reports.figures.memory import memory
from reports.figures.svg import figure_name
from reports.sections.training_step import training_step_blocks
from reports.text import ABSENT, binary_size, number, precision
from verify.result import Measurement


_PROMISED = {"reversible": 4, "forward only": 2}
"""Evaluations of f per step that a method promises, forward and backward together."""


def build(dossier: Dossier) -> Sequence[Block]:
    """Counts against the floor of the method, saved bytes against N, and seconds."""
    blocks: list[Block] = [
        Prose(
            "The method promises 2N evaluations of f forward, 2N evaluations and 2N vector-Jacobian products backward, "
            "and nothing kept that grows with N. Counts and bytes are gated; seconds are information, measured on a "
            "machine that may have been doing other things."
        )
    ]
    curves = dossier.named("memory")
    if curves:
        for device in sorted({curve.device for curve in curves}):
            blocks.append(
                memory(
                    [curve for curve in curves if curve.device == device],
                    name=figure_name("memory", device),
                    caption=f"Bytes that the graph keeps between forward and backward, on {device}.",
                )
            )
    else:
        blocks.append(Notice("bad", "No saved bytes were measured against the number of steps."))
    blocks += training_step_blocks(dossier)
    blocks.append(_counts(dossier.measurements))
    return blocks


def _counts(rows: Sequence[Measurement]) -> Block:
    groups: dict[tuple[str, str, str, int], list[Measurement]] = {}
    for row in rows:
        if row.evaluations is not None and row.num_steps:
            name = precision(row.dtype, row.state_dtype, row.solver)
            key = (row.adjoint or "forward only", row.device, name, row.num_steps)
            groups.setdefault(key, []).append(row)
    if not groups:
        return Notice("bad", "No evaluations of f were counted.")
    cells: list[tuple[str, ...]] = []
    for (adjoint, device, name, num_steps), group in sorted(groups.items()):
        promised = _PROMISED.get(adjoint)
        evaluations = sorted({row.evaluations for row in group if row.evaluations is not None})
        products = sorted({row.vjps for row in group if row.vjps is not None})
        saved = sorted({row.saved_bytes for row in group if row.saved_bytes is not None})
        seconds = [row.seconds for row in group if row.seconds is not None]
        cells.append(
            (
                adjoint, device, name, str(num_steps), _span(evaluations),
                ABSENT if promised is None else str(promised * num_steps), _span(products), _sizes(saved),
                number(1e3 * statistics.median(seconds)) if seconds else ABSENT,
            )
        )  # fmt: skip
    columns = (
        "adjoint", "device", "precision", "N", "evaluations of f", "promised", "VJPs", "saved bytes",
        "median time (ms)",
    )  # fmt: skip
    caption = "Counted evaluations and products by adjoint, precision and number of steps, over all problems."
    grid = Grid(caption, columns, tuple(cells), (), frozenset({3, 4, 5, 6, 7, 8}))
    return Fold(f"Counts and times ({len(cells)} settings)", (grid,))


def _sizes(values: Sequence[int]) -> str:
    if not values:
        return ABSENT
    if values[0] == values[-1]:
        return binary_size(values[0])
    return f"{binary_size(values[0])} to {binary_size(values[-1])}"


def _span(values: Sequence[float]) -> str:
    if not values:
        return ABSENT
    if values[0] == values[-1]:
        return f"{values[0]:g}"
    return f"{values[0]:g} to {values[-1]:g}"


SECTION = Section("cost", "Cost", build)
