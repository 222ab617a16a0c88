"""Claim: what reversal to the bit cannot do is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import bitwise_probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.observation import bind
from verify.trial.refusing import refused_row
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row each."""
    del case
    for leaf in ("beta=0.7", "overflow", "f that does not repeat"):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


def check_bitwise_refusals(trial: Trial) -> list[Measurement]:
    """Ask for what reversal to the bit cannot do.

    Asked are a beta between two of the form 1 - 1/m; a map that multiplies by 2^20 at every evaluation, whose states
    leave every range of integers; and a function whose evaluations differ in their last bits.

    Returns:
        A row each; `measured` is 1 where a gradient came out, or the error has no words, else 0.

    How this can fail: beta rounded to a neighbour; integers that wrap round; a reversal that does not look where it
    ended.

    References:
        (T8).
    """
    beta, function = trial.case.beta, trial.problem.function
    asked: dict[str, tuple[float, Callable[[Tensor, Any], Tensor]]] = {
        "beta=0.7": (0.7, function),
        "overflow": (beta, lambda z, args: 2.0**20 * z + 0.0 * function(z, args)),
        "f that does not repeat": (beta, _Unsteady(function)),
    }
    rows: list[Measurement] = []
    for leaf, (number, asked_function) in asked.items():
        attempt = partial(_gradient, trial, asked_function, number)
        errors = (ValueError, ArithmeticError, RuntimeError)
        rows.append(refused_row(trial, leaf, attempt, errors))
    return rows


class _Unsteady:
    """A function whose value grows by a few units in the last place from one evaluation to the next."""

    def __init__(self, function: Callable[[Tensor, Any], Tensor]) -> None:
        self._function = function
        self._evaluations = 0

    def __call__(self, z: Tensor, args: Any) -> Tensor:
        value = self._function(z, args)
        self._evaluations += 1
        return value * (1 + 4 * self._evaluations * torch.finfo(value.dtype).eps)


def _gradient(trial: Trial, function: Callable[[Tensor, Any], Tensor], beta: float) -> None:
    case = trial.case
    _, z0, args, _ = bind(trial.problem, "args", case.torch_dtype, case.device)
    solved = trial.subject.solve(function, z0, args, replace(trial.settings("reversible"), beta=beta))
    torch.autograd.backward([solved.z1, solved.y1], list(trial.problem.cotangents(case.torch_dtype, case.device)))


CHECK = Check(
    name="bitwise-refusals",
    topic="refusals",
    criterion=Criterion(
        claim="a beta without bitwise form, an overflow and a function that does not repeat are refused",
        comparison="==",
        threshold=0.0,
        why="each would come out as a finite, wrong gradient",
        unit="count",
        reading=DIFFERENCE,
        notes=True,
    ),
    kills=("overflow-unnoticed", "replay-not-compared", "beta-without-bitwise-form"),
    applies=bitwise_probe,
    places=places,
    rows=check_bitwise_refusals,
    reverses=True,
)
