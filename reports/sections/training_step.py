"""Part of section 6: a training step by each method, counted, and timed as a ratio to the floor."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from reports.content import Block, Fold, Grid, Notice, Prose
from reports.dossier import Dossier, Run
from reports.figures.cost_ratio import cost_ratio
from reports.figures.memory import memory
from reports.figures.svg import figure_name
from reports.text import ABSENT, binary_size, number
from verify.result import Curve
from verify.studies.cost import FLOOR


Key = tuple[str, str, str]
"""Solver, adjoint and state dtype of a method."""

PEERS = {"torchdeq": "torchdeq", "reversible, by hand": "torch.utils.checkpoint"}
"""What a peer's solver is called in the results -> its name."""


def training_step_blocks(dossier: Dossier) -> list[Block]:
    """The study of cost of each run that has one."""
    blocks: list[Block] = []
    for run in dossier.runs:
        if any(curve.name == "cost-ratio" for curve in run.results.curves):
            blocks += _of_run(run, several=len(dossier.runs) > 1)
    return blocks or [Notice("note", "No training step was timed: these runs have no study of cost.")]


def _of_run(run: Run, *, several: bool) -> list[Block]:
    of = {name: _by_method(run, f"cost-{name}") for name in ("evaluations", "vjps", "bytes", "ratio", "seconds")}
    timed = {key: curve for key, curve in of["ratio"].items() if key[0] != FLOOR}
    first = next(iter(of["seconds"].values()))
    where = f" ({run.label})" if several else ""
    caption = (
        f"Training steps of a {first.problem}, beta = {number(_beta(timed))}, forward and gradients{where}; "
        f"{first.y_name}; {_machine(run.results.environment)}. Bars are half the distance between the quartiles. "
        f"{_reversible(timed)}{_absent(of['evaluations'])}"
    )
    labels = [_label(key) for key in timed]
    return [
        Prose(
            "A training step is measured against its floor: 2N evaluations without a graph and 2N with a "
            "vector-Jacobian product, which no method avoids that rebuilds its states. All methods run in turns; each "
            "ratio is to the floor of the same round. Methods that store the states can be faster than the floor; "
            "implicit and phantom gradients are those of the fixed point and not of the steps taken."
        ),
        cost_ratio(labels, list(timed.values()), name=figure_name("cost-ratio", run.label), caption=caption),
        _table(of),
        Fold(
            f"Bytes against the number of steps{where}",
            (
                memory(
                    [replace(c, problem=c.solver) for c in of["bytes"].values() if c.adjoint != "phantom"],
                    name=figure_name("cost-bytes", run.label),
                    caption="Bytes kept between forward and backward, by solver, phantom gradients left out: "
                    f"{_problem(of['bytes'])}.",
                ),
            ),
        ),
    ]


def _table(of: dict[str, dict[Key, Curve]]) -> Grid:
    widths = next(iter(of["ratio"].values())).x
    counted_at = next(iter(of["bytes"].values())).x
    cells: list[tuple[str, ...]] = []
    keys = dict.fromkeys((*of["evaluations"], *(key for key in of["ratio"] if key[0] != FLOOR)))
    for key in keys:
        counts = [of[name].get(key) for name in ("evaluations", "vjps")]
        kept, ratio, seconds = (of[name].get(key) for name in ("bytes", "ratio", "seconds"))
        cells.append(
            (
                *key, *(ABSENT if counted is None else _formula(counted) for counted in counts),
                *((ABSENT, ABSENT) if kept is None else (binary_size(kept.y[0]), _slope(kept))),
                *([ABSENT] * len(widths) if ratio is None else [f"{y:.2f}" for y in ratio.y]),
                *([ABSENT] * len(widths) if seconds is None else [number(1e3 * y) for y in seconds.y]),
            )
        )  # fmt: skip
    columns = (
        "solver", "adjoint", "state", "evaluations of f", "VJPs", f"bytes at N = {counted_at[0]:g}",
        "bytes a step", *(f"ratio, width {width:g}" for width in widths), *(f"ms, width {width:g}" for width in widths),
    )  # fmt: skip
    steps = ", ".join(f"{n:g}" for n in counted_at)
    caption = (
        f"A training step by each solver with each adjoint. Counts and bytes are exact, at N = {steps} on a "
        f"{_problem(of['bytes'])}; a dash is what was not timed or not counted."
    )
    return Grid(caption, columns, tuple(cells), (), frozenset(range(3, len(columns))))


def _by_method(run: Run, name: str) -> dict[Key, Curve]:
    return {(c.solver, c.adjoint, c.state_dtype): c for c in run.results.curves if c.name == name}


def _label(key: Key) -> str:
    solver, adjoint, state = key
    return f"{solver}, {adjoint} ({state} states)"


def _formula(curve: Curve) -> str:
    """A count as a function of N, such as 4N or 2N + 1; the counts themselves where they are not on a line."""
    slope = _constant_slope(curve)
    if slope is None or not slope.is_integer():
        return ", ".join(number(y) for y in curve.y)
    rest = curve.y[0] - slope * curve.x[0]
    if slope == 0:
        return f"{rest:g}"
    return f"{slope:g}N" + (f" {'+' if rest > 0 else '-'} {abs(rest):g}" if rest else "")


def _slope(curve: Curve) -> str:
    """Bytes that each step adds; a range where they are not the same for all steps."""
    slope = _constant_slope(curve)
    if slope is not None:
        return binary_size(slope)
    slopes = _slopes(curve)
    return f"{binary_size(min(slopes))} to {binary_size(max(slopes))}"


def _constant_slope(curve: Curve) -> float | None:
    slopes = set(_slopes(curve))
    return slopes.pop() if len(slopes) == 1 else None


def _slopes(curve: Curve) -> list[float]:
    points = list(zip(curve.x, curve.y, strict=True))
    return [(d - b) / (c - a) for (a, b), (c, d) in pairwise(points)]


def _reversible(timed: dict[Key, Curve]) -> str:
    """What the reversible adjoint measured, in words."""
    said = [
        f"{' and '.join(f'{y:.2f} at width {x:g}' for x, y in zip(curve.x, curve.y, strict=True))} with {state} states"
        for (_, adjoint, state), curve in timed.items()
        if adjoint == "reversible"
    ]
    return f"Relative to the floor the reversible step takes {'; '.join(said)}. " if said else ""


def _absent(counted: dict[Key, Curve]) -> str:
    solvers = {solver for solver, _, _ in counted}
    missing = [name for solver, name in PEERS.items() if solver not in solvers]
    left_out = [*missing, "JAX"] if missing else ["JAX"]
    return (
        f"Not measured here: {_listed(left_out)}; benchmarks/README.md says how to run "
        f"{'it' if len(left_out) == 1 else 'them'} beside these."
    )


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _machine(environment: dict[str, Any]) -> str:
    return f"torch {environment.get('torch', 'unknown')}, {environment.get('platform', 'unknown platform')}"


def _beta(timed: dict[Key, Curve]) -> float | None:
    return next(iter(timed.values())).beta


def _problem(curves: dict[Key, Curve]) -> str:
    return next(iter(curves.values())).problem
