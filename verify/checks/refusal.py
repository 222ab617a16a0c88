"""Claim: what cannot be right is refused, and what went wrong is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from verify.result import Measurement
from verify.subject import Adjoint, Settings
from verify.trial.observation import bind
from verify.trial.trial import Trial


BETAS: tuple[Any, ...] = (0.0, 1.0, 2.0, -0.5, math.nan, math.inf, "0.5")
NUM_STEPS = (-1,)


class _PlantedError(Exception):
    """Raised inside f on purpose."""


def check_refusals(trial: Trial) -> list[Measurement]:
    """Ask for settings that have no inverse or no meaning.

    Returns:
        A row per setting; `measured` is 1 where it was accepted, or where the error is not a ValueError or TypeError
        with words in it, else 0.

    How this can fail: beta = 1 makes the inverse 0/0 and comes out as a finite, wrong gradient; NaN passes a check
    written as beta <= 0.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917: the inverse divides by 1 - beta.
    """
    steps = trial.case.num_steps
    asked = [(f"beta={beta!r}", beta, steps) for beta in BETAS]
    asked += [(f"num_steps={number}", trial.case.beta, number) for number in NUM_STEPS]
    rows: list[Measurement] = []
    for leaf, beta, number in asked:
        attempt = partial(_solve, trial, trial.problem.function, beta, number)
        rows.append(refused_row(trial, "refusals", leaf, attempt, (ValueError, TypeError)))
    return rows


def refused_row(
    trial: Trial, check: str, leaf: str, attempt: Callable[[], object], errors: tuple[type[Exception], ...]
) -> Measurement:
    """Attempt what cannot be right; `measured` is 0 where it is refused with words in it, else 1.

    Args:
        trial: the case.
        check: name of the check.
        leaf: what is asked, in a few words.
        attempt: asks for it.
        errors: the kinds of refusal that count; another one is not caught.
    """
    accepted, reason = 1.0, "accepted"
    try:
        attempt()
    except errors as error:
        accepted, reason = (0.0, f"refused: {error}") if str(error) else (1.0, "refused without a word")
    return trial.row(
        check, "reversible", leaf=leaf, got=accepted, expected=0.0, measured=accepted, unit="count", reason=reason
    )


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
            "errors-surface",
            "reversible",
            leaf=leaf,
            got=float(wrong),
            expected=0.0,
            measured=float(wrong),
            unit="count",
        )
        for leaf, wrong in outcomes.items()
    ]


def _solve(trial: Trial, function: Any, beta: Any, num_steps: int, adjoint: Adjoint = "reversible") -> Any:
    case = trial.case
    _, z0, args, leaves = bind(trial.problem, "args", case.torch_dtype, case.device)
    settings = Settings(beta=beta, num_steps=num_steps, adjoint=adjoint, state_dtype=case.torch_state_dtype)
    return trial.subject.solve(function, z0, args, settings), list(leaves.values())


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
        solved, _ = _solve(trial, function, trial.case.beta, trial.case.num_steps)
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
    solved, leaves = _solve(trial, trial.problem.function, trial.case.beta, trial.case.num_steps, adjoint)
    loss = (solved.z1 * solved.z1).sum() + (solved.y1 * solved.y1).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    squares = sum(((value * value).sum() for value in first if value is not None), torch.zeros(()))
    # backward() runs every node, also one that only refuses; grad(inputs=...) would go round it.
    torch.autograd.backward([squares])
    return [leaf.grad for leaf in leaves]


def _flat(gradient: Tensor | None) -> Tensor:
    """A gradient as a vector; one zero where there is none, which broadcasts."""
    return torch.zeros(1) if gradient is None else gradient.detach().to("cpu", torch.float64).reshape(-1)
