"""Claim: the states can be rebuilt from the last ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import floating, rebuilt_steps, state_shape
from verify.criteria import RATIO_LIMIT, RATIO_WHY, ROUNDING_POWER, Criterion
from verify.plan import Place
from verify.reading import RATIO
from verify.reference.arithmetic.protocol import Array
from verify.result import Measurement
from verify.trial.ratio import ratio_row
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row for the start and a row for the middle."""
    for n in rebuilt_steps(case):
        yield Place(leaf=_leaf(n), shape=(2, *state_shape(case)))


def check_reconstruction(trial: Trial) -> list[Measurement]:
    """Run the inverse steps from (y_N, z_N) and compare the rebuilt states with the reference trajectory.

        R_n = RMS((y, z)_n rebuilt - (y_n, z_n)) / sig(n),      n = 0 and n = N/2

    Returns:
        A row for the start and a row for the middle.

    How this can fail: a wrong inverse, states in a narrower dtype than asked for. Where the inverse amplifies rounding
    to the size of the state itself there is no power, and the row says so.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917, the inverse iteration; (T6, T7).
    """
    case = trial.case
    rebuilt = trial.subject.reconstruct(
        trial.problem.function, *trial.problem.inputs(case.torch_dtype, case.device), trial.settings("reversible")
    )
    if len(rebuilt) != case.num_steps + 1:
        reason = f"{len(rebuilt)} states were rebuilt where {case.num_steps + 1} are expected"
        return CHECK.failed(trial, reason)
    return [_state_row(trial, n, rebuilt[case.num_steps - n]) for n in rebuilt_steps(case)]


def _leaf(n: int) -> str:
    return f"y and z at step {n}"


def _state_row(trial: Trial, n: int, pair: tuple[Tensor, Tensor]) -> Measurement:
    trajectory = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps)
    (y, z), (got_y, got_z) = trajectory.trajectory[n], pair
    both: Array = np.stack([y, z])
    return ratio_row(
        trial,
        _leaf(n),
        torch.stack([got_y, got_z]),
        both,
        scale=trial.scale().reconstruction[n],
        uncertainty=max(trajectory.uncertainty["y"], trajectory.uncertainty["z"]),
    )


CHECK = Check(
    name="reconstruction",
    topic="states",
    criterion=Criterion(
        claim="the inverse steps return the earlier states, up to the rounding that the inverse amplifies",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=RATIO,
        power=ROUNDING_POWER,
        logic=True,
        reference=True,
    ),
    kills=("jacobi-update", "float32-states-in-reverse"),
    applies=floating,
    places=places,
    rows=check_reconstruction,
    reverses=True,
)
