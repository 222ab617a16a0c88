"""Rows against one another: what was observed once, or referred to once, says the same in every row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping

from verify.criteria import Criterion
from verify.judge.finding import Finding, about_run
from verify.plan import Plan, RowKey, row_key
from verify.result import Measurement


_COSTS = ("evaluations", "vjps", "saved_bytes", "seconds")


def judge_relations(rows: Iterable[Measurement], plan: Plan) -> Iterator[Finding]:
    """What rows say against one another.

    Args:
        rows: of a run.
        plan: of the run.
    """
    known = [(row, plan.criteria[row.check]) for row in rows if row.check in plan.criteria]
    yield from _costs(known)
    yield from _references(known)
    yield from _lost(known, plan)


def _costs(rows: Iterable[tuple[Measurement, Criterion]]) -> Iterator[Finding]:
    """One solve and its backward pass cost one number of evaluations, products, bytes and seconds."""
    groups: dict[Hashable, list[Measurement]] = defaultdict(list)
    for row, criterion in rows:
        if criterion.observed is not None and row.evaluations is not None:
            binding = row.leaf.partition(" ")[0] if criterion.observed == "binding" else ""
            groups[row.case, row.adjoint, binding].append(row)
    yield from _differing(groups, _COSTS, "one cost for one observation")


def _references(rows: Iterable[tuple[Measurement, Criterion]]) -> Iterator[Finding]:
    """A reference of a problem, a beta and a number of steps, or of a case, does not depend on what is judged by it."""
    groups: dict[Hashable, list[Measurement]] = defaultdict(list)
    components: dict[Hashable, list[Measurement]] = defaultdict(list)
    for row, criterion in rows:
        if criterion.reference and row.uncertainty is not None:
            of_case = "" if criterion.shared else row.case
            key = (row.check, row.problem, row.beta, row.num_steps, of_case, row.target, row.leaf)
            groups[key].append(row)
            if criterion.reading.components and row.size is not None:
                components[key].append(row)
    yield from _differing(groups, ("uncertainty",), "one uncertainty of one reference")
    yield from _differing(components, ("size",), "one size of one reference")


def _differing(
    groups: Mapping[Hashable, list[Measurement]], columns: tuple[str, ...], allowed: str
) -> Iterator[Finding]:
    for members in groups.values():
        for column in columns:
            values = {getattr(row, column) for row in members}
            if len(values) > 1:
                row = members[0]
                where = " ".join(part for part in (row.case, row.adjoint, row.leaf) if part)
                shown = ", ".join(sorted(map(str, values))[:3])
                yield about_run(row.check, allowed, f"rows like {where} have the {column} {shown}")


def _lost(rows: Iterable[tuple[Measurement, Criterion]], plan: Plan) -> Iterator[Finding]:
    """A row may only say that reversal lost the states of its case where the rebuilt start says so too."""
    by_key: dict[RowKey, Measurement] = {row_key(row): row for row, _ in rows}
    for row, criterion in rows:
        power = criterion.reading.power
        if power is None or criterion.reading.own_reasons or row.power != math.inf:
            continue
        own = power(row)
        start = by_key.get(plan.lost.get(row.case, ("", "", "", "", "")))
        if own != math.inf and (start is None or start.status != "no-power"):
            where = " ".join(part for part in (row.case, row.adjoint, row.leaf) if part)
            why = f"{where} says that reversal loses the states, and the row of the rebuilt start has power"
            yield about_run(row.check, "power as predicted", why)
