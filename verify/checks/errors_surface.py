"""Claim: what went wrong in f is said."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe_at_half
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.refusing import attempt_solve
from verify.trial.trial import Trial


class _PlantedError(Exception):
    """Raised inside f on purpose."""


def places(case: Case) -> Iterator[Place]:
    """A row each."""
    del case
    for leaf in ("forward", "backward", "second derivative"):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


def check_errors_surface(trial: Trial) -> list[Measurement]:
    """Raise inside f, forward and backward; take a second derivative.

    A second derivative must be refused or agree with the unrolled one within 2^-20.

    Returns:
        A row each; `measured` is 1 where the exception did not come out, or a wrong second derivative did.

    How this can fail: a handler that turns an exception into zeros; a backward whose result looks differentiable.

    References:
        torch.autograd.function.once_differentiable.
    """
    steps = trial.case.num_steps
    outcomes = {
        "forward": _swallowed(trial, 2),
        "backward": _swallowed(trial, 2 * steps + 2),
        "second derivative": _wrong_second_derivative(trial),
    }
    return [
        trial.row(
            "reversible",
            leaf=leaf,
            got=float(wrong),
            expected=0.0,
            measured=float(wrong),
        )
        for leaf, wrong in outcomes.items()
    ]


def _swallowed(trial: Trial, call: int) -> bool:
    """Whether an exception raised by f at its call number `call` fails to reach the caller."""
    calls = 0

    def function(z: Tensor, args: dict[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            raise _PlantedError
        return trial.problem.function(z, args)

    try:
        solved, _ = attempt_solve(trial, function, trial.case.beta, trial.case.num_steps)
        torch.autograd.backward([solved.z1, solved.y1], [torch.ones_like(solved.z1), torch.ones_like(solved.y1)])
    except _PlantedError:
        return False
    except Exception as error:  # noqa: BLE001  (an error that carries the planted one is as good)
        return not isinstance(error.__cause__ or error.__context__, _PlantedError)
    return True


def _wrong_second_derivative(trial: Trial) -> bool:
    """Whether a second derivative comes out and disagrees with the unrolled one."""
    try:
        mine = _second_derivative(trial, "reversible")
    except RuntimeError:
        return False
    reference = _second_derivative(trial, "unrolled")
    pairs = [(_flat(one), _flat(other)) for one, other in zip(mine, reference, strict=True)]
    scale = sum(float(other.abs().max()) for _, other in pairs)
    apart = sum(float((one - other).abs().max()) for one, other in pairs)
    return not apart <= 2.0**-20 * scale


def _second_derivative(trial: Trial, adjoint: Adjoint) -> list[Tensor | None]:
    solved, leaves = attempt_solve(trial, trial.problem.function, trial.case.beta, trial.case.num_steps, adjoint)
    loss = (solved.z1 * solved.z1).sum() + (solved.y1 * solved.y1).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    squares = sum(((value * value).sum() for value in first if value is not None), torch.zeros(()))
    # backward() runs every node, also one that only refuses; grad(inputs=...) would go round it.
    torch.autograd.backward([squares])
    return [leaf.grad for leaf in leaves]


def _flat(gradient: Tensor | None) -> Tensor:
    """A gradient as a vector; one zero where there is none, which broadcasts."""
    return torch.zeros(1) if gradient is None else gradient.detach().to("cpu", torch.float64).reshape(-1)


CHECK = Check(
    name="errors-surface",
    topic="refusals",
    criterion=Criterion(
        claim="an exception inside f reaches the caller, forward and backward; double backward is right or refused",
        comparison="==",
        threshold=0.0,
        why="a swallowed failure is a silent wrong gradient",
        unit="count",
        reading=DIFFERENCE,
    ),
    kills=("exception-swallowed", "double-backward-wrong"),
    applies=probe_at_half,
    places=places,
    rows=check_errors_surface,
    reverses=True,
)
