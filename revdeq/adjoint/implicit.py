"""The gradient of the fixed point by the implicit function theorem."""

import math
from typing import ClassVar

import torch

from revdeq._errors import GradientError
from revdeq._iterate import Outcome, iterate
from revdeq._residual import Stopping
from revdeq._solution import Health, Result
from revdeq._tree import Leaves
from revdeq.adjoint.base import Adjoint, Attached, OnHealth, validated_on_health
from revdeq.adjoint.fixed_point import run_for_fixed_point
from revdeq.function import Function, Replay
from revdeq.function.linearisation import Linearisation, PartialLeaves
from revdeq.solver.base import Iteration, Solver
from revdeq.solver.relaxed import Relaxed
from revdeq.solver.reversible import Reversible
from revdeq.solver.splitting import SplittingSolver


class ImplicitAdjoint(Adjoint):
    """Solve v = c + K^T v at the state z1 that the solver returned, K = df/dz at z1, and pull v back through one f.

    The gradient is that of the fixed point z* = f(z*), not of the N steps taken: it is right as far as z1 is z*, and it
    does not depend on z0, whose gradient is None. The cotangents of z1 and y1 are added, since both stand for z*.

    Args:
        rtol: relative tolerance of the adjoint equation, dimensionless; None for eps^(3/4) of the dtype that f computes
            in (z0's, or that of autocast), three quarters of its digits.
        atol: absolute tolerance in the unit of the cotangent.
        max_steps: greatest number of steps of the linear solve, an int >= 0.
        solver: iteration for the adjoint equation; None for `Relaxed(1.0)`, which converges where f contracts. `GMRES`
            needs no contraction, only a regular I - K.
        throw: whether a linear solve that misses its tolerance raises `GradientError`; otherwise the residual stands
            in `Solution.health.adjoint_residual`.
        on_health: called with the `Health` at the end of every backward pass, for loggers.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        Bai, Kolter, Koltun, Deep Equilibrium Models, NeurIPS 2019, arXiv 1909.01377, theorem 1.
        Christianson, Reverse accumulation and attractive fixed points, 1994, DOI 10.1080/10556789408805572.
    """

    of_fixed_point: ClassVar[bool] = True

    def __init__(
        self,
        *,
        rtol: float | None = None,
        atol: float = 0.0,
        max_steps: int = 1000,
        solver: Solver | None = None,
        throw: bool = True,
        on_health: OnHealth | None = None,
    ) -> None:
        self.on_health = validated_on_health(on_health)
        if solver is not None and not isinstance(solver, Solver):
            raise TypeError(f"solver is {solver!r}; it must be a solver such as Relaxed(1.0), or None.")
        if isinstance(solver, SplittingSolver):
            raise TypeError(
                f"solver is {solver!r}, which needs the splitting of a function, and the adjoint equation has none; "
                "give Relaxed, Anderson, Broyden or GMRES."
            )
        if isinstance(solver, Reversible) and not isinstance(solver.beta, float):
            raise ValueError(
                f"solver is {solver!r}, whose betas are chosen for the function and the steps of a solve; the adjoint "
                "equation needs one number, such as Reversible(0.9), or another solver such as GMRES()."
            )
        if isinstance(solver, Reversible) and solver.compile:
            raise ValueError(
                f"solver is {solver!r}, which compiles the function of a solve; the adjoint equation has none, so give "
                "compile=False."
            )
        if not isinstance(atol, int | float):
            raise TypeError(f"atol is {atol!r}; it must be a finite number >= 0, such as 0.0.")
        Stopping(max_steps, 0.0 if rtol is None else rtol, atol)  # validates all three
        if not isinstance(throw, bool):
            raise TypeError(f"throw is {throw!r}; it must be True or False.")
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        self.solver: Solver = Relaxed(1.0) if solver is None else solver
        self.throw = throw

    def __repr__(self) -> str:
        return (
            f"ImplicitAdjoint(rtol={self.rtol}, atol={self.atol}, max_steps={self.max_steps}, solver={self.solver!r}, "
            f"throw={self.throw})"
        )

    def run(self, f: Function, solver: Iteration, stopping: Stopping) -> Attached:
        """Iterate without a graph and attach the implicit gradient; see `Adjoint.run`."""
        health = Health()

        def pull_back(replay: Replay, z1: Leaves, c: Leaves) -> PartialLeaves:
            at_z1 = replay.linearise(z1)
            with torch.no_grad():
                v = _solve_adjoint_equation(self, health, replay, at_z1, c)
            return at_z1.pull_back(v)[1]

        return run_for_fixed_point(f, solver, stopping, pull_back, health, self.on_health)


def _solve_adjoint_equation(
    adjoint: ImplicitAdjoint, health: Health, replay: Replay, at_z1: Linearisation, c: Leaves
) -> Leaves:
    """Return the solution of v = c + K^T v.

    The equation is linear, and solved for a right side of size 1: what a gradient scaler multiplies the loss with must
    not overflow in f's dtype on the way. Where c itself is not finite there is nothing to solve, and v is NaN, as it
    would be in plain autograd; then the scaler skips the step.
    """
    rtol = replay.roundoff**0.75 if adjoint.rtol is None else adjoint.rtol
    largest = max((float(x.abs().max()) for x in c if x.numel()), default=0.0)
    if not math.isfinite(largest):
        health.adjoint_residual, health.adjoint_steps = math.nan, 0
        return tuple(torch.full_like(x, math.nan) for x in c)
    # A power of two: no digit changes. As a number of float32, in which torch keeps it for the narrower dtypes.
    size = 2.0 ** min(max(math.frexp(largest)[1] - 1, -126), 126)
    right = tuple(x * (1.0 / size) for x in c)

    def g(v: Leaves) -> Leaves:
        pulled = at_z1.pull_back_state(v)
        return tuple(x if p is None else x + p for x, p in zip(right, pulled, strict=True))

    stopping = Stopping(adjoint.max_steps, rtol, adjoint.atol / size)
    iteration = adjoint.solver.bound_to(None, adjoint.max_steps)
    outcome: Outcome = iterate(g, iteration, right, stopping)
    assert outcome.residual is not None
    worst = Result.from_code(int(outcome.sample_results.max())) if outcome.sample_results.numel() else Result.CONVERGED
    health.adjoint_residual = float(outcome.residual.max()) * size if outcome.residual.numel() else 0.0
    health.adjoint_steps = int(outcome.num_steps.max()) if outcome.num_steps.numel() else 0
    if adjoint.throw and not worst.succeeded:
        raise GradientError(
            f"the adjoint equation of the implicit gradient was left with residual {health.adjoint_residual:.1e} after "
            f"{health.adjoint_steps} steps (rtol {rtol:.1e}, atol {adjoint.atol:.1e}); give more max_steps, a looser "
            "rtol, another solver such as GMRES(), or use ReversibleAdjoint or UnrolledAdjoint, which need no fixed "
            "point."
        )
    return tuple(v * size for v in iteration.estimate(outcome.state))
