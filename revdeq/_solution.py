"""What a solve returns: the states, how it went, and how far the gradient can be believed."""

import enum
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch.utils._pytree import tree_map_only

from revdeq._automatic import AutomaticBeta
from revdeq._schedule import Schedule
from revdeq._tree import Tree


State = TypeVar("State")


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


@dataclass
class Health:
    """What the backward pass found out about its own accuracy.

    The fields are None until a backward pass has run, and where they do not concern the adjoint.

    Attributes:
        verified: whether f was evaluated at the very bits of the forward pass and returned them again: the gradient
            then is, to the bit, that of stored states, and reversal has lost nothing. What f's own roundings cost, in
            every adjoint alike, is not measured here.
        segments: stretches of steps that were undone from stored states; 0 where nothing was undone.
        repeated_segments: those that did not come back to the bit and were taken again, forwards, from stored states.
        repeated_evaluations: evaluations of f that this took beyond those of the plain backward pass.
        stored_bytes: bytes kept between the passes, the sources (z0, args, what f reads) apart.
        replay_error: greatest relative difference of a value of f from that of the forward pass; 0 where f repeats to
            the bit.
        reconstruction_error: `||(y, z) rebuilt - (z0, z0)|| / ||(y_N, z_N)||`, measured, with `verify=False`.
        start_cotangent: norm of the cotangent at the start divided by the norm at the end, likewise.
        reversal_error: the relative error of the gradient that reversal is estimated to have caused, likewise; an
            estimate for all leaves together, no bound for one of them.
        adjoint_residual: greatest `||g - v||` over the samples of the adjoint equation v = g(v) (`ImplicitAdjoint`).
        adjoint_steps: steps that the solver of the adjoint equation took.
        passes: number of backward passes so far.
        layer: name of the layer whose solve this was, see `revdeq.nn.DEQ`; None outside a layer.
    """

    verified: bool | None = None
    segments: int = 0
    repeated_segments: int = 0
    repeated_evaluations: int = 0
    stored_bytes: int | None = None
    replay_error: float | None = None
    reconstruction_error: float | None = None
    start_cotangent: float | None = None
    reversal_error: float | None = None
    adjoint_residual: float | None = None
    adjoint_steps: int | None = None
    passes: int = 0
    layer: str | None = None

    def begin_pass(self) -> None:
        """Count a backward pass and forget what the one before it found."""
        self.passes += 1
        self.verified = self.replay_error = None
        self.segments = self.repeated_segments = self.repeated_evaluations = 0


class Residual(Protocol):
    """Gives the residual of the returned state, which may have to be evaluated first."""

    def __call__(self) -> torch.Tensor:
        """Return it, one entry a sample, or 0-d."""
        ...

    def detached(self) -> Self:
        """Return one that holds on to no graph."""
        ...

    def copied(self) -> "Copied":
        """Return one that holds on to nothing but what is known by now."""
        ...


class Copied:
    """The residual in a copy of a solution, which has nothing to evaluate it with.

    Args:
        known: the residual; None if nobody has asked for it.
    """

    def __init__(self, known: torch.Tensor | None) -> None:
        self._known = known

    def __call__(self) -> torch.Tensor:
        """See `Residual`."""
        if self._known is None:
            raise RuntimeError(
                "the residual was asked for of a copy of a Solution, or of one that was saved, and it had not been "
                "evaluated before that; read Solution.residual before copying or saving."
            )
        return self._known

    def detached(self) -> "Copied":
        """See `Residual`."""
        return self

    def copied(self) -> "Copied":
        """See `Residual`."""
        return self


@dataclass(frozen=True)
class Solution(Generic[State]):
    """The states that a solve returns and how it went.

    It can be copied with `copy.deepcopy`, pickled and saved; copies hold no graph, and the residual if it was known.

    Attributes:
        z1: the final state z_N; same structure, shapes and dtypes as z0; differentiable.
        y1: the final coupled state y_N, likewise and differentiable too; None for solvers that have no second state.
        num_steps: int64 tensor of the steps taken, one entry a sample, or 0-d where the state is one sample.
        sample_results: int8 tensor of `Result.code`, one entry a sample, or 0-d.
        health: filled in by the backward pass; None for adjoints that measure nothing there.
        beta: relaxation of `Reversible`: the number, given or chosen by "auto"; the schedule; for "adaptive" a float64
            tensor of the betas taken, shape (*samples, max_steps), NaN where none was. None for other solvers.
        estimate: what the trial of "auto" showed, with the evaluations of f that it took; else None.
        aux: the auxiliary output of function, differentiable; None without has_aux.
        saved: the states z_n of save_at, in its order, differentiable.
    """

    z1: State
    y1: State | None
    num_steps: torch.Tensor
    sample_results: torch.Tensor
    health: Health | None
    beta: float | Schedule | torch.Tensor | None
    estimate: AutomaticBeta | None
    aux: Tree
    saved: tuple[State, ...]
    _residual: Residual = field(repr=False)

    @property
    def residual(self) -> torch.Tensor:
        """The residual `||f(z1) - z1||` in the 2-norm, one entry a sample, or 0-d; not differentiable.

        A solve with tolerances has it already. A solve with a fixed number of steps has not evaluated f at z1: reading
        this costs two evaluations the first time, one to see that f is what it was, and nothing if it is never read.

        Raises:
            RuntimeError: the state, or something that f reads, has changed since the solve.
        """
        return self._residual()

    @property
    def result(self) -> Result:
        """The worst result of all samples; reading it waits for the device."""
        if self.sample_results.numel() == 0:
            return Result.STEPS_COMPLETED
        return Result.from_code(int(self.sample_results.max()))

    def detached(self) -> "Solution[State]":
        """Return the same without a graph: the tensors share memory with these, and `health` is the same object."""
        found = {name: _detached(getattr(self, name)) for name in ("z1", "y1", "aux", "saved", "num_steps", "beta")}
        return replace(self, **found, _residual=self._residual.detached())

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a file holds of it."""
        held = replace(self.detached(), _residual=self._residual.copied())
        return {item.name: getattr(held, item.name) for item in fields(held)}


def _detached(tree: Tree) -> Any:
    return tree_map_only(torch.Tensor, torch.Tensor.detach, tree)
