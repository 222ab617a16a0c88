"""The layer that solves z = f(z, x)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from revdeq.adjoint import Adjoint, ImplicitAdjoint, ReversibleAdjoint
from revdeq.nn.monotone import Monotone
from revdeq.residual import Stopping
from revdeq.solution import Solution
from revdeq.solve import solve
from revdeq.solver import GMRES, PeacemanRachford, Reversible, Solver
from revdeq.tree import Tree


class DEQ(nn.Module):
    """A deep equilibrium layer: x -> z with z = function(z, x), found by a solver and differentiated by an adjoint.

    Calling it returns z; `solve` returns the whole `Solution` (steps, residual, result, health).

    Args:
        function: callable of (z, args) that returns the next z; its parameters are those of the layer if it is a
            module. A method `start(args)`, where it has one, gives the start state.
        solver: how to iterate; None for `Reversible(0.5)`.
        adjoint: how to differentiate; None for `ReversibleAdjoint()` with `Reversible`, else `ImplicitAdjoint()`.
        max_steps: number of steps, or the greatest number where tolerances are given; an int >= 0.
        rtol: relative tolerance, dimensionless, or None.
        atol: absolute tolerance in the unit of z, or None; both or neither.
        throw: whether a failed solve raises `SolveError`.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        Bai, Kolter, Koltun, Deep Equilibrium Models, arXiv 1909.01377.
        McCallum, Arora, Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917 (beta 0.5 and few steps).
    """

    def __init__(
        self,
        function: Callable[[Tree, Tree], Tree],
        *,
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        max_steps: int = 8,
        rtol: float | None = None,
        atol: float | None = None,
        throw: bool = True,
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(
                f"function is a {type(function).__name__}; it must be callable as function(z, args), "
                "such as an nn.Module."
            )
        Stopping(max_steps, rtol, atol)  # validates all three
        if solver is not None and not isinstance(solver, Solver):
            raise TypeError(f"solver is {solver!r}; it must be a solver such as Reversible(0.5), or None.")
        if adjoint is not None and not isinstance(adjoint, Adjoint):
            raise TypeError(f"adjoint is {adjoint!r}; it must be an adjoint such as ReversibleAdjoint(), or None.")
        if not isinstance(throw, bool):
            raise TypeError(f"throw is {throw!r}; it must be True or False.")
        self.function = function
        self.solver: Solver = Reversible(0.5) if solver is None else solver
        natural = ReversibleAdjoint() if isinstance(self.solver, Reversible) else ImplicitAdjoint()
        self.adjoint: Adjoint = natural if adjoint is None else adjoint
        self.max_steps, self.rtol, self.atol, self.throw = max_steps, rtol, atol, throw

    def extra_repr(self) -> str:
        """Return how the layer solves and differentiates."""
        tolerances = "" if self.rtol is None else f", rtol={self.rtol}, atol={self.atol}"
        said = f"solver={self.solver!r}, adjoint={self.adjoint!r}, max_steps={self.max_steps}{tolerances}"
        return said if self.throw else f"{said}, throw=False"

    def solve(self, args: Tree, z0: Tree | None = None) -> Solution[Any]:
        """Return the solution for the input `args`.

        Args:
            args: the input x, handed to function.
            z0: start state; None for `function.start(args)` where there is one, else zeros shaped like args.

        Raises:
            TypeError: z0 is None, function has no `start` and args is not a tensor.
            SolveError, GradientError: see `revdeq.solve`.
        """
        return solve(
            self.function,
            self._start(args) if z0 is None else z0,
            args,
            solver=self.solver,
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            rtol=self.rtol,
            atol=self.atol,
            throw=self.throw,
        )

    def forward(self, args: Tree, z0: Tree | None = None) -> Tree:
        """Return z1 for the input `args`; see `solve`."""
        return self.solve(args, z0).z1

    def _start(self, args: Tree) -> Tree:
        start = getattr(self.function, "start", None)
        if start is not None:
            return start(args)
        if not isinstance(args, torch.Tensor):
            raise TypeError(
                f"z0 is None and args is a {type(args).__name__}, so the start state is unknown; give z0, or give "
                "function a method start(args)."
            )
        return torch.zeros_like(args)


class MonotoneDEQ(DEQ):
    """A monotone operator equilibrium layer: one solution for every input, whatever training makes of the parameters.

    Args:
        width: components of z, an int >= 1.
        input_width: components of x, an int >= 1; None for `width`.
        margin: strong monotonicity constant of I - W, a number > 0, dimensionless.
        solver: how to iterate; None for `PeacemanRachford(1.0)`, which always converges.
        adjoint: how to differentiate; None for `ImplicitAdjoint(solver=GMRES())`, since the cell need not contract.
        max_steps: the greatest number of steps, an int >= 0.
        rtol: relative tolerance, dimensionless; 1e-5 leaves float32, with its relative precision of 6e-8, room for the
            conditioning of I - W; 16-bit dtypes need a looser one.
        atol: absolute tolerance in the unit of z.
        throw: whether a failed solve raises `SolveError`.
        device: where the parameters live.
        dtype: their dtype, a real floating one.

    Raises:
        TypeError, ValueError: an argument is not of the kind said above.

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591.
    """

    def __init__(
        self,
        width: int,
        input_width: int | None = None,
        *,
        margin: float = 0.5,
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        max_steps: int = 200,
        rtol: float | None = 1e-5,
        atol: float | None = 0.0,
        throw: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Monotone(width, input_width, margin=margin, device=device, dtype=dtype),
            solver=PeacemanRachford(1.0) if solver is None else solver,
            adjoint=ImplicitAdjoint(solver=GMRES()) if adjoint is None else adjoint,
            max_steps=max_steps,
            rtol=rtol,
            atol=atol,
            throw=throw,
        )
