"""The loop that every solve runs: evaluate, judge each sample, step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from revdeq._narrowing import narrow
from revdeq._residual import Stopping, per_sample, residual_norm, sample_finite, sample_shape
from revdeq._schedule import Schedule
from revdeq._solution import Result
from revdeq._tree import Leaves, flatten, unflatten
from revdeq.solver.base import Evaluate, Iteration, State


class Outcome(NamedTuple):
    """Where a loop ended.

    Attributes:
        state: the solver's final state.
        num_steps: int64 tensor of the steps taken, per sample.
        sample_results: int8 tensor of `Result.code`, per sample.
        residual: `||f(z) - z||` per sample at the estimate returned; None after a fixed number of steps.
        beta: with what relaxation the state was reached, see `Solution.beta`.
        loops: steps that the loop took, the greatest number that a sample can have taken.
        saved: leaves of the estimates at the steps of `Stopping.save_at`, in the state dtype.
    """

    state: State
    num_steps: torch.Tensor
    sample_results: torch.Tensor
    residual: torch.Tensor | None
    beta: float | Schedule | torch.Tensor | None
    loops: int
    saved: tuple[Leaves, ...] = ()


class Watch:
    """Is told of every step before it is taken; this one takes no notice."""

    def step(self, n: int, state: State, active: torch.Tensor | None) -> None:
        """Take note of step n.

        Args:
            n: index of the step, from 0.
            state: the solver's state before it.
            active: bool tensor, one entry a sample, of those that take it; None where all do.
        """


class Masks(Watch):
    """Remembers which samples took which step.

    Attributes:
        taken: for each step a bool tensor with one entry a sample; empty after a fixed number of steps.
    """

    def __init__(self) -> None:
        self.taken: list[torch.Tensor] = []

    def step(self, n: int, state: State, active: torch.Tensor | None) -> None:
        """See `Watch.step`."""
        if active is not None:
            self.taken.append(active)

    def of(self, num_steps: int) -> list[torch.Tensor | None]:
        """Return for each of the steps the samples that took it; None for all."""
        return [*self.taken] if self.taken else [None] * num_steps


_NOBODY = Watch()


def iterate(f: Evaluate, solver: Iteration, z0: Leaves, stopping: Stopping, watch: Watch = _NOBODY) -> Outcome:
    """Run the solver from z0 until `stopping` says so.

    With a fixed number of steps N this takes exactly N * solver.evaluations_per_step evaluations of f and never waits
    for the device. With tolerances, a sample whose residual meets them keeps its state, and f is evaluated at that
    state, so that a batch gives what the loop over its samples gives. Where f couples the samples, the residual of one
    that stopped can rise again as the others move; then it goes on. So what is returned as converged has been judged at
    the very states returned, all of them together, which costs one evaluation more than the steps taken. A sample whose
    residual is not finite goes back to its start, where f was at least defined, so that NaN does not enter what the
    samples share.

    Args:
        f: evaluates the function on flat leaves.
        solver: the iteration.
        z0: leaves of the start state.
        stopping: fixed number of steps, or tolerances.
        watch: is told of every step.
    """
    if stopping.by_tolerance:
        return _iterate_to_tolerance(f, solver, z0, stopping, watch)
    state = solver.init(z0)
    saved: dict[int, Leaves] = {}
    for n in range(stopping.max_steps):
        if n in stopping.save_at:
            saved[n] = tuple(leaf.clone() for leaf in solver.estimate(state))
        watch.step(n, state, None)
        state = solver.advance(f, state, n)
    if stopping.max_steps in stopping.save_at:
        saved[stopping.max_steps] = solver.estimate(state)
    outcome = completed(state, solver, z0, stopping.max_steps)
    return outcome._replace(saved=tuple(saved[n] for n in stopping.save_at))


def completed(state: State, solver: Iteration, z0: Leaves, num_steps: int) -> Outcome:
    """Return the outcome of a fixed number of steps that ended in `state`.

    Args:
        state: the solver's final state.
        solver: the iteration.
        z0: leaves of the start state.
        num_steps: steps taken by every sample.
    """
    shape, device = sample_shape(z0), z0[0].device
    states = (*solver.estimate(state), *(solver.coupled(state) or ()))
    # Judged as returned: a state that z0's dtype cannot hold is not finite there.
    dtypes = [start.dtype for start in z0] * (len(states) // len(z0))
    finite = sample_finite(states, dtypes)
    results = torch.full(shape, Result.STEPS_COMPLETED.code, dtype=torch.int8, device=device)
    results = results.masked_fill(~finite, Result.NONFINITE.code)
    results = _with_range(results, solver, state)
    counts = torch.full(shape, num_steps, dtype=torch.int64, device=device)
    return Outcome(state, counts, results, None, solver.relaxation(state), num_steps)


def _iterate_to_tolerance(f: Evaluate, solver: Iteration, z0: Leaves, stopping: Stopping, watch: Watch) -> Outcome:
    shape, device = sample_shape(z0), z0[0].device
    state = start = solver.init(z0)
    num_steps = torch.zeros(shape, dtype=torch.int64, device=device)
    results = torch.full(shape, Result.MAX_STEPS_REACHED.code, dtype=torch.int8, device=device)
    broken = torch.zeros(shape, dtype=torch.bool, device=device)
    residual = torch.zeros(shape, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    met, n = broken, 0
    for n in range(stopping.max_steps + 1):
        value = f(solver.estimate(state))
        with torch.no_grad():
            # What f received is the estimate rounded to z0's dtype, which is also what the solve returns.
            received = tuple(narrow(z, start.dtype) for z, start in zip(solver.estimate(state), z0, strict=True))
            now = residual_norm(value, received)
            residual = torch.where(broken, residual, now)
            met = stopping.converged(value, now) & ~broken
            breaking = ~torch.isfinite(now) & ~broken
            broken = broken | breaking
            active = ~met & ~broken
            # One number, which waits for the device once; older releases of torch read no list inside a transform.
            told = int(active.any() + 2 * breaking.any())
            going, failing = told & 1, told & 2
        if failing:
            state = where_active(~breaking, state, start)
        if n == stopping.max_steps or not going:
            break
        watch.step(n, state, active)
        state = masked_step(f, solver, state, value, n, active)
        num_steps = num_steps + active
    results = results.masked_fill(met, Result.CONVERGED.code).masked_fill(broken, Result.NONFINITE.code)
    return Outcome(state, num_steps, _with_range(results, solver, state), residual, solver.relaxation(state), n)


def masked_step(f: Evaluate, solver: Iteration, state: State, value: Leaves, n: int, active: torch.Tensor) -> State:
    """Return the state after step n of the active samples; f sees the others at their estimates.

    It sees them there in every evaluation of the step, also where a solver has a second state: that one may be farther
    from the fixed point than the estimate which was judged, and samples that read it would never meet their tolerance.

    Args:
        f: evaluates the function.
        solver: the iteration.
        state: the state before the step.
        value: f at `solver.estimate(state)`.
        n: index of the step, from 0.
        active: bool tensor, one entry a sample, or 0-d.
    """
    kept = solver.estimate(state)

    def evaluate(leaves: Leaves) -> Leaves:
        return f(tuple(torch.where(per_sample(active, a), a, b) for a, b in zip(leaves, kept, strict=True)))

    return where_active(active, solver.step(evaluate, state, value, n), state)


def repeat(f: Evaluate, solver: Iteration, state: State, first: int, masks: Sequence[torch.Tensor | None]) -> State:
    """Take steps once more, with the very operations of `iterate`, and return the state after them.

    Args:
        f: evaluates the function.
        solver: the iteration, with the betas that it took.
        state: the state before step `first`, which nobody else needs.
        first: index of the first step.
        masks: for each step the samples that take it; None for all.
    """
    for n, active in enumerate(masks, first):
        if active is None:
            state = solver.advance(f, state, n)
        else:
            state = masked_step(f, solver, state, f(solver.estimate(state)), n, active)
    return state


def _with_range(results: torch.Tensor, solver: Iteration, state: State) -> torch.Tensor:
    """Return the results with those of samples whose states left the range of the solver's numbers."""
    out = solver.out_of_range(state)
    return results if out is None else results.masked_fill(out.reshape(results.shape), Result.OUT_OF_RANGE.code)


def where_active(active: torch.Tensor, new: State, old: State) -> State:
    """Return `new` for the active samples and `old` for the others.

    Args:
        active: bool tensor, one entry a sample, or 0-d.
        new: the solver's state after a step.
        old: the state before it.
    """
    new_leaves, structure = flatten(new)
    old_leaves, _ = flatten(old)
    chosen = [
        torch.where(per_sample(active, a), a, b) if isinstance(a, torch.Tensor) else a
        for a, b in zip(new_leaves, old_leaves, strict=True)
    ]
    return unflatten(chosen, structure)
