"""No gradient is lost between the passes: what any evaluation reads has one, a switch that would lose it is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import GradientError, ImplicitAdjoint, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


class Adapters:
    """Parameters that a search through modules and closures does not find."""

    def __init__(self, count: int) -> None:
        self.gains = [torch.full((4,), 0.5 + 0.1 * i, requires_grad=True) for i in range(count)]


@pytest.mark.parametrize("num_steps", [3, 5, 9])
def test_a_parameter_that_only_a_middle_evaluation_reads_gets_its_gradient(agree, num_steps: int):
    adapters = Adapters(2)
    x = torch.linspace(-1.0, 1.0, 8).reshape(2, 4).requires_grad_()

    def f(z: torch.Tensor, args: Any, step: int) -> torch.Tensor:
        x, held = args
        return torch.tanh(0.5 * z * held.gains[step % 2] + x)

    agree(
        f, torch.zeros(2, 4), (x, adapters), (x, *adapters.gains), max_steps=num_steps, with_step=True, tolerance=1e-6
    )


class Merging(nn.Module):
    """A layer of low rank that is merged into the weight in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.eye(4, dtype=torch.float64), requires_grad=False)
        self.left = nn.Parameter(torch.full((4, 1), 0.1, dtype=torch.float64))
        self.right = nn.Parameter(torch.full((1, 4), 0.1, dtype=torch.float64))

    def train(self, mode: bool = True) -> "Merging":
        if mode != self.training:
            with torch.no_grad():
                self.weight.add_(self.left @ self.right, alpha=-1.0 if mode else 1.0)
        return super().train(mode)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight + self.left @ self.right if self.training else self.weight.detach().clone()
        return torch.tanh(z @ weight + x)


class Held(nn.Module):
    """Holds a layer, and detaches it in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).double()

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = 0.3 * self.linear(z)
        return torch.tanh((h if self.training else h.detach()) + x)


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=2), ImplicitAdjoint()])
@pytest.mark.parametrize("make", [Merging, Held])
def test_a_mode_switched_between_the_passes_loses_no_gradient_in_silence(make: Any, adjoint: Any):
    cell = make()
    x = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    found = solve(cell, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=40)
    cell.eval()
    # The merged weight is changed in place, the other value is the same to the bit: each has its own sentence.
    with pytest.raises((GradientError, RuntimeError), match=r"no more in the backward pass|modified by an inplace"):
        found.z1.sum().backward()


def test_padded_attention_is_one_map_with_and_without_a_graph():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    encoder = nn.TransformerEncoder(layer, 1)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    x = torch.linspace(-1.0, 1.0, 48).reshape(2, 3, 8)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.3 * encoder(z, src_key_padding_mask=padding) + x

    how: Any = {"solver": Reversible(0.8), "max_steps": 6}
    fast = torch.backends.mha.get_fastpath_enabled()
    reversible = solve(f, torch.zeros_like(x), x, adjoint=ReversibleAdjoint(), **how)
    unrolled = solve(f, torch.zeros_like(x), x, adjoint=UnrolledAdjoint(), **how)
    assert torch.equal(reversible.z1, unrolled.z1)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    reversible.z1.sum().backward()
    assert reversible.health is not None
    assert reversible.health.verified
