"""What only a CUDA device can show: its generator, autocast, streams, and a forward pass that never waits for it."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import Relaxed, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


pytestmark = pytest.mark.gpu


class Cell(nn.Module):
    """A cell with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16, device="cuda")

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.3 * self.linear(nn.functional.dropout(z, 0.4)).float() + x)


def gradients(cell: Cell, x: torch.Tensor, adjoint: Any, *, autocast: bool = False) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
        found = solve(cell, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=4)
    torch.rand(5, device="cuda")  # the generator moves on before backward
    if found.health is not None:
        grads = torch.autograd.grad(found.z1.sum(), (x, *cell.parameters()))
        assert found.health.replay_error == 0.0
        return grads
    return torch.autograd.grad(found.z1.sum(), (x, *cell.parameters()))


@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-4), (True, 2.0**-5)])
def test_dropout_and_autocast_are_replayed_on_the_device(autocast: bool, tolerance: float):
    cell, x = Cell(), torch.randn(8, 16, device="cuda", requires_grad=True)
    got = gradients(cell, x, ReversibleAdjoint(), autocast=autocast)
    want = gradients(cell, x, UnrolledAdjoint(), autocast=autocast)
    for g, w in zip(got, want, strict=True):
        assert float(torch.linalg.vector_norm(g - w)) <= tolerance * float(torch.linalg.vector_norm(w))


def test_generator_of_the_device_ends_where_one_evaluation_leaves_it():
    cell, x = Cell(), torch.randn(8, 16, device="cuda", requires_grad=True)
    torch.manual_seed(3)
    with torch.no_grad():
        cell(torch.zeros_like(x), x)
    expected = torch.cuda.get_rng_state()
    torch.manual_seed(3)
    found = solve(cell, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=4)
    assert torch.equal(torch.cuda.get_rng_state(), expected)
    found.z1.sum().backward()
    assert torch.equal(torch.cuda.get_rng_state(), expected)


def test_solve_on_a_side_stream_gives_the_same_gradients():
    cell, x = Cell(), torch.randn(8, 16, device="cuda", requires_grad=True)
    want = gradients(cell, x, ReversibleAdjoint())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = gradients(cell, x, ReversibleAdjoint())
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_forward_pass_of_fixed_steps_never_waits_for_the_device():
    linear, x = nn.Linear(16, 16, device="cuda"), torch.randn(8, 16, device="cuda", requires_grad=True)

    def run() -> None:
        solve(
            lambda z, a: torch.tanh(0.3 * linear(z) + a),
            torch.zeros_like(x),
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=4,
            throw=False,
        )

    run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_function_that_differentiates_inside_gives_the_unrolled_gradient():
    weight = (0.1 * torch.randn(16, 16, device="cuda")).requires_grad_()
    x = torch.randn(8, 16, device="cuda", requires_grad=True)

    def energy_step(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            energy = 0.5 * (z * z).sum() + torch.cos(z @ weight + a).sum()
            (slope,) = torch.autograd.grad(energy, z, create_graph=True)
        return z - 0.5 * slope

    grads = [
        torch.autograd.grad(
            solve(energy_step, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=3).z1.sum(),
            (x, weight),
        )
        for adjoint in (ReversibleAdjoint(), UnrolledAdjoint())
    ]
    for g, w in zip(*grads, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        (Reversible(0.8), ReversibleAdjoint()),
        (Reversible(0.8), UnrolledAdjoint()),
        (Reversible(0.8, arithmetic="bitwise"), ReversibleAdjoint()),
        (Reversible("adaptive"), ReversibleAdjoint()),
        (Relaxed(0.5), UnrolledAdjoint()),
    ],
    ids=repr,
)
def test_fixed_steps_are_captured_in_a_cuda_graph_and_replayed_on_new_data(solver: Any, adjoint: Any):
    linear, x = nn.Linear(16, 16, device="cuda"), torch.randn(8, 16, device="cuda")

    def run() -> torch.Tensor:
        with torch.no_grad():
            return solve(
                lambda z, a: torch.tanh(0.3 * linear(z) + a),
                torch.zeros_like(x),
                x,
                solver=solver,
                adjoint=adjoint,
                max_steps=4,
                throw=False,
            ).z1

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()  # libraries make their workspaces in the first call
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    x.copy_(torch.randn(8, 16, device="cuda"))
    graph.replay()
    assert torch.equal(captured, run())
