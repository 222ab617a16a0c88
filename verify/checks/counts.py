"""Claim: the method costs what it promises, and reports the steps that it took."""

from __future__ import annotations

import gc

import torch

from verify.result import Measurement
from verify.subject import Adjoint, Settings
from verify.trial.memory import Allocations
from verify.trial.observation import bind
from verify.trial.ratio import reversal_loses_the_states
from verify.trial.trial import Trial, cost


STEPS = (4, 16)


def check_evaluations(trial: Trial) -> list[Measurement]:
    """Count the evaluations of f and the VJPs through it.

        forward 2N;   reversible backward 2N evaluations and 2N VJPs;   unrolled backward 0 and 2N

    Returns:
        Four rows per adjoint; `measured` is the distance from the expected count. The two of the reversible backward
        pass are left out where reversal is predicted to lose the states: doing something else is right there.

    How this can fail: a step too many or too few, states rebuilt by one evaluation and differentiated by another, a
    step count that was not updated.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, cost of the backward pass; (THEORY 1).
    """
    steps = trial.case.num_steps
    rows: list[Measurement] = []
    expected_backward: dict[Adjoint, int] = {"reversible": 2 * steps, "unrolled": 0}
    for adjoint, backward in expected_backward.items():
        seen = trial.observe(adjoint)
        reported = seen.num_steps.to("cpu", torch.float64)
        counts = {
            "forward evaluations": (len(seen.forward_states), 2 * steps),
            "backward evaluations": (len(seen.backward_states), backward),
            "vector-Jacobian products": (seen.vjps, 2 * steps),
            "reported steps": (float((reported - steps).abs().max()) + steps, steps),
        }
        if adjoint == "reversible" and reversal_loses_the_states(trial):
            del counts["backward evaluations"], counts["vector-Jacobian products"]
        rows += [
            trial.row(
                "evaluations",
                adjoint,
                leaf=leaf,
                got=float(got),
                expected=float(expected),
                measured=abs(float(got) - expected),
                unit="count",
                **cost(seen),
            )
            for leaf, (got, expected) in counts.items()
        ]
    return rows


def check_saved_bytes(trial: Trial) -> list[Measurement]:
    """Measure what is kept between forward and backward at two step counts.

        slope = (bytes(16) - bytes(4)) / 12      bytes per step

    Counted is every storage that an operation of the solve allocated and that something still holds.

    Returns:
        One row; "failed" where the unrolled adjoint, which must grow, is not seen to grow.

    How this can fail: states stored in the graph, on the context object, in a closure or in a module. A copy in memory
    that torch did not allocate is not seen.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917: memory constant in the number of steps; (A9).
    """
    slopes = {adjoint: _slope(trial, adjoint) for adjoint in ("reversible", "unrolled")}
    common = {"leaf": "per step", "unit": "bytes per step", "expected": 0.0}
    if not slopes["unrolled"][0] > 0:
        reason = f"the unrolled adjoint keeps {slopes['unrolled'][0]:g} bytes per step: the measurement sees nothing"
        return [trial.row("saved-bytes", "reversible", status="failed", reason=reason, **common)]
    slope, saved = slopes["reversible"]
    return [trial.row("saved-bytes", "reversible", got=slope, measured=abs(slope), saved_bytes=saved, **common)]


def kept_bytes(trial: Trial, settings: Settings) -> int:
    """Bytes kept between forward and backward by one solve."""
    function, z0, args, _ = bind(trial.problem, "args", trial.case.torch_dtype, trial.case.device)
    allocations = Allocations()
    with allocations:
        solved = trial.subject.solve(function, z0, args, settings)
    # A young reference cycle would count until the collector finds it; old objects are none of this solve's.
    gc.collect(1)
    kept = allocations.alive()
    del solved
    return kept


def _slope(trial: Trial, adjoint: Adjoint) -> tuple[float, int]:
    few, many = (kept_bytes(trial, trial.settings(adjoint, num_steps=steps)) for steps in STEPS)
    return (many - few) / (STEPS[1] - STEPS[0]), many
