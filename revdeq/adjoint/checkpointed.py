"""Differentiation with the states of a few steps stored and the others computed again."""

import contextlib
import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from revdeq.adjoint.base import Adjoint, Attached, final_leaves, refuse_transforms
from revdeq.errors import GradientError
from revdeq.function import Function
from revdeq.iterate import Outcome, completed, iterate, masked_step
from revdeq.residual import Stopping
from revdeq.solver.base import Evaluate, Solver, State
from revdeq.solver.parameters import validated_count
from revdeq.tree import Leaves, flatten, unflatten


class CheckpointedAdjoint(Adjoint):
    """Autograd through all steps with the state stored every `segment` steps and the rest computed again in backward.

    The gradient is that of `UnrolledAdjoint`, to the bit where the device computes repeatably. N steps store about
    N / segment states and the graph of one segment at a time. A fixed number of steps takes twice the evaluations of
    `UnrolledAdjoint`; with tolerances the number of steps is first found without a graph, which makes it three times.

    Args:
        segment: steps in a segment, an int >= 1; None for about sqrt(max_steps), which stores the least.

    Raises:
        TypeError: segment is neither an int nor None.
        ValueError: segment < 1.

    References:
        Griewank, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation,
        1992, DOI 10.1080/10556789208805505.
        Chen, Xu, Zhang, Guestrin, Training deep nets with sublinear memory cost, arXiv 1604.06174.
    """

    def __init__(self, segment: int | None = 1) -> None:
        self.segment = None if segment is None else validated_count("segment", segment, example=4)

    def __repr__(self) -> str:
        return f"CheckpointedAdjoint(segment={self.segment})"

    def run(self, f: Function, solver: Solver, stopping: Stopping) -> Attached:
        """Iterate with the graph of one segment at a time; see `Adjoint.run`."""
        refuse_transforms()
        if not torch.is_grad_enabled():
            outcome = iterate(f, solver, f.z0, stopping)
        else:
            f.record_reads(keep_graph=True)
            outcome = (
                self._run_to_tolerance(f, solver, stopping) if stopping.by_tolerance else self._run(f, solver, stopping)
            )
        coupled = solver.coupled(outcome.state)
        return Attached(
            final_leaves(solver.estimate(outcome.state), outcome, f),
            None if coupled is None else final_leaves(coupled, outcome, f),
            outcome._replace(state=None),
            None,
        )

    def _run(self, f: Function, solver: Solver, stopping: Stopping) -> Outcome:
        surroundings = _Surroundings(f)
        state = iterate_in_segments(f, solver, f.z0, None, stopping.max_steps, self.segment, surroundings)
        surroundings.close()
        return completed(state, solver, f.z0, stopping.max_steps)

    def _run_to_tolerance(self, f: Function, solver: Solver, stopping: Stopping) -> Outcome:
        with torch.no_grad():
            found = iterate(f, solver, tuple(leaf.detach() for leaf in f.z0), stopping)
        surroundings = _Surroundings(f)
        surroundings.close()
        last = int(found.num_steps.max()) if found.num_steps.numel() else 0
        with surroundings():
            state = iterate_in_segments(f, solver, f.z0, found.num_steps, last, self.segment, surroundings)
        return found._replace(state=state)


class _Surroundings:
    """Brings back the surroundings of the forward pass for an evaluation of f that repeats one of it.

    Args:
        f: the user's function.
    """

    def __init__(self, f: Function) -> None:
        self._f = f
        self._versions: list[tuple[torch.Tensor, int]] = []

    def close(self) -> None:
        """Note how the tensors stand that f reads; called at the end of the forward pass."""
        f = self._f
        read = (*f.arg_tensors, *f.captured, *f.constants)
        self._versions = [(t, t._version) for t in read if not t.is_inference()]

    @contextlib.contextmanager
    def __call__(self) -> Generator[None]:
        for tensor, version in self._versions:
            if tensor._version != version:
                raise GradientError(
                    f"a tensor of shape {tuple(tensor.shape)} that function reads was changed in place between the "
                    "forward and the backward pass, so the steps cannot be repeated; change it after the backward pass."
                )
        f = self._f
        with f.replay(f.arg_tensors, [True] * len(f.captured)).active():
            yield


class _EachTime(AbstractContextManager[None]):
    """A context that may be entered again: a retained graph repeats its segments at every backward pass."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self._make()
        context.__enter__()
        self._entered.append(context)

    def __exit__(self, *error: Any) -> bool | None:
        return self._entered.pop().__exit__(*error)


def iterate_in_segments(
    f: Evaluate,
    solver: Solver,
    z0: Leaves,
    num_steps: torch.Tensor | None,
    max_steps: int,
    segment: int | None,
    surroundings: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> State:
    """Take the recorded numbers of steps with a graph that stores the state every `segment` steps.

    The steps between are computed again in backward: two evaluations of f for each one of the plain loop.

    Args:
        f: evaluates the function, differentiably.
        solver: the iteration.
        z0: leaves of the start state.
        num_steps: int64 tensor of steps per sample; None where each takes max_steps.
        max_steps: the greatest entry of num_steps, or a bound of it.
        segment: steps in a segment, an int >= 1; None for about sqrt(max_steps), which stores the least.
        surroundings: entered round every repetition.

    Returns:
        The solver's final state.
    """
    length = max(1, round(math.sqrt(max_steps))) if segment is None else segment
    uniform = num_steps is None or bool((num_steps == max_steps).all())

    def run(first: int, last: int, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = unflatten(leaves, structure)
        for n in range(first, last):
            value = f(solver.estimate(state))
            if uniform or num_steps is None:
                state = solver.step(f, state, value, n)
            else:
                state = masked_step(f, solver, state, value, n, num_steps > n)
        return tuple(flatten(state)[0])

    leaves, structure = flatten(solver.init(z0))
    for first in range(0, max_steps, length):
        # f brings back its own random state at every evaluation.
        leaves = checkpoint(
            run,
            first,
            min(first + length, max_steps),
            *leaves,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (contextlib.nullcontext(), _EachTime(surroundings)),
        )
    return unflatten(leaves, structure)
