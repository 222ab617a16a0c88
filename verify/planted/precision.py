"""Faults of precision: too little of it, or more than was asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verify.planted.base import Honest, Linearised, Run, Sums
from verify.subject import Function, Settings


class NarrowAccumulators(Honest):
    """Sums in float32."""

    name = "float32-accumulators"
    description = "the gradients of a float64 run are summed in float32"

    def sums(self, run: Run) -> Sums:
        """Narrow sums."""
        return Sums([torch.zeros_like(x, dtype=torch.float32) for x in run.inputs])


class NarrowBeta(Honest):
    """Rounds beta to float32 in backward."""

    name = "float32-beta-in-backward"
    description = "beta is rounded to float32 in backward"

    def backward_beta(self, settings: Settings) -> float:
        """The nearest float32."""
        return float(torch.tensor(settings.number, dtype=torch.float32))


class NarrowCotangents(Honest):
    """Keeps the cotangents in float32."""

    name = "float32-cotangents"
    description = "the adjoint state of a float64 run is carried in float32"

    def join(self, p_y: Tensor, coupling: Tensor, beta: float) -> Tensor:
        """The right sum, rounded."""
        return super().join(p_y, coupling, beta).float().to(p_y.dtype)


class StatesStored(Honest):
    """Stores every state and reads them back."""

    name = "states-stored"
    description = "forward secretly stores every state and backward reads them"

    def after_step(self, run: Run, y: Tensor, z: Tensor) -> None:
        """Keep the states."""
        run.extra.append((y, z))

    def reverse_z(self, run: Run, n: int, y: Tensor, z: Tensor) -> tuple[Linearised, Tensor]:
        """The stored z."""
        at_y, _ = super().reverse_z(run, n, y, z)
        return at_y, self._stored(run, n)[1]

    def reverse_y(self, run: Run, n: int, y: Tensor, z: Tensor, previous_z: Tensor) -> tuple[Linearised, Tensor]:
        """The stored y."""
        at_z, _ = super().reverse_y(run, n, y, z, previous_z)
        return at_z, self._stored(run, n)[0]

    def _stored(self, run: Run, n: int) -> tuple[Tensor, Tensor]:
        start = run.z0.detach().to(run.settings.state_dtype)
        return (start, start) if n == 0 else run.extra[n - 1]


class StatesWidened(Honest):
    """Keeps float32 states in float64."""

    name = "states-widened"
    description = "float32 states were asked for and float64 ones are kept"

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Any:
        """Solve with wide states."""
        return super().solve(function, z0, args, _widened(settings))

    def reconstruct(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> list[tuple[Tensor, Tensor]]:
        """Reconstruct with wide states."""
        return super().reconstruct(function, z0, args, _widened(settings))


class StatesNarrowed(Honest):
    """Rounds the states to float32 when they are rebuilt."""

    name = "float32-states-in-reverse"
    description = "the rebuilt states of a float64 run are rounded to float32"

    def undo_half(self, state: Tensor, value: Tensor, beta: float) -> Tensor:
        """The right state, rounded."""
        return super().undo_half(state, value, beta).float().to(state.dtype)


class ForwardNarrowed(Honest):
    """Evaluates f in float32 in the unrolled adjoint's forward pass and in its own."""

    name = "float32-forward"
    description = "f is evaluated in float32 in a float64 run"

    def evaluate(self, run: Run, state: Tensor) -> Tensor:
        """The value, rounded to float32."""
        return super().evaluate(run, state).float().to(run.z0.dtype)


def _widened(settings: Settings) -> Settings:
    return Settings(
        beta=settings.beta,
        num_steps=settings.num_steps,
        adjoint=settings.adjoint,
        state_dtype=torch.float64,
        tolerance=settings.tolerance,
    )


FAULTS = (
    NarrowAccumulators,
    NarrowBeta,
    NarrowCotangents,
    StatesStored,
    StatesWidened,
    StatesNarrowed,
    ForwardNarrowed,
)
