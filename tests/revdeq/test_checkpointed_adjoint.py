"""Checkpoints: what is evaluated again, what is stored, and what the repetition leaves untouched."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import Anderson, CheckpointedAdjoint, GradientError, Relaxed, Reversible, UnrolledAdjoint, solve


@pytest.mark.parametrize("segment", [1, 2, 5, 100, None])
@pytest.mark.parametrize("solver", [Relaxed(0.9), Reversible(0.8), Anderson()], ids=repr)
def test_a_fixed_number_of_steps_is_evaluated_twice(counter, segment, solver):
    weight = (0.1 * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    z0 = torch.zeros(2, 4, dtype=torch.float64)
    found = solve(counter, z0, weight, solver=solver, adjoint=CheckpointedAdjoint(segment), max_steps=7)
    assert counter.evaluations == 7 * solver.evaluations_per_step
    found.z1.sum().backward()
    assert counter.evaluations == 14 * solver.evaluations_per_step
    assert counter.vjps == 7 * solver.evaluations_per_step


@pytest.mark.parametrize("segment", [1, 3, None])
def test_with_tolerances_the_steps_are_found_first_and_then_repeated(counter, segment):
    weight = (0.3 * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    z0 = torch.randn(2, 4, dtype=torch.float64)
    adjoint = CheckpointedAdjoint(segment)
    found = solve(counter, z0, weight, solver=Relaxed(0.9), adjoint=adjoint, max_steps=99, rtol=1e-8, atol=1e-10)
    steps = int(found.num_steps.max())
    assert counter.evaluations == 2 * steps + 1
    found.z1.sum().backward()
    assert counter.evaluations == 3 * steps + 1
    assert counter.vjps == steps


def stored_bytes(adjoint, max_steps):
    weight = (0.1 * torch.randn(16, 16)).requires_grad_()
    stored: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = solve(
            lambda z, w: torch.tanh(torch.sin(z @ w)),
            torch.zeros(64, 16),
            weight,
            solver=Relaxed(1.0),
            adjoint=adjoint,
            max_steps=max_steps,
        )
    del found
    return sum(stored.values())


def test_less_is_stored_than_by_unrolling():
    unrolled, every, root = (
        stored_bytes(a, 36) for a in (UnrolledAdjoint(), CheckpointedAdjoint(1), CheckpointedAdjoint())
    )
    assert every < unrolled
    assert root <= every


class Normalised(nn.Module):
    """A map with dropout and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(4, dtype=torch.float64)
        self.drop = nn.Dropout(0.4)

    def forward(self, z, x):
        return torch.tanh(0.3 * self.norm(self.linear(self.drop(z))) + x)


@pytest.mark.parametrize("options", [{}, {"rtol": 1e-6, "atol": 1e-6}], ids=["fixed", "tolerance"])
@pytest.mark.parametrize("segment", [1, 4])
def test_backward_draws_the_same_mask_and_leaves_generator_and_statistics(segment, options):
    x = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    modules = [Normalised(), Normalised()]
    modules[1].load_state_dict(modules[0].state_dict())
    state = torch.get_rng_state()
    gradients = []
    for module, adjoint in zip(modules, (UnrolledAdjoint(), CheckpointedAdjoint(segment)), strict=True):
        torch.set_rng_state(state)
        found = solve(
            module,
            torch.zeros_like(x),
            x,
            solver=Relaxed(0.9),
            adjoint=adjoint,
            max_steps=40 if options else 6,
            **options,
        )
        torch.rand(5)
        after = torch.get_rng_state()
        statistics = {name: value.clone() for name, value in module.named_buffers()}
        gradients.append(torch.autograd.grad(found.z1.square().sum(), (x, *module.parameters())))
        assert torch.equal(torch.get_rng_state(), after)
        assert all(torch.equal(value, statistics[name]) for name, value in module.named_buffers())
    assert all(torch.equal(g, e) for g, e in zip(*gradients, strict=True))
    for (name, buffer), expected in zip(modules[1].named_buffers(), modules[0].buffers(), strict=True):
        assert torch.equal(buffer, expected), name


@pytest.mark.parametrize("options", [{}, {"rtol": 1e-6, "atol": 1e-6}], ids=["fixed", "tolerance"])
@pytest.mark.parametrize("changed", ["argument", "captured", "constant"])
def test_a_tensor_changed_between_the_passes_is_refused(changed, options):
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weight = (0.3 * torch.randn(3, 3, dtype=torch.float64)).requires_grad_()
    shift = torch.randn(3, dtype=torch.float64)
    found = solve(
        lambda z, a: torch.tanh(z @ weight + a + shift),
        torch.zeros_like(x),
        x,
        solver=Relaxed(1.0),
        adjoint=CheckpointedAdjoint(2),
        max_steps=60,
        **options,
    )
    with torch.no_grad():
        {"argument": x, "captured": weight, "constant": shift}[changed].mul_(2)
    with pytest.raises(GradientError, match="changed in place between the forward and the backward pass"):
        found.z1.sum().backward()


def test_second_derivatives_are_those_of_the_unrolled_steps(problem):
    z0, weight, x = problem

    def run(z0, weight, x):
        return solve(
            lambda z, a: torch.tanh(z @ weight + a),
            z0,
            x,
            solver=Relaxed(0.8),
            adjoint=CheckpointedAdjoint(2),
            max_steps=3,
        ).z1

    assert torch.autograd.gradcheck(run, (z0, weight, x))
    assert torch.autograd.gradgradcheck(run, (z0, weight, x))


def test_backward_runs_twice_where_the_graph_is_kept(problem):
    z0, weight, x = problem
    found: Any = solve(
        lambda z, a: torch.tanh(z @ weight + a),
        z0,
        x,
        solver=Reversible(0.8),
        adjoint=CheckpointedAdjoint(2),
        max_steps=5,
    )
    loss = found.z1.sum() + found.y1.square().sum()
    first = torch.autograd.grad(loss, (z0, weight, x), retain_graph=True)
    second = torch.autograd.grad(loss, (z0, weight, x))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_transforms_are_refused():
    def loss(x):
        return solve(
            lambda z, a: torch.tanh(0.3 * z + a),
            torch.zeros_like(x),
            x,
            solver=Relaxed(1.0),
            adjoint=CheckpointedAdjoint(),
            max_steps=3,
        ).z1.sum()

    with pytest.raises(GradientError, match="use UnrolledAdjoint there"):
        torch.func.grad(loss)(torch.randn(2, 2))


def test_without_grad_mode_nothing_is_recorded():
    with torch.no_grad():
        found = solve(
            lambda z, a: 0.5 * z + a,
            torch.zeros(2, 2),
            torch.ones(2, 2, requires_grad=True),
            solver=Relaxed(1.0),
            adjoint=CheckpointedAdjoint(),
            max_steps=3,
        )
    assert not found.z1.requires_grad
    torch.testing.assert_close(found.z1, torch.full((2, 2), 1.75))
