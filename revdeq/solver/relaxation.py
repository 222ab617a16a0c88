"""Which relaxation parameter each half step takes: one number, a schedule, an estimate, or what the residuals say."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch._C._functorch import peek_interpreter_stack

from revdeq.errors import GradientError
from revdeq.estimate import AutomaticBeta, automatic_beta
from revdeq.function import Function
from revdeq.residual import residual_norm, sample_norm, sample_shape
from revdeq.schedule import Schedule, next_beta
from revdeq.solver.base import validated_beta
from revdeq.tree import Leaves


Beta: TypeAlias = float | torch.Tensor
"""A relaxation parameter: one number for all samples, or a float64 tensor with one entry a sample."""

Relaxation: TypeAlias = float | Schedule | Literal["auto", "adaptive"]
"""What a user may give for beta."""

ADAPTIVE_START = 0.8
"""Beta of the first step of an adaptive run; below 1 every contraction converges, and near 1 a ratio says most."""


class Pace(NamedTuple):
    """What an adaptive run remembers, one entry a sample.

    Attributes:
        residual: ||f(z) - z|| at the start of the last step; NaN before the first.
        beta: of the last step.
        record: betas of all steps, shape (*samples, max_steps); NaN where none was taken.
    """

    residual: torch.Tensor
    beta: torch.Tensor
    record: torch.Tensor

    @staticmethod
    def start(z0: Leaves, max_steps: int) -> "Pace":
        """Return the memory of a run that has not begun.

        Args:
            z0: leaves of the start state.
            max_steps: greatest number of steps.
        """
        shape, leaf = sample_shape(z0), z0[0]
        dtype = torch.float32 if leaf.device.type == "mps" else torch.float64

        def full(size: tuple[int, ...], value: float) -> torch.Tensor:
            return torch.full(size, value, dtype=dtype, device=leaf.device)

        nan = float("nan")
        return Pace(full(shape, nan), full(shape, ADAPTIVE_START), full((*shape, max_steps), nan))

    def after(self, value: Leaves, z: Leaves, n: int) -> "Pace":
        """Return the memory with the beta of step n, which `next_beta` chooses; it is a constant for the gradient.

        Where the residual has come down to the rounding of f its ratio says nothing, and beta stays.

        Args:
            value: f(z), the leaves.
            z: the state before the step, in the state dtype.
            n: index of the step, from 0.
        """
        value, z = tuple(v.detach() for v in value), tuple(x.detach() for x in z)
        residual = residual_norm(value, z)
        roundoff = max(torch.finfo(leaf.dtype).eps for leaf in value)
        ratio = torch.where(residual > 8 * roundoff * sample_norm(value), residual / self.residual, torch.nan)
        beta = next_beta(self.beta, ratio)
        step = torch.arange(self.record.shape[-1], device=self.record.device) == n
        return Pace(residual, beta, torch.where(step, beta.unsqueeze(-1), self.record))


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


def estimated_beta(f: Function, num_steps: int, state_dtype: torch.dtype) -> AutomaticBeta:
    """Choose beta for a function by `automatic_beta`.

    Args:
        f: the user's function, not yet evaluated.
        num_steps: steps that the solve will take, or the greatest number of them.
        state_dtype: dtype of the states.

    Raises:
        revdeq.estimate.EstimateError: no beta converges at the eigenvalues found, or they were not found.
        GradientError: inside a torch.func transform, where eigenvalues cannot be read.
    """
    if peek_interpreter_stack():
        raise GradientError(
            "beta='auto' was asked for inside a torch.func transform (grad, vmap, jvp ...), where the spectrum of "
            "df/dz cannot be read; estimate it outside with revdeq.estimate.automatic_beta, and give the number."
        )
    start = f.border.tree(f.z0)
    return automatic_beta(f.function, start, f.args, num_steps=max(1, num_steps), state_dtype=state_dtype)
