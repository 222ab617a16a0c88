"""What a user may give for beta: one number, a schedule, or a word that says how it is chosen."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

from torch._C._functorch import peek_interpreter_stack

from revdeq._automatic import AutomaticBeta, automatic_beta
from revdeq._errors import GradientError
from revdeq._schedule import Schedule
from revdeq.function import Function
from revdeq.solver.base import validated_beta


Relaxation: TypeAlias = float | Schedule | Literal["auto", "adaptive"]
"""What a user may give for beta."""


def validated_relaxation(beta: object) -> Relaxation:
    """Return beta if it is a number, a schedule, "auto" or "adaptive".

    Raises:
        TypeError: it is none of these.
        ValueError: a number that is NaN, outside (0, 2), or 1; an empty schedule, or a step without two betas.
    """
    if isinstance(beta, str):
        if beta not in ("auto", "adaptive"):
            raise ValueError(
                f"beta is {beta!r}; the words allowed are 'auto' and 'adaptive', or give a number or a schedule."
            )
        return beta
    if not isinstance(beta, tuple | list):
        return validated_beta(beta, below=2.0, excluded=(1.0,))
    steps = cast("Sequence[Any]", beta)
    if not steps:
        raise ValueError("beta is an empty schedule; give a pair of betas for every step, or one number.")
    pairs: list[tuple[float, float]] = []
    for n, pair in enumerate(steps):
        if not isinstance(pair, tuple | list) or len(cast("Sequence[Any]", pair)) != 2:
            raise ValueError(
                f"step {n} of the schedule beta is {pair!r}; give two betas for every step, those of y and of z, "
                "such as (0.5, 0.5)."
            )
        first, second = (validated_beta(b, below=2.0, excluded=(1.0,)) for b in cast("Sequence[Any]", pair))
        pairs.append((first, second))
    return tuple(pairs)


def estimated_beta(f: Function, num_steps: int) -> AutomaticBeta:
    """Choose beta for a function by `automatic_beta`.

    Args:
        f: the user's function, not yet evaluated.
        num_steps: steps that the solve will take, or the greatest number of them.

    Raises:
        revdeq._estimate.EstimateError: f(z0) is not finite, or no beta converges.
        GradientError: inside a torch.func transform, where residuals cannot be read.
    """
    if peek_interpreter_stack():
        raise GradientError(
            "beta='auto' was asked for inside a torch.func transform (grad, vmap, jvp ...), where the "
            "residuals of its trial cannot be read; call revdeq.automatic_beta outside, and give the number."
        )
    start = f.border.tree(f.z0)
    return automatic_beta(f.function, start, f.args, num_steps=max(1, num_steps))
