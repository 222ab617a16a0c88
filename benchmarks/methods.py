"""One training step by each method, on the same cell, input and cotangent."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from revdeq import (
    Adjoint,
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
from revdeq.nn import Transformer


Forward = Callable[[], torch.Tensor]
"""Solves with a graph and returns the final state."""

Step = Callable[[], object]
"""A whole training step: forward and gradients."""


@dataclass(frozen=True)
class Methods:
    """What can be timed on one workload.

    Attributes:
        floor: 2N evaluations without a graph, then 2N evaluations with a VJP each.
        forwards: the forward pass of each method by name.
        missing: why each other method is missing.
        gradient: takes the final state and computes all gradients.
    """

    floor: Step
    forwards: dict[str, Forward]
    missing: dict[str, str]
    gradient: Callable[[torch.Tensor], object]

    def steps(self) -> dict[str, Step]:
        """Return the whole training steps by name, the floor first."""
        return {"floor": self.floor} | {name: self._step(forward) for name, forward in self.forwards.items()}

    def _step(self, forward: Forward) -> Step:
        return lambda: self.gradient(forward())


@dataclass(frozen=True)
class Workload:
    """A transformer cell to be solved and differentiated; float32 weights from seed 0.

    Attributes:
        width: components of a token; heads of 32 components.
        batch: samples.
        tokens: tokens of a sample.
        num_steps: N; every method may evaluate the cell 2N times in its forward pass.
        beta: relaxation parameter.
        device: where it runs.
    """

    width: int
    batch: int
    tokens: int
    num_steps: int
    beta: float
    device: torch.device

    def parts(self) -> tuple[Transformer, torch.Tensor, torch.Tensor]:
        """Return the cell, its input x, which also wants a gradient, and the cotangent."""
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            cell = Transformer(self.width, max(1, self.width // 32)).to(self.device)
        shape = (self.batch, self.tokens, self.width)
        x, cotangent = (torch.randn(shape, generator=generator).to(self.device) for _ in range(2))
        return cell, x.requires_grad_(), cotangent


def methods(workload: Workload) -> Methods:
    """Return every method that is installed, on this workload."""
    cell, x, cotangent = workload.parts()
    parameters = list(cell.parameters())
    z0 = torch.zeros_like(cotangent)
    count = 2 * workload.num_steps

    def floor() -> None:
        with torch.no_grad():
            for _ in range(count):
                cell(z0, x)
        for _ in range(count):
            z = z0.detach().requires_grad_()
            torch.autograd.grad(cell(z, x), (z, x, *parameters), cotangent)

    def by(solver: Solver, adjoint: Adjoint, max_steps: int) -> Forward:
        return lambda: solve(cell, z0, x, solver=solver, adjoint=adjoint, max_steps=max_steps, throw=False).z1

    def torch_checkpoint() -> torch.Tensor:
        y = z = z0.double()
        for _ in range(workload.num_steps):
            y = torch.lerp(y, _checkpointed(cell, z, x), workload.beta)
            z = torch.lerp(z, _checkpointed(cell, y, x), workload.beta)
        return z.float()

    def gradient(z1: torch.Tensor) -> object:
        return torch.autograd.grad(z1, (x, *parameters), cotangent)

    reversible, n = Reversible(workload.beta), workload.num_steps
    # min_bits=0: the reversal itself is timed, not the recomputation that may replace it.
    reversal = ReversibleAdjoint(min_bits=0)
    # The backward solve takes 2N iterations, as many as the forward pass.
    implicit = ImplicitAdjoint(rtol=0.0, atol=0.0, max_steps=count, throw=False)
    found: dict[str, Forward] = {
        "reversible": by(reversible, reversal, n),
        "reversible, float32 states": by(Reversible(workload.beta, state_dtype=torch.float32), reversal, n),
        "unrolled": by(reversible, UnrolledAdjoint(), n),
        "checkpointed, each step": by(reversible, CheckpointedAdjoint(1), n),
        "checkpointed, sqrt": by(reversible, CheckpointedAdjoint(None), n),
        "implicit, 2N": by(Relaxed(1.0), implicit, count),
        "phantom, 1 step": by(Relaxed(1.0), PhantomAdjoint(1, 1.0), count),
        "torch.utils.checkpoint": torch_checkpoint,
    }
    missing: dict[str, str] = {}
    if importlib.util.find_spec("torchdeq") is None:
        missing |= dict.fromkeys(("torchdeq implicit", "torchdeq phantom"), "not installed")
    else:
        found["torchdeq implicit"] = _torchdeq(cell, z0, x, count, ift=True)
        found["torchdeq phantom"] = _torchdeq(cell, z0, x, count, grad=1)
    return Methods(floor, found, missing, gradient)


def saved_bytes(forward: Forward) -> int:
    """Return the bytes of distinct storages that autograd saves in a forward pass."""
    kept: list[torch.Tensor] = []  # alive, so that no address stands for two storages

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in kept)}.values())


def _checkpointed(cell: Transformer, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return checkpoint(cell, z.float(), x, use_reentrant=False).double()


def _torchdeq(cell: Transformer, z0: torch.Tensor, x: torch.Tensor, iterations: int, **options: Any) -> Forward:
    from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

    # A tolerance of 0 takes all iterations, in both directions.
    deq = get_deq(f_max_iter=iterations, b_max_iter=iterations, f_tol=0.0, b_tol=0.0, **options)
    deq.train()

    def function(z: torch.Tensor) -> torch.Tensor:
        return cell(z, x)

    def forward() -> torch.Tensor:
        states, _ = deq(function, z0)
        return states[-1]

    return forward
