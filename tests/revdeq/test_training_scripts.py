"""What training scripts put inside f or round the layer: the unrolled gradient leaf by leaf, or an error."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, weight_norm
from torch.utils.checkpoint import checkpoint

from revdeq import (
    GMRES,
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    PhantomAdjoint,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)
from revdeq.nn import DEQ


class Cell(nn.Module):
    """f(z, a) = tanh(.3 inner(z) + a)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        value = self.inner(z)
        return torch.tanh(0.3 * (value[0] if isinstance(value, tuple) else value) + a)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, dropout=0.2)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.attention(z, z, z, need_weights=False)[0]


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 6))
        self.reentrant = reentrant

    def forward(self, z: torch.Tensor) -> Any:
        return checkpoint(self.layers, z, use_reentrant=self.reentrant)


class StopGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            gate = torch.sigmoid(self.linear(z))
        return gate * self.linear(z) + z.detach()


def with_backward_hook() -> nn.Module:
    linear = nn.Linear(6, 6)

    def halve(module: nn.Module, to_inputs: Any, to_outputs: Any) -> Any:
        return tuple(None if g is None else 0.5 * g for g in to_inputs)

    linear.register_full_backward_hook(halve)
    return linear


def with_forward_hook() -> nn.Module:
    linear = nn.Linear(6, 6)

    def double(module: nn.Module, inputs: Any, value: Any) -> Any:
        return 2 * value

    linear.register_forward_hook(double)
    return linear


INNER: dict[str, Callable[[], nn.Module]] = {
    "backward hook of a module": with_backward_hook,
    "forward hook of a module": with_forward_hook,
    "weight normalisation": lambda: weight_norm(nn.Linear(6, 6)),
    "orthogonal weight": lambda: orthogonal(nn.Linear(6, 6)),
    "attention with dropout": SelfAttention,
    "encoder layer": lambda: nn.TransformerEncoderLayer(6, 2, 12, dropout=0.1, batch_first=True),
    "recurrent layer": lambda: nn.GRU(6, 6, batch_first=True),
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "no_grad and detach": StopGradient,
}


def gradients(inner: Callable[[], nn.Module], adjoint: Any, around: Any = contextlib.nullcontext) -> list[Any]:
    """Return the gradients in x and in every parameter, of a cell, input and dropout mask that are always the same."""
    torch.manual_seed(0)
    cell = Cell(inner()).double()
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    with around():
        found = solve(cell, 0.1 * x, x, solver=Reversible(0.75), adjoint=adjoint, max_steps=3).z1
        (found * torch.linspace(-1.0, 1.0, 72, dtype=torch.float64).reshape(3, 4, 6)).sum().backward()
    return [x.grad, *(p.grad for p in cell.parameters())]


