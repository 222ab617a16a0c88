"""What f updates: running statistics once an evaluation forward and never backward, other buffers once a solve."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import CheckpointedAdjoint, ImplicitAdjoint, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.function.reads import ReadsSeen


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
            torch.testing.assert_close(g, w, rtol=1e-13, atol=1e-15)


def test_statistics_are_constants_in_evaluation_mode(agree):
    module = fresh().eval()
    before = buffers_of(module)
    x = INPUTS.clone().requires_grad_()
    agree(module, torch.randn(6, 4, dtype=torch.float64), x, (x, *module.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))


@pytest.mark.parametrize("segment", [1, 2, None])
def test_segments_that_are_taken_again_leave_the_statistics_alone(segment: int | None):
    module = fresh()
    adjoint = ReversibleAdjoint(segment=segment)
    found: Any = solve(module, torch.zeros_like(INPUTS), INPUTS, solver=Reversible(0.7), adjoint=adjoint, max_steps=4)
    before = buffers_of(module)
    found.z1.sum().backward()
    assert found.health.verified
    assert (found.health.repeated_segments > 0) == (segment == 2)
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))


class Counting(nn.Module):
    """A map that reads and updates buffers of its own: a counter, and a vector that turns."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: torch.Tensor
        self.vector: torch.Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("vector", torch.tensor([0.6, 0.8, 0.0, 0.0], dtype=torch.float64))
        self.weight = nn.Parameter(torch.linspace(-0.4, 0.5, 16, dtype=torch.float64).reshape(4, 4))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.vector.copy_(nn.functional.normalize(self.weight.detach() @ self.vector + 1.0, dim=0))
        return torch.tanh(z @ self.weight + 0.1 * self.calls + x * self.vector.clone())


EVERY = [
    ReversibleAdjoint(),
    ReversibleAdjoint(segment=1),
    ReversibleAdjoint(segment=2),
    UnrolledAdjoint(),
    CheckpointedAdjoint(2),
]


@pytest.mark.parametrize("options", [{}, {"rtol": 1e-6, "atol": 1e-6}], ids=["fixed", "tolerance"])
@pytest.mark.parametrize("adjoint", EVERY, ids=repr)
def test_buffers_that_the_function_reads_and_updates_are_one_map_and_end_after_one_evaluation(adjoint, options):
    module, twin = Counting(), Counting()
    x = INPUTS.clone().requires_grad_()
    twin(torch.zeros_like(x), x)  # where one evaluation leaves them

    def fixed(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ twin.weight + 0.1 * twin.calls + a * twin.vector)

    def run(function, weight, chosen) -> tuple[torch.Tensor, ...]:
        steps: Any = {"max_steps": 60 if options else 5, **options}
        found = solve(function, torch.zeros_like(x), x, solver=Reversible(0.7), adjoint=chosen, **steps)
        ends = buffers_of(module)
        found_gradients = torch.autograd.grad(found.z1.square().sum(), (weight, x))
        assert all(torch.equal(a, b) for a, b in zip(ends, module.buffers(), strict=True))
        return (found.z1.detach(), *found_gradients)

    got = run(module, module.weight, adjoint)
    assert int(module.calls) == 1
    assert torch.equal(module.vector, twin.vector)
    for g, w in zip(got, run(fixed, twin.weight, UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-14, atol=1e-15)


def new_spectral(linear: nn.Linear) -> Any:
    return nn.utils.parametrizations.spectral_norm(linear)


def old_spectral(linear: nn.Linear) -> Any:
    return nn.utils.spectral_norm(linear)


@pytest.mark.parametrize("adjoint", EVERY[:3], ids=repr)
@pytest.mark.parametrize("normalise", [new_spectral, old_spectral])
@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.spectral_norm.* is deprecated")
def test_spectral_normalisation_in_training_is_one_power_iteration_a_solve(normalise, adjoint):
    torch.manual_seed(1)
    layer = normalise(nn.Linear(8, 8, dtype=torch.float64))
    x = torch.linspace(-1.0, 2.0, 24, dtype=torch.float64).reshape(3, 8).sin()
    for _ in range(3):
        plain = normalise(nn.Linear(8, 8, dtype=torch.float64))
        plain.load_state_dict(layer.state_dict())
        # One call, or one reading, moves the vectors and makes the weight that every evaluation of the solve reads.
        if normalise is old_spectral:
            plain(x)
        weight = plain.weight
        y = z = torch.zeros_like(x)
        for _ in range(4):
            y = 0.3 * y + 0.7 * torch.tanh(0.9 * nn.functional.linear(z, weight, plain.bias) + x)
            z = 0.3 * z + 0.7 * torch.tanh(0.9 * nn.functional.linear(y, weight, plain.bias) + x)
        z.square().sum().backward()
        layer.zero_grad()
        found = solve(
            lambda z, a, layer=layer: torch.tanh(0.9 * layer(z) + a),
            torch.zeros_like(x),
            x,
            solver=Reversible(0.7),
            adjoint=adjoint,
            max_steps=4,
        )
        found.z1.square().sum().backward()
        for (name, got), want in zip(layer.named_parameters(), plain.parameters(), strict=True):
            assert got.grad is not None, name
            assert want.grad is not None, name
            torch.testing.assert_close(got.grad, want.grad, rtol=1e-12, atol=1e-14)
            got.data.sub_(0.1 * got.grad)
        for got, want in zip(layer.buffers(), plain.buffers(), strict=True):
            assert torch.equal(got, want)


def test_spectral_normalisation_works_cached():
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32).double())
    x = torch.linspace(-1.0, 2.0, 96, dtype=torch.float64).reshape(3, 32).sin().requires_grad_()

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.9 * linear(z) + a)

    def run(adjoint) -> list[torch.Tensor | None]:
        linear.zero_grad()
        assert linear.weight.requires_grad  # read before the solve: made once, and captured
        found = solve(function, torch.zeros_like(x), x, solver=Reversible(0.7), adjoint=adjoint, max_steps=2)
        found.z1.square().sum().backward()
        return [p.grad.clone() for p in linear.parameters() if p.grad is not None]

    with nn.utils.parametrize.cached():
        got = run(ReversibleAdjoint())
    linear.eval()  # the vectors of the power iteration stay where they are
    with nn.utils.parametrize.cached():
        want = run(UnrolledAdjoint())
    assert len(got) == 2
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-13, atol=1e-15)


def test_what_an_evaluation_changes_is_no_constant_whether_or_not_the_operation_says_so():
    mean, variance, table, kept = torch.zeros(2), torch.ones(2), torch.full((3, 2), 5.0), torch.ones(2)
    with ReadsSeen(()) as reads:
        torch.nn.functional.batch_norm(torch.randn(4, 2) * kept, mean, variance, training=True)
        torch.nn.functional.embedding(torch.tensor([0, 1, 2]), table, max_norm=1.0)
    constants = {id(tensor) for tensor in reads.constants()}
    assert id(kept) in constants
    assert not {id(mean), id(variance), id(table)} & constants
    assert {id(tensor) for tensor, _ in reads.statistics()} == {id(mean), id(variance)}
