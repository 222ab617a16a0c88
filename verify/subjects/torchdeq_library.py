"""The library torchdeq: fixed points by its solvers, its implicit and its phantom gradients.

References:
    Geng, Kolter, TorchDEQ: A Library for Deep Equilibrium Models, arXiv 2310.18605.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchdeq import get_deq  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

from verify.subject import ADJOINT_STEPS, PHANTOM, Function, Settings, Solved
from verify.subjects import SUBJECTS


_SOLVERS = {"relaxed": "fixed_point_iter", "anderson": "anderson", "broyden": "broyden"}


class TorchDeq:
    """What a user of torchdeq writes; a solve for a fixed number of steps asks for a residual of zero."""

    name = "torchdeq"
    claims = SUBJECTS["torchdeq"].claims

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """As `verify.subject.Subject.solve`."""
        deq: Any = get_deq(
            f_solver=_SOLVERS[settings.solver],
            f_max_iter=settings.num_steps,
            f_tol=settings.stop or 0.0,
            f_stop_mode="rel",
            b_solver="fixed_point_iter",
            b_max_iter=ADJOINT_STEPS,
            b_tol=settings.tolerance,
            b_stop_mode="rel",
            ift=settings.adjoint == "implicit",
            grad=PHANTOM[0],
            tau=PHANTOM[1],
        )
        options = {"tau": settings.number, "return_final": settings.stop is None}

        def f(z: Tensor) -> Tensor:
            return function(z, args)

        states, found = deq(f, z0.detach(), solver_kwargs=options)
        return Solved(states[-1], states[-1], found["nstep"])


subject = TorchDeq()
