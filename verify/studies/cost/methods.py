"""Every solver with every adjoint, at 2N evaluations of f in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq import (
    Adjoint,
    Anderson,
    Broyden,
    CheckpointedAdjoint,
    ImplicitAdjoint,
    PhantomAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    Solver,
    UnrolledAdjoint,
    solve,
)
from verify.studies.cost.workload import Cell, Workload


@dataclass(frozen=True)
class Method:
    """One way to solve and to differentiate.

    Args:
        solver: how it iterates, or whose solver it is.
        adjoint: how it is differentiated.
        state_dtype: dtype of the states between evaluations, "bitwise" for integers that are undone to the bit.
        forward: cell -> final state with a graph.
        main: whether the quick profile times it.
    """

    solver: str
    adjoint: str
    state_dtype: str
    forward: Callable[[Cell], Tensor]
    main: bool = True

    @property
    def name(self) -> str:
        """Solver, adjoint and state, unique among the methods."""
        return f"{self.solver}, {self.adjoint}, {self.state_dtype}"


def methods_of(workload: Workload) -> list[Method]:
    """Every pair of ours that the cell allows; operator splittings, which need a monotone cell, are not among them.

    All take 2N evaluations of f forward: N reversible steps, 2N of the other solvers.

    Args:
        workload: what they solve.
    """
    beta, twice = workload.beta, workload.evaluations
    single, double = torch.float32, torch.float64
    reversal = _reversal()
    found = [
        Method("reversible", "reversible", "float32", _by(workload, Reversible(beta, state_dtype=single), reversal)),
        Method("reversible", "reversible", "float64", _by(workload, Reversible(beta, state_dtype=double), reversal)),
        Method("reversible", "reversible", "bitwise", _by(workload, Reversible(beta, arithmetic="bitwise"), reversal)),
    ]
    # The adjoint equation gets 2N iterations too: a relative tolerance of 0 is never met.
    implicit = ImplicitAdjoint(rtol=0.0, atol=0.0, max_steps=twice, throw=False)
    adjoints: dict[str, Adjoint] = {
        "unrolled": UnrolledAdjoint(),
        "checkpointed": CheckpointedAdjoint(1),
        "checkpointed, segments": CheckpointedAdjoint(None),
        "implicit": implicit,
        "phantom": PhantomAdjoint(1, 1.0),
    }
    solvers: dict[str, tuple[Solver, str]] = {
        "reversible": (Reversible(beta, state_dtype=double), "float64"),
        "relaxed": (Relaxed(1.0), "float32"),
        "anderson": (Anderson(), "float32"),
        "broyden": (Broyden(), "float32"),
    }
    for label, (solver, state_dtype) in solvers.items():
        for kind, adjoint in adjoints.items():
            exact = kind not in ("implicit", "phantom")
            main = label == ("reversible" if exact else "relaxed") and kind != "checkpointed, segments"
            found.append(Method(label, kind, state_dtype, _by(workload, solver, adjoint), main))
    return found


def compiled_of(workload: Workload) -> list[Method]:
    """The reversible steps with the half step compiled, which takes a C++ compiler, and a while at the first step.

    Args:
        workload: what they solve.
    """
    return [
        Method(
            "reversible",
            "reversible, compiled",
            label,
            _by(workload, Reversible(workload.beta, state_dtype=dtype, compile=True), _reversal()),
        )
        for label, dtype in (("float32", torch.float32), ("float64", torch.float64))
    ]


def _reversal() -> ReversibleAdjoint:
    """As users get it."""
    return ReversibleAdjoint()


def _by(workload: Workload, solver: Solver, adjoint: Adjoint) -> Callable[[Cell], Tensor]:
    steps = workload.evaluations // solver.evaluations_per_step

    def forward(cell: Cell) -> Tensor:
        found = solve(cell, workload.z0, workload.x, solver=solver, adjoint=adjoint, max_steps=steps, throw=False)
        assert isinstance(found.z1, Tensor)
        return found.z1

    return forward
