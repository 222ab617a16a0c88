"""Autocast and the numerical switches hold in backward as they held in forward, and the weights' casts do no harm."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import (
    GMRES,
    Anderson,
    CheckpointedAdjoint,
    ImplicitAdjoint,
    PhantomAdjoint,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)
from revdeq._environment import Flags
from revdeq.nn import DEQ, Dense, MonotoneDEQ


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "make",
    [
        lambda: MonotoneDEQ(16),
        lambda: DEQ(Dense(16), adjoint=ImplicitAdjoint(), max_steps=60),
        lambda: DEQ(Dense(16), solver=Anderson(), rtol="auto", atol=0.0),
    ],
    ids=["monotone", "implicit", "accelerated"],
)
def test_layers_of_fixed_points_work_under_autocast_with_their_defaults(make: Any, dtype: torch.dtype):
    layer, x = make(), torch.randn(32, 16)
    found: list[torch.Tensor] = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            z1 = layer(x)
        z1.float().square().mean().backward()
        found.append(torch.cat([p.grad.reshape(-1) for p in layer.parameters()]))
        layer.zero_grad()
    # The adjoint equation stops at this tolerance, and what stopped it is amplified by 1 / (1 - 0.9) at most.
    assert relative(*found) <= 10 * torch.finfo(dtype).eps ** 0.75


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=lambda dtype: str(dtype)[6:]
)
def test_automatic_tolerance_is_that_of_the_dtype(dtype: torch.dtype):
    layer = MonotoneDEQ(8, dtype=dtype)
    solution = layer.solve(torch.randn(3, 8, dtype=dtype))
    value = layer.function(solution.z1, torch.zeros(3, 8, dtype=dtype))
    assert value.dtype == dtype
    assert solution.result.succeeded
    allowed = max(1e-5, torch.finfo(dtype).eps ** 0.75)
    # ||f(z)|| <= ||z|| + residual.
    assert bool((solution.residual <= 1.1 * allowed * solution.z1.double().norm(dim=1)).all())


ADJOINTS = [
    ReversibleAdjoint(),
    ReversibleAdjoint(segment=2),
    ImplicitAdjoint(),
    ImplicitAdjoint(solver=GMRES()),
    CheckpointedAdjoint(2),
    PhantomAdjoint(2),
    UnrolledAdjoint(),
]


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_an_overflow_lets_the_gradient_scaler_skip_the_step(adjoint: Any):
    layer, x = DEQ(Dense(16), adjoint=adjoint, max_steps=40), torch.randn(8, 16)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=1000)
    before = [p.detach().clone() for p in layer.parameters()]
    skipped = 0
    grads: Any = []
    for _ in range(24):
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            z1 = layer(x)
        scaler.scale(z1.float().square().sum()).backward()
        scaler.unscale_(optimiser)
        grads = [p.grad for p in layer.parameters()]
        scale = scaler.get_scale()
        scaler.step(optimiser)
        scaler.update()
        if scaler.get_scale() == scale:
            break
        skipped += 1
        assert all(torch.equal(p, b) for p, b in zip(layer.parameters(), before, strict=True))
    assert 0 < skipped < 24
    assert all(bool(torch.isfinite(g).all()) for g in grads)
    # At this scale the gradient is that of no scaler, up to the roundings of float16.
    with torch.no_grad():
        for p, b in zip(layer.parameters(), before, strict=True):
            p.copy_(b)
    layer.zero_grad()
    layer(x).square().sum().backward()
    for p, g in zip(layer.parameters(), grads, strict=True):
        assert p.grad is not None
        assert relative(g, p.grad) <= 0.05


@pytest.mark.parametrize("cotangent", [float("inf"), float("nan")])
@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_a_cotangent_that_is_not_finite_is_passed_through(adjoint: Any, cotangent: float):
    layer = DEQ(Dense(4), adjoint=adjoint, max_steps=60)
    (layer(torch.randn(3, 4)).sum() * cotangent).backward()
    assert all(p.grad is not None and not bool(torch.isfinite(p.grad).any()) for p in layer.parameters())


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**100])
def test_implicit_gradient_scales_with_its_cotangent_to_the_bit(scale: float):
    for adjoint in (ImplicitAdjoint(), ImplicitAdjoint(solver=GMRES()), ImplicitAdjoint(rtol=0.0, atol=1e-6)):
        cell, x, found = Dense(4), torch.randn(3, 4), []
        for by in (1.0, scale):
            scaled = adjoint if adjoint.atol == 0.0 else ImplicitAdjoint(rtol=0.0, atol=1e-6 * by)
            layer = DEQ(cell, adjoint=scaled, max_steps=60)
            (grad,) = torch.autograd.grad(layer(x).sum() * by, cell.state.weight)
            found.append(grad / by)
        assert torch.equal(*found)
