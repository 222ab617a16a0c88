"""The study of cost as curves of a results file, so that the report draws nothing but what a run measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from verify.result import Curve
from verify.studies.cost.counting import count
from verify.studies.cost.methods import Method, methods_of
from verify.studies.cost.peers import peers_of
from verify.studies.cost.timing import Timing, clocked, interleaved
from verify.studies.cost.workload import Workload


FLOOR = "floor"
"""Stands in the place of a solver for the floor."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        widths: widths of the timed cell.
        rounds: timed training steps of each method, interleaved.
        every_pair: whether every pair is timed, or the main ones; all are counted in any case.
        tokens: tokens of the timed cell; 448 is the sequence length of the RevDEQ paper.
        counted_steps: step counts N at which evaluations, VJPs and bytes are counted.
    """

    widths: tuple[int, ...]
    rounds: int
    every_pair: bool
    tokens: int = 448
    counted_steps: tuple[int, ...] = (2, 4, 8)


def plan_of(profile: str) -> Plan:
    """The plan of a profile: widths 32 and 128 in "quick", where it must be done in seconds; else up to 512."""
    return Plan((32, 128), 5, False) if profile == "quick" else Plan((32, 128, 256, 512), 9, True)


def cost_curves(plan: Plan) -> Iterator[Curve]:
    """Measure what a training step costs by each method.

    Args:
        plan: what to measure.

    Yields:
        "cost-ratio" (time over that of the floor, from the same rounds) and "cost-seconds" against the width, with half
        the distance between the quartiles as `band`; "cost-evaluations", "cost-vjps" and "cost-bytes" against N, where
        `predicted` is what the reversible method promises of the first two: 4N and 2N.

    References:
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917, section 3 (cost of backward).
    """
    yield from _counts(plan)
    yield from _times(plan)


def _counts(plan: Plan) -> Iterator[Curve]:
    workloads = [Workload(32, tokens=16, num_steps=steps) for steps in plan.counted_steps]
    of_each = zip(*(_all_methods(workload) for workload in workloads), strict=True)
    x = tuple(float(steps) for steps in plan.counted_steps)
    for same in of_each:
        costs = [count(workload, method) for workload, method in zip(workloads, same, strict=True)]
        labels: dict[str, Any] = {
            "problem": f"transformer cell of width 32, {workloads[0].tokens} tokens",
            **_labels(same[0], workloads[0]),
            "x_name": "number of steps N",
            "x": x,
        }
        promised = same[0].adjoint == "reversible"
        yield Curve(
            name="cost-evaluations",
            y_name="evaluations of f, forward and backward (count)",
            y=tuple(float(cost.evaluations) for cost in costs),
            predicted=tuple(4.0 * steps for steps in x) if promised else None,
            **labels,
        )
        yield Curve(
            name="cost-vjps",
            y_name="vector-Jacobian products of f (count)",
            y=tuple(float(cost.vjps) for cost in costs),
            predicted=tuple(2.0 * steps for steps in x) if promised else None,
            **labels,
        )
        yield Curve(
            name="cost-bytes",
            y_name="bytes kept between forward and backward",
            y=tuple(float(cost.saved_bytes) for cost in costs),
            **labels,
        )


def _times(plan: Plan) -> Iterator[Curve]:
    found: dict[str, dict[int, Timing]] = {}
    chosen: dict[str, Method] = {}
    workload = Workload(plan.widths[0], tokens=plan.tokens)
    clock, said = _clock()
    for width in plan.widths:
        workload = Workload(width, tokens=plan.tokens)
        chosen = {m.name: m for m in _all_methods(workload) if m.main or plan.every_pair}
        steps = training_steps(workload, chosen.values())
        runs = {name: clocked(step, workload.device, clock) for name, step in steps.items()}
        for name, timing in interleaved(runs, rounds=plan.rounds).items():
            found.setdefault(name, {})[width] = timing
    x = tuple(float(width) for width in plan.widths)
    for name, by_width in found.items():
        method = chosen.get(name)
        labels: dict[str, Any] = {
            "problem": f"transformer cell, {workload.tokens} tokens, N = {workload.num_steps}",
            **(_labels(method, workload) if method else {"solver": FLOOR, "dtype": "float32", "device": "cpu"}),
            "x_name": "width of the cell",
            "x": x,
        }
        timings = list(by_width.values())
        yield Curve(
            name="cost-ratio",
            y_name="time of a training step over that of the floor",
            y=tuple(timing.ratio for timing in timings),
            band=tuple(timing.spread for timing in timings),
            **labels,
        )
        yield Curve(
            name="cost-seconds",
            y_name=f"seconds of a training step ({said}, {_threads()})",
            y=tuple(timing.median for timing in timings),
            band=tuple((timing.high - timing.low) / 2.0 for timing in timings),
            **labels,
        )


def _all_methods(workload: Workload) -> list[Method]:
    return [*methods_of(workload), *peers_of(workload)]


def training_steps(workload: Workload, methods: Iterable[Method]) -> dict[str, Callable[[], object]]:
    """Whole training steps by name, forward and gradients, the floor first.

    Args:
        workload: what is solved.
        methods: by what.
    """

    def taken(method: Method) -> Callable[[], object]:
        return lambda: workload.gradients(method.forward(workload.cell))

    return {FLOOR: workload.floor} | {method.name: taken(method) for method in methods}


def _clock() -> tuple[Callable[[], float], str]:
    """On one thread the clock of the processor leaves out what other processes took."""
    if torch.get_num_threads() == 1:
        return time.process_time, "processor time"
    return time.perf_counter, "wall clock"


def _labels(method: Method, workload: Workload) -> dict[str, Any]:
    return {
        "solver": method.solver,
        "adjoint": method.adjoint,
        "beta": workload.beta,
        "dtype": "float32",
        "state_dtype": method.state_dtype,
        "device": workload.device.type,
    }


def _threads() -> str:
    count = torch.get_num_threads()
    return "1 thread" if count == 1 else f"{count} threads"
