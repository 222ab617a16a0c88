"""For a model too large for a whole certificate: the N-step loss's derivative along one direction, enclosed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flint import arb
from numpy.typing import NDArray

from verify.certificate.kernel.code import Run
from verify.certificate.kernel.conclusions import DIRECTION_CLAIMS
from verify.certificate.kernel.numbers import packed
from verify.certificate.kernel.problem import Proved
from verify.certificate.kernel.prove import split_way
from verify.certificate.kernel.steps import direction
from verify.certificate.proof import texts
from verify.certificate.settings import Settings
from verify.certificate.source import Source
from verify.certificate.stages import Task, precisions
from verify.certificate.state_map import StateMap, first_clause
from verify.certificate.torch_run import TorchRunError, run_in_torch
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Traced


CLAIM = DIRECTION_CLAIMS[0]


@dataclass
class Direction:
    """A derivative along one direction, as far as it was proved.

    Attributes:
        bits: working precision.
        given_up: claim -> why nothing is said of it.
        proofs: for the re-checker.
        proved: what it will find.
        not_run: results that could not be had.
    """

    bits: int
    given_up: dict[str, str]
    proofs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    proved: list[Proved] = field(default_factory=list[Proved])
    not_run: list[dict[str, str]] = field(default_factory=list[dict[str, str]])


def direction_of(traced: Traced, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """A seeded direction for each leaf: multiples of 1/64 in [-1, 1], so no arithmetic rounds them."""
    generator = np.random.default_rng((seed, 20260119))
    arrays = traced.arrays()
    return {name: generator.integers(-64, 65, arrays[name].shape) / 64.0 for name in traced.leaves}


def certify_direction(
    source: Source,
    task: Task,
    settings: Settings,
    cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
) -> Direction:
    """Enclose the derivative of the N-step loss along a seeded direction, and compare float64's gradient with it.

    Args:
        source: the problem for torch.
        task: the same, recorded.
        settings: beta, N, digits and precision.
        cotangents: by state leaf.
    """
    traced, problem = task.traced, task.problem
    size = len(problem.start)
    rest = (
        f"not attempted: the state has {size} components, above max_components = {settings.max_components}; give "
        "fewer samples or a smaller state for a whole certificate"
    )
    way = direction_of(traced)
    flat = np.concatenate([way[name].ravel() for name in (*traced.state, *problem.leaves)])
    reason, bits = "", settings.first_bits
    for bits in precisions(settings.first_bits, settings.max_bits):
        settings.progress(f"differentiating along one direction at {bits} bits")
        function = StateMap(traced, task.recorder, bits, settings.progress)
        tapes: list[str] = []

        def evaluate(k: int, at: list[arb], function: StateMap = function, tapes: list[str] = tapes) -> Run:
            run = function.run("f", at)
            tapes[k:] = [run.tape]
            return run

        try:
            with flint_precision(bits):
                parts = split_way(problem, [arb(x) for x in flat.tolist()])
                value, scale = direction(function.machine, problem, parts, evaluate)
        except Undecided as undecided:
            reason = f"a step meets a kink ({first_clause(undecided)})"
            continue
        machine = function.machine
        if machine.ties or machine.kinks:
            reason = "f was evaluated exactly on a kink (a comparison of equal numbers)"
            break
        with flint_precision(bits):
            narrow = not machine.hulls and value.rad() <= scale * arb(10) ** -settings.digits
        if narrow:
            found = Direction(bits, {"fixed point": rest})
            along = _torch_along(source, traced, settings, cotangents, way, found)
            given: dict[str, Any] = {"tapes": tapes, "way": packed(flat.tolist()), "torch_along": along}
            (shown,) = texts([value], settings.digits)
            found.proofs.append({"problem": 0, "bits": bits, "direction": given, "derivative": shown})
            found.proved.append(Proved("direction", bits))
            found.proved[0].derivative = value
            return found
        reason = f"the enclosure is wider than {settings.digits} digits"
    return Direction(bits, {"fixed point": rest, CLAIM: f"given up at {bits} bits: {reason}"})


def _torch_along(
    source: Source,
    traced: Traced,
    settings: Settings,
    cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    way: dict[str, NDArray[np.float64]],
    found: Direction,
) -> str | None:
    try:
        run = run_in_torch(
            source, traced, torch.float64, "cpu", settings.beta, settings.num_steps, cotangents, "reversible"
        )
    except TorchRunError as failure:
        found.not_run.append({"what": "float64 reversible on cpu", "why": str(failure)})
        return None
    return math.fsum(float(part) for name in traced.leaves for part in (run.gradient[name] * way[name]).ravel()).hex()
