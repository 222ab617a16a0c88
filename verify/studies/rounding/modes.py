"""The ways in which the gradient of N reversible steps can be had, side by side, on the same problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor

from revdeq import (
    Adjoint,
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    Reversible,
    ReversibleAdjoint,
    Solution,
    UnrolledAdjoint,
    solve,
)
from revdeq._narrowing import narrow
from revdeq._tree import Leaves
from revdeq.solver.reversible import Coupled
from verify.rounding.envelope import refuse_lost


ModeName: TypeAlias = Literal["floating", "wide", "bitwise", "default", "checkpointed", "unrolled", "implicit"]

IMPLICIT_STEPS = 400
"""Most steps of the adjoint equation; where rounding keeps it from its tolerance, what it has then is taken."""


@dataclass(frozen=True)
class Mode:
    """One way to the gradient.

    Args:
        name: "floating": reversal with states in f's dtype; "wide": reversal with float64 states; "bitwise": reversal
            of integer states with a tape of remainders; "default": what a user gets who asks for nothing else;
            "checkpointed": states stored every sqrt(N) steps; "unrolled": all stored; "implicit": the gradient of the
            fixed point, taken at the state after N steps.
        wide: whether the states are float64 whatever the dtype of f.
        adjoint: dtype of f -> the adjoint.
        reverses: whether backward rebuilds the states by running the steps in reverse.
    """

    name: ModeName
    wide: bool
    adjoint: Callable[[torch.dtype], Adjoint]
    reverses: bool = False

    def solver(self, beta: float, dtype: torch.dtype) -> Reversible:
        """Return the solver.

        Args:
            beta: relaxation parameter.
            dtype: of f.
        """
        if self.name == "bitwise":
            return Reversible(beta, arithmetic="bitwise")
        return Reversible(beta, state_dtype=torch.float64 if self.wide else dtype)

    def state_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype in which the states are kept, or in bitwise mode read."""
        return torch.float64 if self.wide else dtype


def _reversal(dtype: torch.dtype) -> Adjoint:
    del dtype
    return ReversibleAdjoint(verify=False, on_health=refuse_lost)


def _default(dtype: torch.dtype) -> Adjoint:
    del dtype
    return ReversibleAdjoint()


def _checkpointed(dtype: torch.dtype) -> Adjoint:
    del dtype
    return CheckpointedAdjoint(segment=None)


def _unrolled(dtype: torch.dtype) -> Adjoint:
    del dtype
    return UnrolledAdjoint()


def _implicit(dtype: torch.dtype) -> Adjoint:
    # 2^3 roundings: nearer than that the residual of the adjoint equation does not come.
    return ImplicitAdjoint(rtol=4.0 * torch.finfo(dtype).eps, max_steps=IMPLICIT_STEPS, throw=False)


MODES: dict[ModeName, Mode] = {
    mode.name: mode
    for mode in (
        Mode("floating", False, _reversal, reverses=True),
        Mode("wide", True, _reversal, reverses=True),
        Mode("bitwise", True, _reversal, reverses=True),
        Mode("default", True, _default),
        Mode("checkpointed", True, _checkpointed),
        Mode("unrolled", True, _unrolled),
        Mode("implicit", True, _implicit),
    )
}


def modes_of(dtype: torch.dtype, names: tuple[ModeName, ...]) -> list[Mode]:
    """Return the modes of these names that differ for a dtype of f: float64 states are no wider than float64.

    Args:
        dtype: of f.
        names: keys of `MODES`.
    """
    return [MODES[name] for name in names if not (name == "wide" and dtype == torch.float64)]


def gradients(
    mode: Mode,
    beta: float,
    num_steps: int,
    function: Callable[..., Tensor],
    z0: Tensor,
    args: Any,
    leaves: dict[str, Tensor],
    cotangents: tuple[Tensor, Tensor],
) -> dict[str, Tensor | None] | None:
    """Solve and run backward once.

    Args:
        mode: the way.
        beta: relaxation parameter.
        num_steps: N.
        function: f(z, args).
        z0: start.
        args: of f.
        leaves: name -> the tensor whose gradient is wanted.
        cotangents: of z_N and of y_N.

    Returns:
        Name -> gradient, None for a leaf that has none; None for the whole where reversal overflowed and said so.
    """
    solution = run(mode, beta, num_steps, function, z0, args)
    states = [solution.z1, cast(Tensor, solution.y1)]
    try:
        found = torch.autograd.grad(states, list(leaves.values()), list(cotangents), allow_unused=True)
    except GradientError:
        return None
    return dict(zip(leaves, found, strict=True))


def run(
    mode: Mode, beta: float, num_steps: int, function: Callable[..., Tensor], z0: Tensor, args: Any
) -> Solution[Tensor]:
    """Take N steps in a mode, ready for backward."""
    dtype = z0.dtype
    return solve(
        function, z0, args, solver=mode.solver(beta, dtype), adjoint=mode.adjoint(dtype), max_steps=num_steps,
        throw=False,
    )  # fmt: skip


def rebuilt_error(
    mode: Mode, beta: float, num_steps: int, function: Callable[..., Tensor], z0: Tensor, args: Any
) -> float:
    """Take N steps, undo them, and compare with the start: the greater error of y_0 and z_0 over the final states.

        max |(y, z)_0 rebuilt - (y, z)_0| / max |(y, z)_N|

    Args:
        mode: one that reverses.
        beta: relaxation parameter.
        num_steps: N.
        function: f(z, args).
        z0: start.
        args: of f.

    Raises:
        ValueError: the mode does not reverse.
    """
    if not mode.reverses:
        raise ValueError(f"mode {mode.name!r} rebuilds no state; give floating, wide or bitwise.")
    solver = mode.solver(beta, z0.dtype).bound_to(None, num_steps).recording()
    values = solver.half_steps.values

    def evaluate(state: Leaves) -> Leaves:
        return (function(narrow(state[0], z0.dtype), args),)

    with torch.no_grad():
        state = solver.init((z0,))
        for n in range(num_steps):
            # Bitwise states stand for a rounded z0, but f is evaluated at z0 itself.
            state = solver.step(evaluate, state, evaluate((z0,) if n == 0 else values(state.z)), n)
        final = torch.stack([*solver.coupled(state), *solver.estimate(state)])
        entries = state.tape[0].entries() if state.tape else []
        for n in reversed(range(num_steps)):
            lost_y, lost_z = entries[2 * n : 2 * n + 2] or (None, None)
            z = solver.undo_z(state.z, evaluate(values(state.y)), lost_z, n)
            value = evaluate((z0,) if n == 0 and solver.repeats else values(z))
            state = Coupled(solver.undo_y(state.y, value, lost_y, n), z)
        rebuilt = torch.stack([*solver.coupled(state), *solver.estimate(state)])
    wide = z0.to(torch.float64)
    return float((rebuilt.to(torch.float64) - wide).abs().max() / final.to(torch.float64).abs().max())
