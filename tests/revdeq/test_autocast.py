"""Autocast and the numerical switches hold in backward as they held in forward, and the weights' casts do no harm."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import ImplicitAdjoint, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.environment import Flags


class Cell(nn.Module):
    """A small cell whose matrix product autocast runs in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.dtypes: list[torch.dtype] = []

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        product = self.linear(z)
        self.dtypes.append(product.dtype)
        return torch.tanh(0.5 * product.float() + x)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))


@pytest.mark.parametrize("during_backward", [False, True])
def test_replay_computes_in_the_dtype_of_the_forward_pass(during_backward: bool):
    cell, x = Cell(), torch.randn(4, 8, requires_grad=True)
    grads = []
    for adjoint in (UnrolledAdjoint(), ReversibleAdjoint()):
        cell.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = solve(cell, torch.zeros(4, 8), x, solver=Reversible(0.8), adjoint=adjoint, max_steps=4)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=during_backward):
            found.z1.sum().backward()
        assert cell.linear.weight.grad is not None
        grads.append(cell.linear.weight.grad.clone())
        if found.health is not None:
            assert found.health.replay_error == 0.0
    assert set(cell.dtypes) == {torch.bfloat16}
    # Parts are summed in float32 here and by autograd in the order of the graph: rounded to bfloat16 each.
    assert relative(grads[1], grads[0]) < 2.0**-7


def test_autocast_around_backward_alone_does_not_reach_the_replay():
    cell, x = Cell(), torch.randn(4, 8, requires_grad=True)
    found = solve(cell, torch.zeros(4, 8), x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found.z1.sum().backward()
    assert set(cell.dtypes) == {torch.float32}
    assert found.health is not None
    assert found.health.replay_error == 0.0


def test_function_may_return_the_dtype_that_autocast_chose():
    linear, x = nn.Linear(8, 8), torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = solve(
            lambda z, a: linear(0.5 * z + a),
            torch.zeros(4, 8),
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=3,
        )
    assert found.z1.dtype == torch.float32
    found.z1.sum().backward()
    assert linear.weight.grad is not None
    assert bool(torch.isfinite(linear.weight.grad).all())


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ImplicitAdjoint(rtol=1e-2)], ids=repr)
@pytest.mark.parametrize("before", [False, True])
def test_weight_used_outside_the_solve_too_keeps_its_gradient(adjoint: Any, before: bool):
    linear, x = nn.Linear(8, 8), torch.randn(4, 8)

    def run(adjoint: Any) -> torch.Tensor:
        linear.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            # The cast of the weight is cached for the whole region: made with a graph outside, without one inside.
            early = linear(x).sum() if before else 0.0
            found = solve(
                lambda z, a: torch.tanh(0.3 * linear(z).float() + a),
                torch.zeros(4, 8),
                x,
                solver=Reversible(0.8),
                adjoint=adjoint,
                max_steps=24,
            )
            late = linear(x).sum()
        (found.z1.sum() + early + 3.0 * late).backward()
        assert linear.weight.grad is not None
        return linear.weight.grad.clone()

    assert relative(run(adjoint), run(UnrolledAdjoint())) < 2.0**-5


def test_autocast_state_is_left_as_it_was():
    cell, x = Cell(), torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        before = Flags.now(["cpu"])
        found = solve(cell, torch.zeros(4, 8), x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
        found.z1.sum().backward()
        assert Flags.now(["cpu"]) == before
        assert not torch.is_autocast_cache_enabled()
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("switch", ["deterministic", "default dtype", "sdp", "matmul precision"])
def test_switches_of_the_forward_pass_hold_in_backward_and_are_put_back(switch: str):
    def read() -> Any:
        return {
            "deterministic": torch.are_deterministic_algorithms_enabled,
            "default dtype": torch.get_default_dtype,
            "sdp": torch.backends.cuda.flash_sdp_enabled,
            "matmul precision": torch.get_float32_matmul_precision,
        }[switch]()

    def write(value: Any) -> None:
        {
            "deterministic": torch.use_deterministic_algorithms,
            "default dtype": torch.set_default_dtype,
            "sdp": torch.backends.cuda.enable_flash_sdp,
            "matmul precision": torch.set_float32_matmul_precision,
        }[switch](value)

    before = read()
    other = {"deterministic": True, "default dtype": torch.float64, "sdp": not before, "matmul precision": "high"}[
        switch
    ]
    seen: list[Any] = []

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        seen.append(read())
        return 0.5 * torch.tanh(z + a)

    x = torch.randn(2, 3, requires_grad=True)
    try:
        write(other)
        found = solve(function, torch.zeros(2, 3), x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
        write(before)
        found.z1.sum().backward()
        assert seen == [other] * 8
        assert read() == before
    finally:
        write(before)


def test_solve_works_after_the_newer_precision_switches_were_set():
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return  # torch before 2.9 has only the older names
    before = (backends.cuda.matmul.fp32_precision, backends.cudnn.rnn.fp32_precision)
    x = torch.randn(2, 3, requires_grad=True)
    try:
        # From here on, reading torch.backends.cudnn.allow_tf32 raises.
        backends.cuda.matmul.fp32_precision, backends.cudnn.rnn.fp32_precision = "tf32", "ieee"
        found = solve(
            lambda z, a: 0.5 * torch.tanh(z + a),
            torch.zeros(2, 3),
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=2,
        )
        found.z1.sum().backward()
    finally:
        backends.cuda.matmul.fp32_precision, backends.cudnn.rnn.fp32_precision = before
    assert x.grad is not None
