"""Running statistics: updated once an evaluation by the forward pass, as a plain loop does, and never by backward."""

import pytest
import torch
from torch import nn

from revdeq import GradientError, ImplicitAdjoint, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


class Normalised(nn.Module):
    """tanh(linear(batch norm(z)) + x)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4).double()
        self.linear = nn.Linear(4, 4).double()

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.3 * self.linear(self.norm(z)) + x)


def buffers_of(module: nn.Module) -> list[torch.Tensor]:
    return [b.clone() for b in module.buffers()]


def fresh() -> Normalised:
    module = Normalised()
    module.load_state_dict({k: 0.1 + 0 * v if v.is_floating_point() else v for k, v in module.state_dict().items()})
    with torch.no_grad():
        module.linear.weight.copy_(torch.linspace(-0.5, 0.5, 16, dtype=torch.float64).reshape(4, 4))
    return module


INPUTS = torch.linspace(-1.0, 2.0, 24, dtype=torch.float64).reshape(6, 4).sin()


@pytest.mark.parametrize("wrap", ["module", "lambda"])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint(), ImplicitAdjoint()], ids=repr)
def test_forward_updates_once_an_evaluation_and_backward_never(adjoint, wrap: str):
    plain, module = fresh(), fresh()
    beta, steps = 0.7, 3
    y = z = torch.zeros_like(INPUTS)
    with torch.no_grad():
        for _ in range(steps):
            y = (1 - beta) * y + beta * plain(z, INPUTS)
            z = (1 - beta) * z + beta * plain(y, INPUTS)
    function = module if wrap == "module" else lambda z, a: module(z, a)
    found = solve(function, torch.zeros_like(INPUTS), INPUTS, solver=Reversible(beta), adjoint=adjoint, max_steps=steps)
    torch.testing.assert_close(found.z1, z, rtol=1e-13, atol=1e-15)
    for got, want in zip(module.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)
    after_forward = buffers_of(module)
    found.z1.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(after_forward, module.buffers(), strict=True))
    assert module.norm.num_batches_tracked is not None
    assert int(module.norm.num_batches_tracked) == 2 * steps


def test_gradient_through_batch_statistics_equals_unrolled(agree):
    module = fresh()
    x = INPUTS.clone().requires_grad_()
    agree(module, torch.randn(6, 4, dtype=torch.float64), x, (x, *module.parameters()))


def test_two_solves_before_one_backward_leave_the_statistics_of_both_forwards():
    def run(adjoint) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        module = fresh()
        z1 = torch.zeros_like(INPUTS)
        for _ in range(2):
            z1 = solve(module, z1, INPUTS, solver=Reversible(0.7), adjoint=adjoint, max_steps=2).z1
        z1.square().sum().backward()
        return buffers_of(module), [p.grad for p in module.parameters() if p.grad is not None]

    for got, want in zip(run(ReversibleAdjoint()), run(UnrolledAdjoint()), strict=True):
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)


def test_statistics_are_constants_in_evaluation_mode(agree):
    module = fresh().eval()
    before = buffers_of(module)
    x = INPUTS.clone().requires_grad_()
    agree(module, torch.randn(6, 4, dtype=torch.float64), x, (x, *module.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))


def test_fallback_leaves_the_statistics_alone():
    module = fresh()
    adjoint = ReversibleAdjoint(min_bits=100)
    found = solve(module, torch.zeros_like(INPUTS), INPUTS, solver=Reversible(0.7), adjoint=adjoint, max_steps=4)
    before = buffers_of(module)
    found.z1.sum().backward()
    assert found.health is not None
    assert found.health.fell_back
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))


def test_buffer_that_the_function_counts_in_is_updated_by_forward_alone():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls: torch.Tensor
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return 0.5 * torch.tanh(z + x)

    module = Counting()
    x = INPUTS.clone().requires_grad_()
    found = solve(module, torch.zeros_like(x), x, solver=Reversible(0.7), adjoint=ReversibleAdjoint(), max_steps=3)
    assert float(module.calls) == 6.0
    found.z1.sum().backward()
    assert float(module.calls) == 6.0


@pytest.mark.parametrize("cached", [True, False])
def test_spectral_normalisation_works_cached_and_raises_where_it_moves(cached: bool):
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32).double())
    x = torch.linspace(-1.0, 2.0, 96, dtype=torch.float64).reshape(3, 32).sin().requires_grad_()

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.9 * linear(z) + a)

    def run(adjoint) -> list[torch.Tensor | None]:
        linear.zero_grad()
        if cached:
            assert linear.weight.requires_grad  # read before the solve: made once, and captured
        found = solve(function, torch.zeros_like(x), x, solver=Reversible(0.7), adjoint=adjoint, max_steps=2)
        found.z1.square().sum().backward()
        return [p.grad.clone() for p in linear.parameters() if p.grad is not None]

    if not cached:
        with pytest.raises(GradientError, match=r"function does not repeat.*parametrize\.cached\(\)"):
            run(ReversibleAdjoint())
        return
    with nn.utils.parametrize.cached():
        got = run(ReversibleAdjoint())
    linear.eval()  # the vectors of the power iteration stay where they are
    with nn.utils.parametrize.cached():
        want = run(UnrolledAdjoint())
    assert len(got) == 2
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)
