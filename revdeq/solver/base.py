"""What every solver offers: how to start, how to take one step, and which state it would return."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import torch

from revdeq._automatic import AutomaticBeta
from revdeq._schedule import Schedule
from revdeq._tree import Leaves
from revdeq.function import Function


Evaluate: TypeAlias = Callable[[Leaves], Leaves]
"""f on flat leaves: takes a state in z0's dtype or a wider one, returns the value in f's dtype."""

State: TypeAlias = Any
"""What a solver carries from step to step: a pytree whose tensors have the samples in dimension 0."""


class Iteration(ABC):
    """The steps for z = f(z): how to start, how to take one step, and which state would be returned.

    Attributes:
        evaluations_per_step: evaluations of f in one step, the one that `step` is given included.
        estimated: what an iteration that is bound to a function found out about it first; None for the others.
    """

    evaluations_per_step: ClassVar[int]
    estimated: AutomaticBeta | None = None

    @abstractmethod
    def init(self, z0: Leaves) -> State:
        """Return the state at the start.

        Args:
            z0: leaves of the start state.
        """

    @abstractmethod
    def step(self, f: Evaluate, state: State, value: Leaves, n: int) -> State:
        """Return the state after step n.

        Args:
            f: evaluates the function.
            state: the state before the step; it is not changed.
            value: f at `estimate(state)`, already evaluated.
            n: index of the step, from 0.
        """

    def advance(self, f: Evaluate, state: State, n: int) -> State:
        """Return the state after step n, with all its evaluations of f done here.

        Args:
            f: evaluates the function.
            state: the state before the step; after step 0 it may be changed, so the caller must not need it any more.
            n: index of the step, from 0.
        """
        return self.step(f, state, f(self.estimate(state)), n)

    @abstractmethod
    def estimate(self, state: State) -> Leaves:
        """Return z, the leaves at which the residual is taken and that the solve would return now."""

    def coupled(self, state: State) -> Leaves | None:
        """Return y, the leaves of the second coupled state, or None for an iteration that has none."""
        return None

    def relaxation(self, state: State) -> float | Schedule | torch.Tensor | None:
        """Return the betas with which the state was reached, as `Solution.beta` has them; None where there are none."""
        return None

    def out_of_range(self, state: State) -> torch.Tensor | None:
        """Return, per sample, whether a state left the range of its numbers; None where that cannot be."""
        return None


class Solver(ABC):
    """The settings of an iteration for z = f(z). How its result is differentiated is the adjoint's affair.

    Attributes:
        evaluations_per_step: evaluations of f in one step.
        affine_only: whether the iteration is right for affine f alone, such as the adjoint equation; then `solve`
            refuses it.
        couples: whether the iteration has a second state, from which a solve can be continued.
        compile: whether f is compiled together with the half steps; only `Reversible` can.
    """

    evaluations_per_step: ClassVar[int]
    affine_only: ClassVar[bool] = False
    couples: ClassVar[bool] = False
    compile: bool = False

    @abstractmethod
    def bound_to(self, f: Function | None, max_steps: int) -> Iteration:
        """Return the iteration for a function.

        Args:
            f: the user's function with its args, not yet evaluated; None for a map that is none, such as the adjoint
                equation of a gradient.
            max_steps: steps that the solve will take, or the greatest number of them.

        Raises:
            TypeError: the function does not offer what the solver needs.
        """


class SteppingSolver(Solver, Iteration):
    """A solver whose settings are all that its iteration needs: the base of most solvers, and of yours."""

    evaluations_per_step: ClassVar[int]

    def bound_to(self, f: Function | None, max_steps: int) -> Iteration:
        """Return this very object."""
        del f, max_steps
        return self


def validated_beta(beta: object, *, below: float, excluded: tuple[float, ...] = ()) -> float:
    """Return beta as a float.

    Args:
        beta: what the user gave.
        below: the upper end of the open interval (0, below) that is allowed.
        excluded: values inside it that are refused.

    Raises:
        TypeError: beta is not a real number.
        ValueError: beta is NaN or outside the interval, or excluded.
    """
    allowed = f"a number with 0 < beta < {below:g}" + "".join(f", not {x:g}" for x in excluded)
    if isinstance(beta, bool) or not isinstance(beta, int | float):
        raise TypeError(f"beta is {beta!r}; it must be {allowed}, such as 0.5.")
    value = float(beta)
    if math.isnan(value) or not 0.0 < value < below:
        raise ValueError(f"beta is {beta!r}; it must be {allowed}, such as 0.5.")
    if value in excluded:
        raise ValueError(
            f"beta is {beta!r}; at 1 the step forgets its start and cannot be reversed (it divides by 1 - beta), "
            f"so give {allowed}, such as 0.9 or 1.1."
        )
    return value
