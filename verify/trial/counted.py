"""What is counted: calls of f as rows, and bytes that are kept between the passes."""

from __future__ import annotations

import gc

import torch

from verify.result import Measurement
from verify.subject import Adjoint, Settings
from verify.trial.memory import Allocations
from verify.trial.observation import bind
from verify.trial.trial import Trial, cost


STEPS = (4, 16)


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


def count_row(trial: Trial, adjoint: Adjoint, leaf: str, expected: int) -> Measurement:
    """The distance of a count from the expected one.

    Args:
        trial: the trial.
        adjoint: whose passes are counted.
        leaf: "forward evaluations", "backward evaluations", "vector-Jacobian products" or "reported steps".
        expected: the count.
    """
    seen = trial.observe(adjoint)
    reported = seen.num_steps.to("cpu", torch.float64)
    steps = trial.case.num_steps
    counts = {
        "forward evaluations": len(seen.forward_states),
        "backward evaluations": len(seen.backward_states),
        "vector-Jacobian products": seen.vjps,
        "reported steps": float((reported - steps).abs().max()) + steps,
    }
    got = float(counts[leaf])
    return trial.row(adjoint, leaf=leaf, got=got, expected=float(expected), measured=abs(got - expected), **cost(seen))
