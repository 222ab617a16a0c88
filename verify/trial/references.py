"""Where expected values come from: the reference layer behind one object, so that a planted reference can stand in."""

from __future__ import annotations

from verify.problems.problem import Problem
from verify.reference import (
    Agreement,
    FiniteDifference,
    FixedPoint,
    NStep,
    agreement,
    finite_differences,
    fixed_point,
    n_step,
)
from verify.reference.finite_differences import Target
from verify.reference.method_run import Asked, MethodRun, method_run
from verify.rounding.implicit_scale import implicit_rounding_scale
from verify.rounding.method_scale import method_scale
from verify.rounding.scale import Differentiation, RoundingScale, rounding_scale


class References:
    """The references of `verify.reference`, unchanged."""

    def n_step(self, problem: Problem, beta: float, num_steps: int) -> NStep:
        """The N-step trajectory and its gradient."""
        return n_step(problem, beta, num_steps)

    def method_run(self, problem: Problem, asked: Asked) -> MethodRun:
        """What a solve of a method is defined to return."""
        return method_run(problem, asked)

    def method_scale(self, problem: Problem, asked: Asked, unit_roundoff: float) -> dict[str, float]:
        """What rounding does to it."""
        return method_scale(problem, asked, unit_roundoff=unit_roundoff)

    def fixed_point(self, problem: Problem) -> FixedPoint:
        """The fixed point and its implicit gradient."""
        return fixed_point(problem)

    def rounding_scale(
        self, problem: Problem, beta: float, num_steps: int, differentiation: Differentiation, **roundoff: float
    ) -> RoundingScale:
        """What rounding does to the N steps and their gradient."""
        return rounding_scale(problem, beta, num_steps, differentiation=differentiation, **roundoff)

    def implicit_rounding_scale(self, problem: Problem, **roundoff: float) -> dict[str, float]:
        """What rounding does to the implicit gradient."""
        return implicit_rounding_scale(problem, **roundoff)

    def finite_differences(self, problem: Problem, beta: float, num_steps: int) -> FiniteDifference:
        """The derivative of the N-step loss along the problem's default direction, by high-precision differences."""
        return finite_differences(problem, beta, num_steps)

    def agreement(self, problem: Problem, beta: float, num_steps: int, target: Target) -> Agreement:
        """How far this reference's own gradient is from differences of its forward pass."""
        gradient = (self.n_step(problem, beta, num_steps) if target == "n-step" else self.fixed_point(problem)).gradient
        return agreement(problem, beta, num_steps, target=target, gradient=gradient)
