"""Differentiation with the states of a few steps stored and the others computed again."""

import math

import torch
from torch.utils.checkpoint import checkpoint

from revdeq.residual import per_sample
from revdeq.solver.base import Evaluate, Solver, State
from revdeq.tree import Leaves, flatten, unflatten


def iterate_in_segments(
    f: Evaluate, solver: Solver, z0: Leaves, num_steps: torch.Tensor, max_steps: int, segment: int | None
) -> State:
    """Take the recorded numbers of steps with a graph that stores the state every `segment` steps.

    The steps between are computed again in backward: two evaluations of f for each one of the plain loop.

    Args:
        f: evaluates the function, differentiably.
        solver: the iteration.
        z0: leaves of the start state.
        num_steps: int64 tensor of steps per sample.
        max_steps: the greatest entry of num_steps, or a bound of it.
        segment: steps in a segment, an int >= 1; None for about sqrt(max_steps), which stores the least.

    Returns:
        The solver's final state.
    """
    length = max(1, round(math.sqrt(max_steps))) if segment is None else segment
    uniform = bool((num_steps == max_steps).all())

    def run(first: int, last: int, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = unflatten(leaves, structure)
        for n in range(first, last):
            new = solver.step(f, state, f(solver.estimate(state)), n)
            if not uniform:
                kept, shape = flatten(state)
                taken = [
                    torch.where(per_sample(num_steps > n, a), a, b) for a, b in zip(flatten(new)[0], kept, strict=True)
                ]
                new = unflatten(taken, shape)
            state = new
        return tuple(flatten(state)[0])

    leaves, structure = flatten(solver.init(z0))
    for first in range(0, max_steps, length):
        # f brings back its own random state at every evaluation.
        leaves = checkpoint(
            run, first, min(first + length, max_steps), *leaves, use_reentrant=False, preserve_rng_state=False
        )
    return unflatten(leaves, structure)
