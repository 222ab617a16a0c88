"""A derivative that changes while the values stay is refused, and what a graph of its own allows in f works."""

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from revdeq import (
    GradientError,
    ImplicitAdjoint,
    PhantomAdjoint,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)


ADJOINTS = [ReversibleAdjoint(), ReversibleAdjoint(segment=1), ReversibleAdjoint(segment=2)]
Step = Callable[[torch.Tensor, int], torch.Tensor]


class Reversed(torch.autograd.Function):
    """The identity, with a gradient that is scaled."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return -ctx.scale * grad, None


def detached(h: torch.Tensor, call: int) -> torch.Tensor:
    return h.detach() if call > 9 else h


def annealed(h: torch.Tensor, call: int) -> torch.Tensor:
    return h.detach() + 0.9**call * (h - h.detach())


def interpolated(h: torch.Tensor, call: int) -> torch.Tensor:
    return torch.lerp(h.detach(), h, 0.9**call)


def reversed_with_a_scale(h: torch.Tensor, call: int) -> torch.Tensor:
    return Reversed.apply(h, 0.9**call)


def with_another_power(h: torch.Tensor, call: int) -> torch.Tensor:
    return h.detach() * (h / h.detach()) ** (1.0 + call)


class Scheduled(torch.autograd.Function):
    """The identity, with a gradient that is scaled by what it is given, of any type."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: Any) -> torch.Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scale = ctx.scale[0] if isinstance(ctx.scale, tuple | dict) else ctx.scale
        return grad * scale, None


def scheduled_in_numpy(h: torch.Tensor, call: int) -> torch.Tensor:
    return Scheduled.apply(h, np.float64(1.0 / call))


def scheduled_in_a_tuple(h: torch.Tensor, call: int) -> torch.Tensor:
    return Scheduled.apply(h, (1.0 / call,))


def scheduled_in_a_tensor(h: torch.Tensor, call: int) -> torch.Tensor:
    return Scheduled.apply(h, torch.full((4,), 1.0 / call))


def scaled_by_a_tensor(h: torch.Tensor, call: int) -> torch.Tensor:
    return h.detach() + (h - h.detach()) * torch.full((4,), 1.0 / call)


def masked(h: torch.Tensor, call: int) -> torch.Tensor:
    return torch.where(torch.arange(4) < call % 3, h, h.detach())


def straight_through_another_part(h: torch.Tensor, call: int) -> torch.Tensor:
    part = h.chunk(2, -1)[call % 2]
    return h.detach() + torch.cat([part - part.detach()] * 2, -1)


def rolled(h: torch.Tensor, call: int) -> torch.Tensor:
    turned = h.roll(call % 3, -1)
    return h + (turned - turned.detach())


def weighted_in_a_product(h: torch.Tensor, call: int) -> torch.Tensor:
    part = torch.mv(h, torch.full((4,), 1.0 / call, dtype=h.dtype))[:, None]
    return h + (part - part.detach())


def scheduled_in_a_mapping(h: torch.Tensor, call: int) -> torch.Tensor:
    return Scheduled.apply(h, {0: 1.0 / call})


ADAPTERS = [torch.zeros(4, requires_grad=True) for _ in range(2)]


def with_another_adapter(h: torch.Tensor, call: int) -> torch.Tensor:
    return h + ADAPTERS[call % 2] * h.detach()


