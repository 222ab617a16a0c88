"""Differentiation with the states of a few steps stored and the others computed again."""

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from revdeq._errors import GradientError
from revdeq._fingerprint import sketch
from revdeq._iterate import Masks, Outcome, completed, iterate, masked_step
from revdeq._residual import Stopping
from revdeq._tree import Leaves, flatten, unflatten
from revdeq.adjoint.base import (
    Adjoint,
    Attached,
    OnHealth,
    evaluations_in_steps,
    final_leaves,
    not_repeated,
    refuse_transforms,
    reporting,
    validated_on_health,
)
from revdeq.function import Function
from revdeq.function.linearisation import repeatability
from revdeq.solver.base import Iteration, State
from revdeq.solver.parameters import validated_count


class CheckpointedAdjoint(Adjoint):
    """Autograd through all steps with the state stored every `segment` steps and the rest computed again in backward.

    The gradient is that of `UnrolledAdjoint`, to the bit where the device computes repeatably. N steps store about
    N / segment states and the graph of one segment at a time. A fixed number of steps takes twice the evaluations of
    `UnrolledAdjoint`; with tolerances the number of steps is first found without a graph, which makes it three times.

    It goes by `torch.utils.checkpoint`, and has two limits of it: a result that is dropped without a backward pass may
    keep its memory, and a tensor that f saves for its backward and then changes in place is not noticed.

    Args:
        segment: steps in a segment, an int >= 1; None for about sqrt(max_steps), which stores the least.
        on_health: called at the beginning of every backward pass through z1 or y1 with a `Health` that counts them.

    Raises:
        TypeError: segment is neither an int nor None, or on_health neither callable nor None.
        ValueError: segment < 1.

    References:
        Griewank, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation,
        1992, DOI 10.1080/10556789208805505.
        Chen, Xu, Zhang, Guestrin, Training deep nets with sublinear memory cost, arXiv 1604.06174.
    """

    def __init__(self, segment: int | None = 1, *, on_health: OnHealth | None = None) -> None:
        self.on_health = validated_on_health(on_health)
        self.segment = None if segment is None else validated_count("segment", segment, example=4)

    def __repr__(self) -> str:
        return f"CheckpointedAdjoint(segment={self.segment})"

    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate with the graph of one segment at a time; see `Adjoint.run`."""
        refuse_transforms()
        if not torch.is_grad_enabled():
            outcome = iterate(f, solver, f.z0, stopping)
            aux = f.extras.collected(evaluations_in_steps(outcome, solver))
        else:
            f.record_reads(keep_graph=True)
            outcome, aux = (
                self._run_to_tolerance(f, solver, stopping) if stopping.by_tolerance else self._run(f, solver, stopping)
            )
        coupled = solver.coupled(outcome.state)
        z1 = final_leaves(solver.estimate(outcome.state), outcome, f)
        y1 = None if coupled is None else final_leaves(coupled, outcome, f)
        return Attached(
            z1,
            y1,
            outcome._replace(state=None),
            reporting((*z1, *(y1 or ())), self.on_health),
            aux,
        )

    def _run(self, f: Function, solver: Iteration, stopping: Stopping) -> tuple[Outcome, Leaves]:
        surroundings = _Surroundings(f)
        masks = [None] * stopping.max_steps
        state, aux = iterate_in_segments(_Repeated(f), solver, f.z0, masks, self.segment, surroundings)
        surroundings.close()
        return completed(state, solver, f.z0, stopping.max_steps), aux

    def _run_to_tolerance(self, f: Function, solver: Iteration, stopping: Stopping) -> tuple[Outcome, Leaves]:
        masks, repeated = Masks(), _Repeated(f)
        with torch.no_grad():
            found = iterate(repeated, solver, tuple(leaf.detach() for leaf in f.z0), stopping, masks)
        surroundings = _Surroundings(f)
        surroundings.close()
        # What was found converged was found along these evaluations, so the graph has to be of the same ones.
        repeated.start(0)
        with surroundings():
            state, aux = iterate_in_segments(repeated, solver, f.z0, masks.taken, self.segment, surroundings)
        return found._replace(state=state), aux


class _Repeated:
    """Evaluates f, and refuses an evaluation that repeats an earlier one with another value.

    Args:
        f: the user's function.
    """

    def __init__(self, f: Function) -> None:
        self._f = f
        self._sketches: list[tuple[torch.Tensor, float]] = []
        self._next = 0

    def start(self, evaluation: int) -> None:
        """Say which evaluation is the next one, in the order in which they were made first."""
        self._next = self._f.extras.position = evaluation
        self._f.extras.forget()

    def aux(self) -> Leaves:
        """Return the auxiliary output of the evaluations since `start`, last or sum, and let go of it."""
        return self._f.extras.collected(self._next)

    def joined(self, before: Leaves, aux: Leaves) -> Leaves:
        """Return the auxiliary output of two stretches of evaluations, the earlier one's first."""
        together = self._f.extras.has_aux == "sum" and before
        return tuple(a + b for a, b in zip(before, aux, strict=True)) if together else aux

    @property
    def count(self) -> int:
        """Number of evaluations made so far, or where the next one stands among them."""
        return self._next

    def __call__(self, z: Leaves) -> Leaves:
        """Evaluate f."""
        value = self._f(z)
        if self._f.capturing:
            return value  # nothing can be compared in the capture of a CUDA graph
        with torch.no_grad():
            found = sketch(value)
            if self._next == len(self._sketches):
                self._sketches.append((found, repeatability(self._f.roundoff)))
            else:
                before, allowed = self._sketches[self._next]
                error = float((found - before).norm() / before.norm().clamp(min=torch.finfo(torch.float64).tiny))
                if not error <= allowed:
                    raise not_repeated(f"evaluation {self._next}, relative difference {error:.1e}")
        self._next += 1
        return value


