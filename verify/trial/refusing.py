"""Attempts at what cannot be right, and the rows that say whether they were refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verify.result import Measurement
from verify.subject import Adjoint, Settings
from verify.trial.observation import bind
from verify.trial.trial import Trial


def refused_row(
    trial: Trial, leaf: str, attempt: Callable[[], object], errors: tuple[type[Exception], ...]
) -> Measurement:
    """Attempt what cannot be right; `measured` is 0 where it is refused with words in it, else 1.

    Args:
        trial: the case.
        leaf: what is asked, in a few words.
        attempt: asks for it.
        errors: the kinds of refusal that count; another one is not caught.
    """
    accepted, reason = 1.0, "accepted"
    try:
        attempt()
    except errors as error:
        accepted, reason = (0.0, f"refused: {error}") if str(error) else (1.0, "refused without a word")
    return trial.row("reversible", leaf=leaf, got=accepted, expected=0.0, measured=accepted, reason=reason)


def attempt_solve(trial: Trial, function: Any, beta: Any, num_steps: int, adjoint: Adjoint = "reversible") -> Any:
    """Solve the case with another beta, step count or function: (what was solved, the leaves)."""
    case = trial.case
    _, z0, args, leaves = bind(trial.problem, "args", case.torch_dtype, case.device)
    adjoint = trial.claims.stand_in(adjoint)
    settings = Settings(beta=beta, num_steps=num_steps, adjoint=adjoint, state_dtype=case.torch_state_dtype)
    return trial.subject.solve(function, z0, args, settings), list(leaves.values())
