"""torch.compile: of f, and of the model around the solve, with the gradients of the plain run."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


# Dynamo itself reads .grad of what a graph break hands over.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


class Model(nn.Module):
    """A layer, a solve, a layer."""

    def __init__(self, adjoint: Any) -> None:
        super().__init__()
        self.inject, self.cell, self.head = (nn.Linear(4, 4).double() for _ in range(3))
        self.adjoint = adjoint

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.sin(self.inject(x))
        found = solve(
            lambda z, a: torch.tanh(0.4 * self.cell(z) + a),
            torch.zeros_like(x),
            x,
            solver=Reversible(0.8),
            adjoint=self.adjoint,
            max_steps=3,
        )
        return self.head(found.z1)


def test_compiled_model_around_the_solve_gives_the_gradients_of_the_plain_one():
    model = Model(ReversibleAdjoint())
    x = torch.randn(3, 4, dtype=torch.float64)
    want = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    compiled = torch.compile(model, backend="aot_eager")
    got = torch.autograd.grad(compiled(x).square().sum(), list(model.parameters()))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["function", "module"])
def test_compiled_function_keeps_the_gradients_of_what_it_captures(kind: str):
    torch.compiler.reset()
    norm, linear = nn.BatchNorm1d(4).double(), nn.Linear(4, 4).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = norm, linear

        def forward(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
            return torch.tanh(0.4 * linear(norm(z)) + a)

    plain: Any = Cell() if kind == "module" else lambda z, a: torch.tanh(0.4 * linear(norm(z)) + a)
    compiled = torch.compile(plain, backend="aot_eager")
    leaves = [x, *linear.parameters(), *norm.parameters()]
    state = {k: v.clone() for k, v in norm.state_dict().items()}

    def run(function: Any, adjoint: Any) -> tuple[tuple[torch.Tensor, ...], list[torch.Tensor]]:
        norm.load_state_dict(state)
        z0 = torch.ones(5, 4, dtype=torch.float64) * torch.arange(5)[:, None]
        found = solve(function, z0, x, solver=Reversible(0.8), adjoint=adjoint, max_steps=2)
        after = [b.clone() for b in norm.buffers()]
        grads = torch.autograd.grad(found.z1.square().sum(), leaves)
        assert all(torch.equal(a, b) for a, b in zip(after, norm.buffers(), strict=True))
        return grads, after

    for got, want in zip(run(compiled, ReversibleAdjoint()), run(plain, UnrolledAdjoint()), strict=True):
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)


def test_a_torch_that_cannot_compile_a_vjp_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("revdeq._compiled.dynamo_config", SimpleNamespace())
    x = torch.zeros(2)
    with pytest.raises(RuntimeError, match=r"compile is True, but torch .* use torch 2.13 or newer"):
        solve(
            lambda z, a: 0.5 * z + a,
            x,
            x,
            solver=Reversible(0.5, compile=True),
            adjoint=ReversibleAdjoint(),
            max_steps=2,
        )
