"""The training step that all methods take: one cell, one input, one cotangent, and the floor of their cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from revdeq.nn import Transformer


Cell = Callable[[Tensor, Tensor], Tensor]
"""f(z, x)."""


@dataclass(frozen=True)
class Workload:
    """A transformer cell to be solved and differentiated, float32, with weights from a fixed seed.

    Args:
        width: components of a token; heads have 32 components.
        batch: samples.
        tokens: tokens of a sample.
        num_steps: N; every method evaluates the cell 2N times in its forward pass.
        beta: relaxation parameter.
        device: where it runs.
    """

    width: int
    batch: int = 1
    tokens: int = 448
    num_steps: int = 4
    beta: float = 0.5
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def evaluations(self) -> int:
        """Evaluations of the cell in a forward pass, 2N."""
        return 2 * self.num_steps

    @cached_property
    def cell(self) -> Transformer:
        """The cell."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Transformer(self.width, max(1, self.width // 32)).to(self.device)

    @cached_property
    def x(self) -> Tensor:
        """The input, shape (batch, tokens, width), which wants a gradient too."""
        return self._normal(1).requires_grad_()

    @cached_property
    def cotangent(self) -> Tensor:
        """The cotangent of the final state."""
        return self._normal(2)

    @cached_property
    def z0(self) -> Tensor:
        """The start state, zeros."""
        return torch.zeros_like(self.cotangent)

    @cached_property
    def sources(self) -> tuple[Tensor, ...]:
        """What is differentiated for: x and the parameters."""
        return (self.x, *self.cell.parameters())

    def gradients(self, z1: Tensor) -> tuple[Tensor, ...]:
        """The gradients in `sources` of the product of z1 with the cotangent."""
        return torch.autograd.grad(z1, self.sources, self.cotangent)

    def floor(self) -> None:
        """Evaluate 2N times without a graph and 2N times with a VJP: what no method that rebuilds states can avoid."""
        cell, x, z0 = self.cell, self.x, self.z0
        with torch.no_grad():
            for _ in range(self.evaluations):
                cell(z0, x)
        for _ in range(self.evaluations):
            z = z0.detach().requires_grad_()
            torch.autograd.grad(cell(z, x), (z, *self.sources), self.cotangent)

    def _normal(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.batch, self.tokens, self.width, generator=generator).to(self.device)
