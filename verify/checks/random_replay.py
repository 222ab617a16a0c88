"""Claim: backward meets the random numbers of forward."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import EXACT_WHY, Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.observation import bind
from verify.trial.pulled import differing, differing_row
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", leaf="drawn inside", expected=0.0)


def check_random_replay(trial: Trial) -> list[Measurement]:
    """Give f a mask drawn inside it; backward must meet the mask that forward drew.

        f(z) = (1 - mask) problem(z),      mask in [0, 1/16) drawn from the global generator at each evaluation

    One solve has one mask. The gradients must equal those of the same f with that mask passed in, to the bit.

    Returns:
        One row; `measured` is the number of gradient components that differ.

    How this can fail: the generator's state is not saved, or not put back before each evaluation, so that backward
    differentiates another map than the one that ran.

    References:
        torch.utils.checkpoint, preserve_rng_state.
    """
    drawn, given = (_masked_gradients(trial, inside) for inside in (True, False))
    return [differing_row(trial, "drawn inside", differing(drawn, given))]


def _masked_gradients(trial: Trial, inside: bool) -> list[Tensor | None]:
    case = trial.case
    function, z0, args, leaves = bind(trial.problem, "args", case.torch_dtype, case.device)
    cotangents = list(trial.problem.cotangents(case.torch_dtype, case.device))
    before = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        mask = torch.rand(z0.shape, device=z0.device, dtype=z0.dtype)
        torch.manual_seed(0)

        def masked(z: Tensor, arguments: dict[str, Tensor]) -> Tensor:
            factor = torch.rand(z.shape, device=z.device, dtype=z.dtype) if inside else mask
            # Near the problem itself, whose domain an arbitrary factor would leave.
            return function(z, arguments) * (1.0 - factor / 16.0)

        solved = trial.subject.solve(masked, z0, args, trial.settings("reversible"))
        return list(torch.autograd.grad([solved.z1, solved.y1], list(leaves.values()), cotangents, allow_unused=True))
    finally:
        torch.set_rng_state(before)


CHECK = Check(
    name="random-replay",
    topic="surroundings",
    criterion=Criterion(
        claim="random numbers drawn inside f are the same ones in backward",
        comparison="==",
        threshold=0.0,
        why=EXACT_WHY,
        unit="count",
        reading=DIFFERENCE,
    ),
    kills=("random-numbers-not-replayed",),
    applies=probe,
    places=places,
    rows=check_random_replay,
    reverses=True,
)
