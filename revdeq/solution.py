"""What a solve returns: the states, how it went, and how far the gradient can be believed."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from revdeq.estimate import AutomaticBeta
from revdeq.schedule import Schedule
from revdeq.tree import Tree


class Result(enum.Enum):
    """How a solve ended; the value of each member is advice for the person who reads it."""

    CONVERGED = "The residual ||f(z) - z|| of every sample is at most atol + rtol ||f(z)||."
    STEPS_COMPLETED = (
        "All max_steps steps were taken. No tolerance was given, so convergence was not judged: "
        "read Solution.residual, or give rtol and atol."
    )
    MAX_STEPS_REACHED = (
        "The tolerance was not met within max_steps steps: give more steps, a beta nearer to the optimum, "
        "a looser rtol or atol, or a function that contracts more."
    )
    NONFINITE = (
        "The function returned NaN or infinity, or the iteration diverged until it overflowed: look at the function "
        "at z0 and at the inputs of the samples named, and make sure that beta < 2 / (1 + contraction constant)."
    )

    OUT_OF_RANGE = (
        "A value of the function did not fit into the integers that hold the states (arithmetic='bitwise'): give "
        "Bitwise(range=...) above the greatest value that the function returns, which makes the resolution coarser."
    )

    @property
    def succeeded(self) -> bool:
        """Whether the states may be used: what was asked for was done."""
        return self in (Result.CONVERGED, Result.STEPS_COMPLETED)

    @property
    def code(self) -> int:
        """The number that stands for this result in `Solution.sample_results`; the greatest of a batch is the worst."""
        return _ORDER.index(self)

    @staticmethod
    def from_code(code: int) -> "Result":
        """Return the result that `code` stands for."""
        return _ORDER[code]


_ORDER = (Result.STEPS_COMPLETED, Result.CONVERGED, Result.MAX_STEPS_REACHED, Result.NONFINITE, Result.OUT_OF_RANGE)


class SolveError(RuntimeError):
    """A solve that failed and was asked to raise (`throw=True`).

    Attributes:
        result: the `Result` whose advice the message gives.
    """

    def __init__(self, result: Result, detail: str) -> None:
        super().__init__(f"{detail} {result.value}")
        self.result = result


class GradientError(RuntimeError):
    """A gradient that would be wrong, missing or not to be trusted, refused instead of returned."""


@dataclass
class Health:
    """What the backward pass found out about its own accuracy, at no extra evaluation of f.

    The fields are None until a backward pass has run, and where they do not concern the adjoint. They are estimates and
    measurements, not bounds.

    Attributes:
        reconstruction_error: `||(y, z) rebuilt - (z0, z0)|| / ||(y_N, z_N)||`, dimensionless.
        start_cotangent: norm of the cotangent at the start divided by the norm at the end, dimensionless.
        bits_left: estimated correct bits of the gradient, `-log2` of its relative error that reversal causes.
        replay_error: `||f(y_N) in backward - f(y_N) in forward|| / ||f(y_N)||`; 0 when f repeats to the bit.
        bitwise: whether the reversed states are sure to be those of the forward pass to the bit: the states were
            integers (`arithmetic="bitwise"`), and the start came back as it was. False in floating arithmetic.
        fell_back: whether the gradient was computed again from checkpoints because it was not to be trusted.
        adjoint_residual: greatest `||g - v||` over the samples of the adjoint equation v = g(v) (`ImplicitAdjoint`).
        adjoint_steps: steps that the solver of the adjoint equation took.
        passes: number of backward passes measured so far.
    """

    reconstruction_error: float | None = None
    start_cotangent: float | None = None
    bits_left: float | None = None
    replay_error: float | None = None
    bitwise: bool = False
    fell_back: bool = False
    adjoint_residual: float | None = None
    adjoint_steps: int | None = None
    passes: int = 0


@dataclass(frozen=True)
class Solution:
    """The states that a solve returns and how it went.

    Attributes:
        z1: the final state z_N; same structure, shapes and dtypes as z0; differentiable.
        y1: the final coupled state y_N, likewise and differentiable too; None for solvers that have no second state.
        num_steps: int64 tensor of the steps taken, one entry a sample, or 0-d where the state is one sample.
        sample_results: int8 tensor of `Result.code`, one entry a sample, or 0-d.
        health: filled in by the backward pass of `ReversibleAdjoint`; None for other adjoints.
        beta: relaxation of `Reversible`: the number, given or chosen by "auto"; the schedule; for "adaptive" a float64
            tensor of the betas taken, shape (*samples, max_steps), NaN where none was. None for other solvers.
        estimate: the spectrum from which "auto" chose, with the evaluations of f and the products that it took; else
            None.
    """

    z1: Tree
    y1: Tree | None
    num_steps: torch.Tensor
    sample_results: torch.Tensor
    health: Health | None
    beta: float | Schedule | torch.Tensor | None
    estimate: AutomaticBeta | None
    _residual: Callable[[], torch.Tensor] = field(repr=False)

    @property
    def residual(self) -> torch.Tensor:
        """The residual `||f(z1) - z1||` in the 2-norm, one entry a sample, or 0-d; not differentiable.

        A solve with tolerances has it already. A solve with a fixed number of steps has not evaluated f at z1: reading
        this costs one evaluation the first time, and nothing if it is never read.
        """
        return self._residual()

    @property
    def result(self) -> Result:
        """The worst result of all samples; reading it waits for the device."""
        if self.sample_results.numel() == 0:
            return Result.STEPS_COMPLETED
        return Result.from_code(int(self.sample_results.max()))
