"""Faults that leave something changed, or that depend on what was left behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verify.planted.base import Honest, Run
from verify.subject import Function, Settings, Solved


class RandomStateAdvanced(Honest):
    """Draws a random number."""

    name = "random-state-advanced"
    description = "the solve draws from the global generator and leaves it advanced"

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """Solve, then draw."""
        solved = super().solve(function, z0, args, settings)
        torch.rand(1)
        return solved


class RandomNumbersNotReplayed(Honest):
    """Leaves the generator as it finds it, also where backward should replay forward's numbers."""

    name = "random-numbers-not-replayed"
    description = "backward evaluates f with other random numbers than forward did"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Backward with the numbers that come next."""
        run.random = torch.get_rng_state()
        return super().backward(run, p_y, p_z)


class StartOverwritten(Honest):
    """Writes the result into z0."""

    name = "start-overwritten"
    description = "z0 is changed in place"

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """Solve, then overwrite the start."""
        solved = super().solve(function, z0, args, settings)
        with torch.no_grad():
            z0.data.copy_(solved.z1)
        return solved


class GradModeLeftOff(Honest):
    """Leaves gradients switched off."""

    name = "grad-mode-left-off"
    description = "grad mode is off after the solve"

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """Solve, then switch gradients off."""
        solved = super().solve(function, z0, args, settings)
        torch.set_grad_enabled(False)
        return solved


class SecondBackwardConsumed(Honest):
    """Changes the saved states in backward, so that a second backward starts from the wrong place."""

    name = "second-backward-on-consumed-state"
    description = "backward reverses the saved states in place: a second one starts where the first ended"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Backward, then spoil what it started from."""
        found = super().backward(run, p_y, p_z)
        run.y.data.mul_(0.5)
        return found


class NonlinearInCotangent(Honest):
    """Clips the cotangent."""

    name = "cotangent-clipped"
    description = "cotangents are clipped to [-100, 100]"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Backward from clipped cotangents."""
        return super().backward(run, p_y.clamp(-100, 100), p_z.clamp(-100, 100))


class CotangentLayoutMisread(Honest):
    """Reads a cotangent's storage instead of its elements."""

    name = "cotangent-layout-misread"
    description = "an expanded or transposed cotangent is read in the order of its storage"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Backward from the storage's elements."""
        return super().backward(run, _as_stored(p_y), _as_stored(p_z))


class BetaOneAccepted(Honest):
    """Accepts every beta and every step count."""

    name = "beta-one-accepted"
    description = "beta = 1, whose inverse is 0/0, is accepted"

    def refuse(self, settings: Settings) -> None:
        """Refuse nothing."""


class DoubleBackwardWrong(Honest):
    """Lets a second derivative through that lacks the solver's own part."""

    name = "double-backward-wrong"
    description = "a second derivative is returned without the part that goes through the solve"

    def attach(self, run: Run) -> tuple[Tensor, Tensor]:
        """The final states with their gradient, and no refusal of a second one."""
        z1, y1 = _Leaky.apply(self, run, run.z0, *run.inputs)
        return z1, y1


class _Leaky(torch.autograd.Function):
    """As the honest attachment, with a backward whose result seems differentiable."""

    @staticmethod
    def forward(ctx: Any, solver: Honest, run: Run, z0: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.solver, ctx.run = solver, run
        ctx.save_for_backward(run.y, run.z)
        return run.z.to(z0.dtype), run.y.to(z0.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        run: Run = ctx.run
        run.y, run.z = ctx.saved_tensors
        p_z, p_y = (cotangent.to(run.settings.state_dtype) for cotangent in grad_outputs)
        with torch.enable_grad():
            start, totals = ctx.solver.backward(run, p_y.detach(), p_z.detach())
        return (
            None,
            None,
            start.to(run.z0.dtype) + 0 * grad_outputs[0],
            *[total.to(x.dtype) for x, total in zip(run.inputs, totals, strict=True)],
        )


def _as_stored(cotangent: Tensor) -> Tensor:
    if cotangent.is_contiguous():
        return cotangent
    stored = torch.tensor([], dtype=cotangent.dtype).set_(cotangent.untyped_storage())
    repeated = stored.repeat(-(-cotangent.numel() // stored.numel()))
    return repeated[: cotangent.numel()].reshape(cotangent.shape)


FAULTS = (
    RandomStateAdvanced,
    RandomNumbersNotReplayed,
    StartOverwritten,
    GradModeLeftOff,
    SecondBackwardConsumed,
    NonlinearInCotangent,
    CotangentLayoutMisread,
    BetaOneAccepted,
    DoubleBackwardWrong,
)
