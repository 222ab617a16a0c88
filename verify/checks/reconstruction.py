"""Claim: the states can be rebuilt from the last ones, and are rebuilt rather than stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.criteria import ROUNDING_POWER
from verify.reference import difference
from verify.reference.arithmetic.protocol import Array
from verify.result import Measurement
from verify.trial.ratio import ratio_row, rms, start_power
from verify.trial.trial import Trial, cost, to_numpy


AMPLIFICATION = 1e3


def check_reconstruction(trial: Trial) -> list[Measurement]:
    """Run the inverse steps from (y_N, z_N) and compare the rebuilt states with the reference trajectory.

        R_n = RMS((y, z)_n rebuilt - (y_n, z_n)) / sig(n),      n = 0 and n = N/2

    Returns:
        A row for the start and a row for the middle.

    How this can fail: a wrong inverse, states in a narrower dtype than asked for. Where the inverse amplifies rounding
    to the size of the state itself there is no power, and the row says so.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the inverse iteration; (THEORY T6, T7).
    """
    case = trial.case
    rebuilt = trial.subject.reconstruct(
        trial.problem.function, *trial.problem.inputs(case.torch_dtype, case.device), trial.settings("reversible")
    )
    if len(rebuilt) != case.num_steps + 1:
        reason = f"{len(rebuilt)} states were rebuilt where {case.num_steps + 1} are expected"
        return [trial.row("reconstruction", leaf="step 0", unit="ratio R", status="failed", reason=reason)]
    return [
        _state_row(trial, "reconstruction", n, rebuilt[case.num_steps - n])
        for n in sorted({0, case.num_steps // 2} - {case.num_steps})
    ]


def check_backward_states(trial: Trial) -> list[Measurement]:
    """Watch where backward evaluates f, and compare those states with the forward trajectory.

    Backward evaluates f at y_N, z_{N-1}, y_{N-1}, ..., y_1, z_0, in this order. The last is the worst: R of z_0.

    Returns:
        A "backward-states" row for z_0 and for the middle; where rounding is predicted to be amplified more than 1e3
        times, the states are as narrow as f, and forward did round (on round numbers it need not), a "not-stored" row
        with the same ratio, which must not be tiny.

    How this can fail: VJPs at the wrong state, states kept narrower or wider than asked for, states stored after all.
    A subject that evaluates f in another order, or another number of times, is reported as failed, unless reversal is
    predicted to lose the state altogether: then doing something else is right, and the row has no power.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the reversible backward pass; (THEORY T6, A4).
    """
    case = trial.case
    seen = trial.observe("reversible")
    steps = case.num_steps
    states = seen.backward_states
    trajectory = trial.references.n_step(trial.problem, case.beta, steps)
    scale = trial.scale()
    if len(states) != 2 * steps:
        return [_not_reversed(trial, len(states))]
    rows: list[Measurement] = []
    for n in sorted({0, steps // 2} - {steps}):
        expected = trajectory.trajectory[n][1]
        size = rms(expected.astype(np.float64))
        # f receives the state rounded to its own dtype.
        spread = math.hypot(scale.reconstruction[n], case.unit_roundoff * size / math.sqrt(3.0))
        row = ratio_row(
            trial,
            "backward-states",
            f"z at step {n}",
            states[2 * (steps - n) - 1],
            expected,
            scale=spread,
            uncertainty=trajectory.uncertainty["z"],
            adjoint="reversible",
            **cost(seen),
        )
        rows.append(row)
        amplification = scale.round_trip[n] / (case.state_unit_roundoff * size) if size > 0 else 0.0
        plain = n == 0 and case.dtype == case.state_dtype and row.status == "measured"
        if plain and amplification > AMPLIFICATION and forward_rounds(trial):
            rows.append(trial.row("not-stored", "reversible", **_columns(row)))
    return rows


def forward_rounds(trial: Trial) -> bool:
    """Whether the forward pass rounded at all: z1 is not the exact iterate."""
    expected = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps).z
    return bool(np.any(difference(to_numpy(trial.observe("reversible").z1), expected) != 0))


def _not_reversed(trial: Trial, count: int) -> Measurement:
    power = start_power(trial)
    lost = not power <= ROUNDING_POWER
    reason = f"backward evaluated f at {count} states where {2 * trial.case.num_steps} are expected"
    return trial.row(
        "backward-states",
        "reversible",
        leaf="z at step 0",
        unit="ratio R",
        power=power,
        status="no-power" if lost else "failed",
        reason=reason,
    )


def _state_row(trial: Trial, check: str, n: int, pair: tuple[Tensor, Tensor]) -> Measurement:
    trajectory = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps)
    (y, z), (got_y, got_z) = trajectory.trajectory[n], pair
    both: Array = np.stack([y, z])
    return ratio_row(
        trial,
        check,
        f"y and z at step {n}",
        torch.stack([got_y, got_z]),
        both,
        scale=trial.scale().reconstruction[n],
        uncertainty=max(trajectory.uncertainty["y"], trajectory.uncertainty["z"]),
    )


def _columns(row: Measurement) -> dict[str, Any]:
    names = ("leaf", "index", "got", "expected", "measured", "unit", "scale", "power", "uncertainty")
    return {name: getattr(row, name) for name in names}
