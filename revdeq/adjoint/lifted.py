"""A reversible solve as a function of tensors alone, which transforms of torch.func can follow."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from revdeq._errors import GradientError
from revdeq._fingerprint import sketch
from revdeq._iterate import Masks, Outcome
from revdeq._residual import Stopping, sample_finite, sample_shape
from revdeq._solution import Result
from revdeq._tree import Leaves
from revdeq.adjoint.base import Adjoint, broken_samples, iterate_without_graph, not_repeated
from revdeq.adjoint.operands import captured_by, with_operands
from revdeq.adjoint.second_order import Trajectory, tangents
from revdeq.function import Function
from revdeq.function.extras import Extras
from revdeq.function.linearisation import PartialLeaves, repeatability
from revdeq.function.surroundings import Surroundings
from revdeq.solver.betas import AdaptiveBetas
from revdeq.solver.reversible import ReversibleIteration


def lifted_solve(
    adjoint: Adjoint, f: Function, solver: ReversibleIteration, stopping: Stopping
) -> "tuple[Lifted, list[torch.Tensor]]":
    """Return a solve as a function of z0, y0 if there is one, the tensors of args and captured ones; return those too.

    Args:
        adjoint: the reversible one.
        f: the function, not yet evaluated.
        solver: the iteration.
        stopping: when it ends.
    """
    captured = captured_by(f)
    num_results = (2 + len(stopping.save_at)) * len(f.z0) + len(f.extras.now)
    function = with_operands(f, captured)
    counts = (len(f.z0), len(f.z0) + len(f.y0), num_results)
    return Lifted(function, adjoint, solver, stopping, f.extras, f.surroundings, *counts), captured


# Numbers beyond are on their way to infinity, and their squares may be there.
_GREATEST = 1e150


class _Sketched(Function):
    """A function that keeps a sum of sketches of the values of its forward pass.

    Args:
        function: callable of (z, args).
        z0: leaves of the start state.
        args: the other operands.
        extras: what it takes and makes besides.
        lead: number of mapped dimensions, each of whose entries has a sketch of its own.

    Attributes:
        sum: the sum, with a weight for each evaluation.
        size: its scale: what the norms of the sketches add up to.
    """

    def __init__(self, function: Callable[..., Any], z0: Leaves, args: Leaves, extras: Extras, lead: int) -> None:
        super().__init__(function, z0, args, extras=extras)
        self._lead = lead
        entries = z0[0].shape[:lead]
        self.sum = torch.zeros((*entries, 1, 1), dtype=torch.float64, device=z0[0].device)
        self.size = torch.zeros(entries, dtype=torch.float64, device=z0[0].device)

    def __call__(self, z: Leaves) -> Leaves:
        """Evaluate f and take note."""
        value = super().__call__(z)
        with torch.no_grad():
            found = sketch((*value, *(aux for aux in self.extras.now if aux.is_floating_point())), self._lead)
            # Fractions of the golden ratio: no two evaluations weigh the same, so that what they change cannot cancel.
            weight = 1.0 + 0.6180339887498949 * self.extras.position % 1.0
            found = torch.where(found.abs() < _GREATEST, found, 0.0) * weight
            self.sum, self.size = self.sum + found, self.size + found.square().sum(dim=(-2, -1)).sqrt()
        return value


@dataclass(frozen=True)
class Lifted:
    """A solve as a function of tensors alone.

    Attributes:
        function: f of a tuple of leaves of z and a tuple of all other operands.
        adjoint: the reversible one.
        solver: the iteration.
        stopping: when it ends.
        extras: what f takes and makes besides.
        surroundings: what the forward pass found.
        count: number of leaves of z, the first operands.
        num_starts: number of leaves of z0 and y0, if there is one, the first operands.
        num_results: number of differentiable results.
        lead: number of mapped dimensions in front of those of f.
    """

    function: Callable[..., Any]
    adjoint: Adjoint
    solver: ReversibleIteration
    stopping: Stopping
    extras: Extras
    surroundings: Surroundings
    count: int
    num_starts: int
    num_results: int
    lead: int = 0

    def plain(self, operands: Sequence[torch.Tensor]) -> _Sketched:
        """Return the function of a plain solve."""
        extras = Extras(self.extras.has_aux, self.extras.with_step, self.solver.evaluations_per_step)
        given = tuple(operands)
        f = _Sketched(self.function, given[: self.count], given[self.num_starts :], extras, self.lead)
        f.y0 = given[self.count : self.num_starts]
        return f

    def solved(self, operands: Sequence[torch.Tensor]) -> tuple[Leaves, Outcome, _Sketched]:
        """Run a plain solve, in the grad mode that holds, and return its results, how it ended, and its function.

        Raises:
            GradientError: f reads a trainable tensor that is no operand.
        """
        f = self.plain(operands)
        found = self.adjoint.run(f, self.solver.starting(f.y0), self.stopping)
        f.finish()
        self.refuse_captured(f)
        assert found.y1 is not None
        saved = (leaf for leaves in found.saved for leaf in leaves)
        return (*found.y1, *found.z1, *saved, *found.aux), found.outcome, f

    @staticmethod
    def refuse_captured(f: Function) -> None:
        """Raise where a plain solve found a trainable tensor that is no operand."""
        if f.captured:
            raise GradientError(
                f"function reads a trainable tensor of shape {tuple(f.captured[0].shape)} where it cannot be replaced "
                "(inside a compiled or scripted function, for example), so its gradient would be lost; pass it in args."
            )

    @contextlib.contextmanager
    def again(self) -> Generator[None]:
        """Hold the surroundings of the forward pass, whose random numbers and buffers are found once more."""
        with self.surroundings.replayed(), self.surroundings.restored():
            yield

    def mapped(self, batched: Sequence[bool], randomness: str) -> "Lifted":
        """Return this solve for operands that have a new first dimension.

        Args:
            batched: which of the operands have it; the leaves of z do.
            randomness: as vmap was told.

        Raises:
            GradientError: what the solve does depends on its samples, which are others then.
        """
        what = "rtol and atol are given" if self.stopping.by_tolerance else None
        what = "beta is 'adaptive'" if isinstance(self.solver.betas, AdaptiveBetas) else what
        what = "arithmetic is 'bitwise'" if self.solver.repeats else what
        if what is not None:
            raise GradientError(
                f"{what} under vmap, where each sample would have to be solved by itself; give a number of steps, a "
                "number or schedule for beta, and floating arithmetic, or use UnrolledAdjoint."
            )
        inside, dims = self.function, tuple(0 if b else None for b in batched[self.num_starts :])

        def function(z: Leaves, given: Leaves, *step: int) -> Any:
            in_dims = (0, dims, *(None for _ in step))
            return torch.func.vmap(inside, in_dims=in_dims, randomness=randomness)(z, given, *step)

        return replace(self, function=function, lead=self.lead + 1)

    def compare(self, f: _Sketched, before: torch.Tensor) -> None:
        """Raise where the evaluations of a repeated solve are not those of the forward pass.

        Args:
            f: the function, after the repeated solve.
            before: the sum of sketches of the forward pass.

        Raises:
            GradientError: they are apart by more than rounding.
        """
        apart = (f.sum - before).square().sum(dim=(-2, -1)).sqrt()
        if not bool((apart <= repeatability(f.roundoff) * f.size).all()):
            raise not_repeated("the whole solve, taken once more")

    def tangents(self, operands: Leaves, directions: Mapping[int, torch.Tensor | None], before: torch.Tensor) -> Leaves:
        """Return the tangents of the results for directions of the operands of some indices.

        Args:
            operands: those of the solve; the ones with a direction require grad.
            directions: by the index of an operand.
            before: as for `compare`.
        """
        f = self.plain(operands)
        masks = Masks()
        outcome = iterate_without_graph(f, self.solver.starting(f.y0), self.stopping, of=f, watch=masks)
        self.refuse_captured(f)
        self.compare(f, before)
        broken = broken_samples(outcome)
        trajectory = Trajectory(
            f,
            self.solver.repeating(outcome.state),
            masks.of(outcome.loops),
            self.stopping.save_at,
            broken if bool(broken.any()) else None,
            False,
        )
        found = tangents(trajectory, operands, tuple(directions.get(i) for i in range(len(operands))))
        states = self.num_results - len(f.extras.now)
        return (*cast(Leaves, found[:states]), *filled(found[states:], f.extras.now))

    def status(self, results: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return steps taken and result codes per sample, after a fixed number of steps."""
        states = tuple(results[: 2 * self.count])
        shape, device = sample_shape(states), states[0].device
        codes = torch.full(shape, Result.STEPS_COMPLETED.code, dtype=torch.int8, device=device)
        codes = codes.masked_fill(~sample_finite(states, [leaf.dtype for leaf in states]), Result.NONFINITE.code)
        return torch.full(shape, self.stopping.max_steps, dtype=torch.int64, device=device), codes


def filled(parts: PartialLeaves, like: Leaves) -> Leaves:
    """Return the parts without a graph, with zeros in the place of None.

    Args:
        parts: tensors, or None.
        like: tensors of their shapes and dtypes.
    """
    return tuple(torch.zeros_like(x) if p is None else p.detach() for p, x in zip(parts, like, strict=True))