class _Surroundings:
    """Brings back the surroundings of the forward pass for an evaluation of f that repeats one of it.

    Args:
        f: the user's function.
    """

    def __init__(self, f: Function) -> None:
        self._f = f
        self._versions: list[tuple[torch.Tensor, int]] = []
        self._trained: list[tuple[torch.Tensor, bool]] = []

    def close(self) -> None:
        """Note how the tensors stand that f reads; called at the end of the forward pass."""
        f = self._f
        read = (*f.arg_tensors, *f.captured, *f.constants)
        self._versions = [(t, t._version) for t in read if not t.is_inference()]
        self._trained = [(t, t.requires_grad) for t in read if t.is_leaf]

    @contextlib.contextmanager
    def __call__(self) -> Generator[None]:
        for tensor, version in self._versions:
            if tensor._version != version:
                raise GradientError(
                    f"a tensor of shape {tuple(tensor.shape)} that function reads was changed in place between the "
                    "forward and the backward pass, so the steps cannot be repeated; change it after the backward pass."
                )
        f = self._f
        # Frozen or unfrozen since: the steps are repeated as they were; whether a gradient is kept autograd decides.
        changed = [(t, before) for t, before in self._trained if t.requires_grad != before]
        for tensor, before in changed:
            tensor.requires_grad_(before)
        try:
            with f.replay(f.arg_tensors, [True] * len(f.captured)).active(), f.surroundings.restored():
                yield
        finally:
            for tensor, before in changed:
                tensor.requires_grad_(not before)


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
    f: _Repeated,
    solver: Iteration,
    z0: Leaves,
    masks: Sequence[torch.Tensor | None],
    segment: int | None,
    surroundings: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> tuple[State, Leaves]:
    """Take steps with a graph that stores the state every `segment` steps and computes those between again in backward.

    Args:
        f: evaluates the function, differentiably.
        solver: the iteration.
        z0: leaves of the start state.
        masks: for each step the samples that take it; None for all.
        segment: steps in a segment, an int >= 1; None for about sqrt(N), which stores the least.
        surroundings: entered round every repetition.

    Returns:
        The solver's final state, and the leaves of the auxiliary output.
    """
    length = max(1, round(math.sqrt(len(masks)))) if segment is None else segment
    uniform = all(active is None or bool(active.all()) for active in masks)

    def run(first: int, last: int, begin: int, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        f.start(begin)
        state = unflatten(leaves, structure)
        for n in range(first, last):
            value, active = f(solver.estimate(state)), masks[n]
            if uniform or active is None:
                state = solver.step(f, state, value, n)
            else:
                state = masked_step(f, solver, state, value, n, active)
        return (*flatten(state)[0], *f.aux())

    leaves, structure = flatten(solver.init(z0))
    count, aux = len(leaves), Leaves()
    for first in range(0, len(masks), length):
        # f brings back its own random state at every evaluation.
        found = checkpoint(
            run,
            first,
            min(first + length, len(masks)),
            f.count,
            *leaves,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (contextlib.nullcontext(), _EachTime(surroundings)),
        )
        leaves, aux = found[:count], f.joined(aux, found[count:])
    return unflatten(leaves, structure), aux
