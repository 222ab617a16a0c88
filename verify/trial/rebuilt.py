"""The states at which backward evaluates f, as rows."""

from __future__ import annotations

import math

import numpy as np

from verify.reference import difference
from verify.result import Measurement
from verify.trial.ratio import ratio_row, reversal_loses_the_states, rms
from verify.trial.trial import Trial, cost, to_numpy


def forward_rounds(trial: Trial) -> bool:
    """Whether the forward pass rounded at all: z1 is not the exact iterate."""
    expected = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps).z
    return bool(np.any(difference(to_numpy(trial.observe("reversible").z1), expected) != 0))


def rebuilt_row(trial: Trial, n: int) -> Measurement:
    """R of the state z_n at which backward evaluates f; see `not_reversed` where it evaluates f otherwise."""
    case, seen = trial.case, trial.observe("reversible")
    if len(seen.backward_states) != 2 * case.num_steps:
        return not_reversed(trial, n)
    trajectory = trial.references.n_step(trial.problem, case.beta, case.num_steps)
    expected = trajectory.trajectory[n][1]
    # f receives the state rounded to its own dtype.
    rounded = case.unit_roundoff * rms(expected.astype(np.float64)) / math.sqrt(3.0)
    return ratio_row(
        trial,
        state_name(n),
        seen.backward_states[2 * (case.num_steps - n) - 1],
        expected,
        scale=math.hypot(trial.scale().reconstruction[n], rounded),
        uncertainty=trajectory.uncertainty["z"],
        adjoint="reversible",
        **cost(seen),
    )


def not_reversed(trial: Trial, n: int) -> Measurement:
    """The row of a state that backward did not visit: failed, unless reversal is predicted to lose the states."""
    seen = trial.observe("reversible")
    lost = reversal_loses_the_states(trial)
    count = len(seen.backward_states)
    return trial.row(
        "reversible",
        leaf=state_name(n),
        power=math.inf if lost else None,
        status="no-power" if lost else "failed",
        reason=f"backward evaluated f at {count} states where {2 * trial.case.num_steps} are expected",
        **cost(seen),
    )


def state_name(n: int) -> str:
    """The leaf of a row about z_n."""
    return f"z at step {n}"
