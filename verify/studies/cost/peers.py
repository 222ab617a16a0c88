"""What others would use on the same cell: torch.utils.checkpoint by hand, and torchdeq where it is installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from verify.studies.cost.methods import Method
from verify.studies.cost.workload import Cell, Workload


def peers_of(workload: Workload) -> list[Method]:
    """The peers that are installed.

    Args:
        workload: what they solve.

    References:
        Geng, Kolter, TorchDEQ: a library for deep equilibrium models, arXiv 2310.18605.
    """

    def by_hand(cell: Cell) -> Tensor:
        def evaluated(state: Tensor) -> Tensor:
            value: Any = checkpoint(cell, state.float(), workload.x, use_reentrant=False)
            return value.double()

        y = z = workload.z0.double()
        for _ in range(workload.num_steps):
            y = torch.lerp(y, evaluated(z), workload.beta)
            z = torch.lerp(z, evaluated(y), workload.beta)
        return z.float()

    found = [Method("reversible, by hand", "torch.utils.checkpoint", "float64", by_hand)]
    if "torchdeq" not in absent_peers():
        found += [_torchdeq(workload, "implicit", ift=True), _torchdeq(workload, "phantom", grad=1)]
    return found


def absent_peers() -> dict[str, str]:
    """Peers that cannot be measured in this environment, and why."""
    return {} if importlib.util.find_spec("torchdeq") else {"torchdeq": "it is not installed"}


def _torchdeq(workload: Workload, adjoint: str, **options: Any) -> Method:
    from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

    twice = workload.evaluations
    # A tolerance of 0 takes all iterations, in both directions.
    deq = get_deq(f_max_iter=twice, b_max_iter=twice, f_tol=0.0, b_tol=0.0, **options)
    deq.train()

    def forward(cell: Cell) -> Tensor:
        def function(z: Tensor) -> Tensor:
            return cell(z, workload.x)

        states, _ = deq(function, workload.z0)
        return states[-1]

    return Method("torchdeq", adjoint, "float32", forward)