def calling(step: Step) -> Any:
    """Return a map that counts its calls, and hands the count to `step`, whose value does not depend on it."""
    calls: list[int] = []

    def function(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return torch.tanh(0.4 * step(z + 2.0, len(calls)) + x)

    return function


CHANGING = [
    *(detached, annealed, interpolated, reversed_with_a_scale, with_another_power),
    *(scheduled_in_numpy, scheduled_in_a_tuple, scheduled_in_a_tensor, scaled_by_a_tensor, masked),
    *(straight_through_another_part, rolled, with_another_adapter, weighted_in_a_product, scheduled_in_a_mapping),
]


@pytest.mark.parametrize(
    ("step", "adjoint"),
    [
        *itertools.product(CHANGING, ADJOINTS),
        # These differentiate at one state alone, where the last evaluation of the forward pass is the one to repeat.
        *itertools.product([annealed, interpolated, reversed_with_a_scale], [ImplicitAdjoint(), PhantomAdjoint()]),
    ],
    ids=lambda given: getattr(given, "__name__", repr(given)),
)
def test_a_derivative_that_a_counter_changes_is_refused(step: Step, adjoint: Any):
    x = torch.linspace(-1.0, 1.0, 8).reshape(2, 4).requires_grad_()
    found = solve(calling(step), torch.zeros(2, 4), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=8)
    with pytest.raises(GradientError, match="the derivative of function does not repeat: evaluation"):
        found.z1.sum().backward()


@pytest.mark.parametrize("step", CHANGING)
def test_a_derivative_that_stays_is_that_of_plain_autograd(agree, step: Step):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    agree(
        lambda z, x: torch.tanh(0.4 * step(z + 2.0, 4) + x), torch.zeros_like(x), x, (x,), max_steps=6, tolerance=1e-14
    )


@pytest.mark.parametrize("moved", ["scale", "training"])
def test_what_moves_the_derivative_between_the_passes_is_refused(moved: str):
    class Annealed(nn.Module):
        scale = 0.5

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            h = z.detach() + self.scale * (z - z.detach()) if self.training else z
            return torch.tanh(0.4 * h + x)

    cell, x = Annealed(), torch.ones(2, 4, requires_grad=True)
    found = solve(cell, torch.zeros(2, 4), x, solver=Reversible(0.8), max_steps=5)
    if moved == "scale":
        cell.scale = 0.25
    else:
        cell.eval()
    with pytest.raises(GradientError, match="the derivative of function does not repeat"):
        found.z1.sum().backward()


def test_a_branch_that_the_data_decide_is_no_other_derivative(agree):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    weight = torch.full((4, 4), 0.1, dtype=torch.float64, requires_grad=True)

    def routed(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ weight + x) if float(z.detach().norm()) < 0.5 else torch.tanh(0.3 * z + x).sin()

    agree(routed, torch.zeros_like(x), x, (x, weight), max_steps=6, tolerance=1e-14)


def test_a_leaf_that_f_makes_for_itself_is_nobodys(agree):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    weight = torch.full((4, 4), 0.1, dtype=torch.float64, requires_grad=True)

    def forced(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            place = z.detach().requires_grad_()
            (force,) = torch.autograd.grad(torch.tanh(place @ weight).sum(), place, create_graph=True)
        return 0.3 * torch.tanh(z) + 0.1 * force + x

    agree(forced, torch.zeros_like(x), x, (x, weight), max_steps=5, tolerance=1e-14)


def test_hooks_that_f_sets_on_what_it_computes_act_on_the_gradient(agree):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()

    def clipped(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = 0.4 * z + x
        h.retain_grad()
        h.register_hook(lambda grad: grad.clamp(-0.05, 0.05))
        return torch.tanh(h)

    agree(clipped, torch.zeros_like(x), x, (x,), max_steps=6, tolerance=1e-14)


def test_experts_behind_a_bound_method_get_their_gradients(agree):
    class Experts:
        def __init__(self) -> None:
            self.held = [torch.full((4,), 0.1 * (i + 1), dtype=torch.float64, requires_grad=True) for i in range(300)]

        def apply(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            chosen = int(z.detach().abs().sum() * 100) % len(self.held)
            return torch.tanh(0.5 * z * self.held[chosen] + x)

    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    experts = Experts()
    agree(experts.apply, torch.zeros_like(x), x, (x, *experts.held), max_steps=6, tolerance=1e-14)


class FromFirstBatch(nn.Module):
    """A normalisation that takes its parameters from the first batch that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.register_buffer("done", torch.tensor(0))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if not self.done:
            self.bias.data.copy_(-(z + x).detach().mean(0))
            self.done.fill_(1)
        return torch.tanh(0.4 * (z + x + self.bias))


@pytest.mark.parametrize("adjoint", [*ADJOINTS, ImplicitAdjoint(), PhantomAdjoint()], ids=repr)
def test_a_layer_that_takes_its_parameters_from_the_first_batch_takes_them_once(adjoint: Any):
    cell, x = FromFirstBatch(), torch.linspace(-1.0, 3.0, 8, dtype=torch.float64).reshape(2, 4)
    found = solve(cell, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=30)
    assert torch.equal(cell.bias.detach(), -x.mean(0))
    assert bool(cell.done)
    again = solve(cell, torch.zeros_like(x), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=30)
    assert torch.equal(found.z1, again.z1)
    found.z1.sum().backward()
    assert torch.equal(cell.bias.detach(), -x.mean(0))
    first, cell.bias.grad = cell.bias.grad, None
    again.z1.sum().backward()
    assert first is not None
    assert cell.bias.grad is not None
    assert torch.equal(first, cell.bias.grad)


def test_a_function_that_writes_into_a_parameter_at_every_evaluation_is_refused():
    weight = torch.ones(4, requires_grad=True)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        weight.data.mul_(0.5)
        return torch.tanh(weight * z + x)

    with pytest.raises(ValueError, match="writes into a trainable tensor"):
        solve(f, torch.zeros(2, 4), torch.ones(2, 4), max_steps=3)


def test_inputs_that_f_returns_as_they_are_leave_the_same_graph(agree):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    start = {"a": torch.zeros_like(x), "b": torch.zeros_like(x)}
    weight = torch.full_like(x, 0.3).requires_grad_()

    def f(z: dict[str, torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": x, "b": torch.tanh(z["a"] * weight + z["b"] * x)}

    agree(f, start, x, (x, weight), max_steps=4, tolerance=1e-14)
    agree(lambda z, x: {"a": weight, "b": z["a"]}, start, x, (x, weight), max_steps=4, tolerance=1e-14)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
@pytest.mark.parametrize("how", ["hook", "backward"])
def test_what_f_does_in_its_backward_is_done_once_an_evaluation(adjoint: Any, how: str):
    # In float64 at beta .9 a segment of twelve steps cannot be undone to the bit.
    adjoint = ReversibleAdjoint(segment=12) if adjoint.segment == 2 else adjoint
    weight = torch.linspace(-0.2, 0.2, 16, dtype=torch.float64).reshape(4, 4).requires_grad_()
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4)
    seen: list[float] = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: torch.Tensor) -> torch.Tensor:
            return h.view_as(h)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            seen.append(float(grad.norm()))
            return grad

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = z @ weight
        if how == "hook":
            h.register_hook(lambda grad: seen.append(float(grad.norm())))
        else:
            h = Counted.apply(h)
        return torch.tanh(h + x)

    counts: list[list[float]] = []
    for used in (adjoint, UnrolledAdjoint()):
        seen.clear()
        solve(f, torch.zeros_like(x), x, solver=Reversible(0.9), adjoint=used, max_steps=12).z1.sum().backward()
        counts.append(sorted(seen))
    assert len(counts[0]) == 24
    assert counts[0] == pytest.approx(counts[1], rel=1e-12)


def test_noise_that_a_hook_draws_beside_dropout_goes_on(agree):
    drawn: list[float] = []
    x = torch.linspace(-1.0, 1.0, 8).reshape(2, 4).requires_grad_()

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = torch.nn.functional.dropout(0.4 * z, 0.5) + x
        h.register_hook(lambda grad: drawn.append(float(torch.randn(()))))
        return torch.tanh(h)

    solve(f, torch.ones_like(x), x, solver=Reversible(0.8), max_steps=4).z1.sum().backward()
    assert len(set(drawn)) == 8


def test_modules_made_within_f_are_nobodys(agree):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    layer = nn.Linear(4, 4).double()

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.3 * copy.deepcopy(layer)(z) + 0.3 * layer(z) + x)

    agree(f, torch.zeros_like(x), x, (x, *layer.parameters()), max_steps=5, tolerance=1e-14)


def test_branches_in_threads_and_changes_in_place_within_transforms_work(agree):
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    left, right = (torch.full((4, 4), 0.1 * i, dtype=torch.float64, requires_grad=True) for i in (1, 2))

    def parallel(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        with ThreadPoolExecutor(2) as pool:
            a, b = pool.map(lambda weight: z @ weight, [left, right])
        return torch.tanh(a + b + x)

    def mapped(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda z, x: (z @ left).add_(x).tanh())(z, x)

    agree(parallel, torch.zeros_like(x), x, (x, left, right), max_steps=5, tolerance=1e-14)
    agree(mapped, torch.zeros_like(x), x, (x, left), max_steps=5, tolerance=1e-14)


def test_a_counter_of_operations_that_hangs_hooks_on_modules_keeps_nothing():
    # Its hooks hold the graphs of all evaluations in cycles, which no collector sees: nobody's tensors.
    cell = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4)

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return 0.4 * self.cell(z) + x

    found: list[list[torch.Tensor | None]] = []
    for adjoint in (ReversibleAdjoint(), UnrolledAdjoint()):
        with FlopCounterMode(display=False) as counter:
            solve(Cell(), torch.zeros_like(x), x, adjoint=adjoint, max_steps=3).z1.square().sum().backward()
        assert counter.get_total_flops() > 0
        found.append([t.grad for t in cell.parameters()])
        for t in cell.parameters():
            t.grad = None
    torch.testing.assert_close(*found, rtol=1e-13, atol=1e-15)