def assert_alike(got: list[Any], expected: list[Any]) -> None:
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert (g is None) == (e is None)
        if e is not None:
            # The parts of a gradient are summed in another order where f uses a tensor more than once.
            assert float((g - e).norm()) <= 1e-14 * float(e.norm())


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize(
    "adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=2), CheckpointedAdjoint(2)], ids=repr
)
def test_what_is_inside_the_function_gives_the_unrolled_gradient(name: str, adjoint: Any):
    expected = gradients(INNER[name], UnrolledAdjoint())
    assert sum(e is not None and bool(e.any()) for e in expected) >= 2
    assert_alike(gradients(INNER[name], adjoint), expected)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    "around",
    [torch.autograd.detect_anomaly, lambda: torch.autograd.set_multithreading_enabled(False)],
    ids=["anomaly detection", "one thread in backward"],
)
def test_modes_of_the_engine_change_nothing(around: Any):
    expected = gradients(SelfAttention, UnrolledAdjoint())
    assert_alike(gradients(SelfAttention, ReversibleAdjoint(), around), expected)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "adjoint",
    [UnrolledAdjoint(), ReversibleAdjoint(), ImplicitAdjoint(solver=GMRES()), PhantomAdjoint(2)],
    ids=repr,
)
def test_a_layer_inside_a_checkpoint_has_the_same_gradient(adjoint: Any, reentrant: bool):
    torch.manual_seed(0)
    layer = DEQ(Cell(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3))).double(), adjoint=adjoint, max_steps=3)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    found: list[list[Any]] = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=reentrant)):
        torch.manual_seed(1)
        layer.zero_grad()
        x.grad = None
        run(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in layer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_checkpoint_of_the_old_kind_inside_the_function_raises():
    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        gradients(lambda: Checkpointed(reentrant=True), ReversibleAdjoint())


def test_an_activation_that_draws_as_its_input_tells_it_to_is_refused():
    with pytest.raises(GradientError, match="function drew other random numbers in a later evaluation"):
        gradients(lambda: nn.Sequential(nn.Linear(6, 6), nn.RReLU()), ReversibleAdjoint())


def test_backward_with_inputs_gives_them_alone_a_gradient():
    found: list[torch.Tensor] = []
    for adjoint in (UnrolledAdjoint(), ReversibleAdjoint()):
        torch.manual_seed(0)
        cell = Cell(nn.Linear(6, 6)).double()
        x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
        result = solve(cell, torch.zeros_like(x), x, solver=Reversible(0.75), adjoint=adjoint, max_steps=3).z1
        weight: Any = cell.inner.weight
        result.square().sum().backward(inputs=[weight])
        assert x.grad is None
        assert cell.inner.bias.grad is None
        found.append(weight.grad)
    assert torch.equal(found[1], found[0])


ADJOINTS = [
    ReversibleAdjoint(),
    ReversibleAdjoint(segment=2),
    CheckpointedAdjoint(2),
    ImplicitAdjoint(),
    PhantomAdjoint(2),
    UnrolledAdjoint(),
]


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_tensors_made_in_inference_mode_are_taken(adjoint: Any):
    torch.manual_seed(0)
    cell = Cell(nn.Linear(6, 6))
    with torch.inference_mode():
        start, x = torch.zeros(3, 6), torch.randn(3, 6)
    found: list[tuple[Any, ...]] = []
    for z0, a in ((start, x), (start.clone(), x.clone())):
        solution = solve(cell, z0, a, adjoint=adjoint, max_steps=40)
        found.append(torch.autograd.grad(solution.z1.square().sum(), list(cell.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    with torch.inference_mode():
        assert solve(cell, start, x, adjoint=adjoint).z1.is_inference()


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
@pytest.mark.parametrize("options", [{}, {"rtol": 1e-6, "atol": 0.0}], ids=["fixed", "tolerance"])
@pytest.mark.parametrize("trained", [True, False])
def test_parameters_frozen_or_unfrozen_between_the_passes_are_those_of_plain_autograd(
    adjoint: Any, options: dict[str, Any], trained: bool
):
    found: list[list[Any]] = []
    for way in (adjoint, UnrolledAdjoint() if not adjoint_of_fixed_point(adjoint) else adjoint):
        torch.manual_seed(0)
        cell = Cell(nn.Linear(6, 6)).double()
        x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
        weight: Any = cell.inner.weight
        weight.requires_grad_(trained)
        z1 = solve(cell, torch.zeros_like(x), x, adjoint=way, max_steps=40, **options).z1
        weight.requires_grad_(not trained)
        z1.square().sum().backward()
        assert weight.requires_grad is not trained
        assert weight.grad is None
        found.append([x.grad, *(p.grad for p in cell.parameters())])
    assert_alike(*found)


def adjoint_of_fixed_point(adjoint: Any) -> bool:
    return isinstance(adjoint, ImplicitAdjoint | PhantomAdjoint)


def test_another_thread_that_draws_meanwhile_is_named_or_does_no_harm():
    def draw_elsewhere(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=torch.randn, args=(10,))
        thread.start()
        thread.join()
        return torch.tanh(0.3 * z + a)

    x = torch.randn(3, 6, requires_grad=True)
    solve(draw_elsewhere, torch.zeros(3, 6), x, max_steps=4).z1.sum().backward()
    assert x.grad is not None
    draws = iter([torch.rand, *[torch.rand] * 2])

    def drop_and_draw(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        for more in draws:
            more(5)
            break
        return torch.tanh(0.3 * nn.functional.dropout(z, 0.2) + a)

    with pytest.raises(
        GradientError, match=r"If another thread draws .* give that thread a torch\.Generator of its own"
    ):
        solve(drop_and_draw, torch.ones(3, 6), x, max_steps=4)
