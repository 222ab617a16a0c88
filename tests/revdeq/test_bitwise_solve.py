"""Bitwise reversal through `solve`: the states and cotangents of the stored iteration, to the bit."""

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from revdeq import (
    Adjoint,
    Bitwise,
    CheckpointedAdjoint,
    GradientError,
    Health,
    ImplicitAdjoint,
    Result,
    Reversible,
    ReversibleAdjoint,
    SolveError,
    UnrolledAdjoint,
    solve,
)
from revdeq.arithmetic import tape_size


BETAS = [1.0 - sign / m for m in (2, 3, 4, 5, 8) for sign in (1, -1)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class Dense(nn.Module):
    """z -> tanh(W z + x), W of a given size."""

    def __init__(self, seed: int, width: int, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter((normal(seed, width, width) * scale / math.sqrt(width)).to(dtype))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ self.weight + x)


def cell(z: Any, x: Any) -> Any:
    """A contraction with a bounded derivative, for states of any shape."""
    return torch.tanh(z / 2 + x)


def leaves_of(
    f: Any,
    z0: torch.Tensor,
    x: torch.Tensor,
    beta: float,
    num_steps: int,
    adjoint: Adjoint,
    parameters: tuple[torch.Tensor, ...] = (),
    arithmetic: Any = "bitwise",
    **how: Any,
) -> tuple[Any, list[torch.Tensor]]:
    """z1, y1 and the gradients of z0, x and the parameters under one fixed pair of cotangents."""
    z0, x = z0.detach().requires_grad_(), x.detach().requires_grad_()
    solver = Reversible(beta, arithmetic=arithmetic)
    solution: Any = solve(f, z0, x, solver=solver, adjoint=adjoint, max_steps=num_steps, **how)
    shape = tuple(z0.shape)
    loss = (solution.z1 * normal(1, *shape, dtype=z0.dtype)).sum() + (
        solution.y1 * normal(2, *shape, dtype=z0.dtype)
    ).sum()
    grads = torch.autograd.grad(loss, (z0, x, *parameters))
    return solution, [solution.z1.detach(), solution.y1.detach(), *grads]


def bitwise_health(solution: Any) -> Health:
    assert solution.health is not None
    return solution.health


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    st.sampled_from(BETAS),
    st.sampled_from(DTYPES),
    st.integers(1, 40),
    st.integers(0, 2**16),
    st.sampled_from([0.2, 0.9, 2.0]),
    st.booleans(),
)
def test_states_and_cotangents_equal_those_of_the_stored_iteration_to_the_bit(
    beta, dtype, num_steps, seed, scale, from_zero
):
    f = Dense(seed, 6, scale, dtype)
    z0 = normal(seed + 1, 2, 6, dtype=dtype) * (0 if from_zero else 1)
    x = normal(seed + 2, 2, 6, dtype=dtype)
    solution, reversed_ = leaves_of(f, z0, x, beta, num_steps, ReversibleAdjoint(), (f.weight,))
    _, stored = leaves_of(f, z0, x, beta, num_steps, UnrolledAdjoint(), (f.weight,))
    assert bitwise_health(solution).verified
    for got, expected in zip(reversed_[:3], stored[:3], strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(reversed_[3:], stored[3:], strict=True):
        # Sums over 2N evaluations: the same addends, stored sums rounded once an addend.
        u, addends = torch.finfo(dtype).eps / 2, 2 * num_steps + 1
        assert not bool(((got - expected).norm() > 2 * addends * u * (expected.norm() + got.norm())).any())


@pytest.mark.parametrize("arithmetic", ["floating", "bitwise"])
def test_only_bitwise_arithmetic_returns_the_start_of_a_lossy_iteration(arithmetic):
    # beta 0.8 on softplus loses everything within 64 float64 steps (M1): the plain arithmetic fails this test.
    z0, x = normal(3, 2, 4), normal(4, 2, 4)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.softplus(z + x) / 2

    # Bitwise arithmetic stores no state in between, so plain reversal is what it is compared with.
    adjoint = ReversibleAdjoint(verify=False) if arithmetic == "floating" else ReversibleAdjoint()
    solution, grads = leaves_of(f, z0, x, 0.8, 64, adjoint, arithmetic=arithmetic)
    _, stored = leaves_of(f, z0, x, 0.8, 64, UnrolledAdjoint(), arithmetic=arithmetic)
    same = torch.equal(grads[2], stored[2])
    assert bitwise_health(solution).verified == same == (arithmetic == "bitwise")


def test_unchecked_reversal_never_claims_to_be_verified_even_where_nothing_is_lost():
    z0 = torch.zeros(1, 2)

    def constant(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0 * z + x

    solution, _ = leaves_of(constant, z0, z0, 0.5, 2, ReversibleAdjoint(verify=False), arithmetic="floating")
    health = bitwise_health(solution)
    assert health.reconstruction_error == 0.0
    assert health.verified is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_parameter_sums_are_at_least_as_precise_as_the_stored_ones(dtype):
    f, z0, x = Dense(5, 8, 0.9, dtype), normal(6, 4, 8, dtype=dtype), normal(7, 4, 8, dtype=dtype)
    addends: list[torch.Tensor] = []

    def watch(grad: torch.Tensor) -> None:
        addends.append(grad.to(torch.float64))

    def watched(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        weight = f.weight.view_as(f.weight)
        weight.register_hook(watch)
        return torch.tanh(z @ weight + x)

    _, reversed_ = leaves_of(watched, z0, x, 0.75, 40, ReversibleAdjoint(), (f.weight,))
    assert len(addends) == 80
    exact = torch.stack(addends).sum(0)
    _, stored = leaves_of(f, z0, x, 0.75, 40, UnrolledAdjoint(), (f.weight,))
    error, stored_error = (reversed_[-1] - exact).norm(), (stored[-1] - exact).norm()
    assert not error > stored_error
    # One rounding of the sum, and 80 in the float32 accumulator.
    u = torch.finfo(dtype).eps / 2 + 80 * 2.0**-24
    assert not error > u * sum(part.norm() for part in addends)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.5, 0.8, 1.25])
def test_cotangents_equal_the_stored_ones_where_f_uses_its_state_more_than_once(beta, dtype):
    # Sums of three and more terms depend on their order, and f hands back one for every use of z.
    weights = [(normal(seed, 8, 8) / 4).to(dtype) for seed in range(3)]
    x, cotangent = normal(7, 4, 8, dtype=dtype), normal(8, 4, 8, dtype=dtype)

    def mixed(z: Any, _: Any) -> Any:
        q, k, v = (z @ weight for weight in weights)
        return torch.softmax(q @ k.T, dim=-1) @ v + torch.sin(z) / 4 + x

    found: list[torch.Tensor] = []
    for adjoint in (ReversibleAdjoint(), UnrolledAdjoint()):
        z0 = normal(9, 4, 8, dtype=dtype).requires_grad_()
        solution: Any = solve(
            mixed, z0, (), solver=Reversible(beta, arithmetic="bitwise"), adjoint=adjoint, max_steps=12, throw=False
        )
        found += torch.autograd.grad([solution.z1, solution.y1], z0, [cotangent, cotangent])
    assert torch.equal(*found)


def test_a_layer_that_takes_other_kernels_without_a_graph_repeats_to_the_bit():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    z0, x = torch.zeros(2, 3, 8), normal(8, 2, 3, 8, dtype=torch.float32)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return layer(z + x) / 4

    solution, _ = leaves_of(f, z0, x, 0.75, 30, ReversibleAdjoint())
    assert bitwise_health(solution).verified
    assert bitwise_health(solution).replay_error == 0.0


def test_dropout_and_autocast_repeat_to_the_bit():
    layers = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.Tanh())

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return layers(z + x)

    z0, x = torch.zeros(2, 8), normal(9, 2, 8, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for autocast in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                solution, _ = leaves_of(f, z0, x, 0.8, 25, ReversibleAdjoint())
            assert bitwise_health(solution).verified


def test_samples_that_stop_by_themselves_are_undone_to_the_bit():
    f = Dense(10, 6, 0.9, torch.float32)
    sizes = torch.tensor([[1.0], [1e-3], [100.0], [0.0]])
    z0, x = normal(11, 4, 6, dtype=torch.float32) * sizes, normal(12, 4, 6, dtype=torch.float32) * sizes
    tolerance: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
    solution, reversed_ = leaves_of(f, z0, x, 0.75, 200, ReversibleAdjoint(), (f.weight,), **tolerance)
    other, stored = leaves_of(f, z0, x, 0.75, 200, UnrolledAdjoint(), (f.weight,), **tolerance)
    assert len(set(solution.num_steps.tolist())) > 1
    assert solution.num_steps.min() == 0
    assert torch.equal(solution.num_steps, other.num_steps)
    assert bitwise_health(solution).verified
    for got, expected in zip(reversed_[:3], stored[:3], strict=True):
        assert torch.equal(got, expected)


def test_a_sample_does_not_depend_on_the_others_in_its_batch():
    def f(z, x):
        return torch.tanh(0.7 * z + x)

    z0, x = normal(13, 3, 5) * torch.tensor([[1.0], [1e6], [1e-6]]), normal(14, 3, 5)
    _, together = leaves_of(f, z0, x, 0.8, 20, ReversibleAdjoint())
    for i in range(3):
        _, alone = leaves_of(f, z0[i : i + 1], x[i : i + 1], 0.8, 20, ReversibleAdjoint())
        assert torch.equal(together[0][i], alone[0][0])
        assert torch.equal(together[1][i], alone[1][0])


def test_trees_of_several_dtypes_and_shapes_are_undone_to_the_bit():
    def f(z, args):
        a, b = z["a"], z["b"]
        return {"a": torch.tanh(0.5 * a + b.float().mean(dim=1, keepdim=True)), "b": torch.sin(b / 2 + a.sum().to(b))}

    z0 = {"a": normal(15, 2, 3, dtype=torch.float32), "b": normal(16, 2, 4, 1, dtype=torch.bfloat16)}
    z0["b"] = z0["b"].reshape(2, 4)
    results = []
    for adjoint in (ReversibleAdjoint(), UnrolledAdjoint()):
        start = {name: leaf.clone().requires_grad_() for name, leaf in z0.items()}
        solver = Reversible(1.25, arithmetic="bitwise")
        solution: Any = solve(f, start, solver=solver, adjoint=adjoint, max_steps=30)
        loss = solution.z1["a"].sum() + solution.y1["b"].float().sum()
        results.append([*solution.z1.values(), *torch.autograd.grad(loss, tuple(start.values()))])
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 0), (1, 1), (3, 2, 2)])
def test_every_shape_of_state_is_undone_to_the_bit(shape):
    z0, x = normal(17, *shape), normal(18, *shape)
    solution, got = leaves_of(cell, z0, x, 2 / 3, 20, ReversibleAdjoint())
    _, expected = leaves_of(cell, z0, x, 2 / 3, 20, UnrolledAdjoint())
    assert bitwise_health(solution).verified
    assert all(torch.equal(a, b) for a, b in zip(got[:3], expected[:3], strict=True))


def test_two_backward_passes_of_one_graph_return_the_same_bits():
    f, z0, x = Dense(19, 5, 0.8, torch.float32), normal(20, 2, 5, dtype=torch.float32), normal(21, 2, 5).float()
    x.requires_grad_()
    solver = Reversible(0.8, arithmetic="bitwise")
    z1 = solve(f, z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=30).z1
    first, second = (torch.autograd.grad(z1.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("adjoint", [CheckpointedAdjoint(), ImplicitAdjoint(rtol=1e-6, atol=1e-9, max_steps=100)])
def test_other_adjoints_work_with_integer_states(adjoint):
    z0, x = torch.zeros(2, 3, dtype=torch.float64), normal(22, 2, 3)
    x.requires_grad_()
    grads = []
    for chosen in (adjoint, UnrolledAdjoint()):
        solver = Reversible(0.75, arithmetic="bitwise")
        z1 = solve(cell, z0, x, solver=solver, adjoint=chosen, max_steps=60).z1
        grads.append(torch.autograd.grad(z1.sum(), x)[0])
    # Steps enough to converge to rounding, where the N-step and the implicit gradient agree to the tolerance above.
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(torch.__version__ < "2.13", reason="vmap of an older torch lacks views of another dtype")
def test_transforms_differentiate_through_the_rounding_as_identity():
    def f(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ w)

    def loss(weight: torch.Tensor, arithmetic: Any = "bitwise") -> torch.Tensor:
        solver = Reversible(0.75, arithmetic=arithmetic)
        start = torch.ones(2, 4, dtype=torch.float64)
        adjoint = UnrolledAdjoint()
        solution: Any = solve(f, start, weight, solver=solver, adjoint=adjoint, max_steps=4, throw=False)
        return solution.z1.square().sum()

    weights, tangent = normal(23, 3, 4, 4) / 4, normal(24, 4, 4)
    grads = torch.func.vmap(torch.func.grad(loss))(weights)
    # Integers of 2^-52 of the greatest component against float64: a few dozen roundings of 2^-50 in 4 steps.
    assert torch.allclose(grads[0], torch.func.grad(loss)(weights[0]), rtol=2.0**-44, atol=2.0**-44)
    assert torch.allclose(grads[0], torch.func.grad(loss)(weights[0], "floating"), rtol=2.0**-44)
    _, forward, *_ = torch.func.jvp(loss, (weights[0],), (tangent,))
    assert torch.allclose(forward, (grads[0] * tangent).sum(), rtol=2.0**-44)


@pytest.mark.parametrize(("beta", "num_steps"), [(0.5, 30), (0.8, 7), (1.25, 12), (2 / 3, 5), (0.875, 9)])
def test_the_saved_bytes_are_the_states_and_the_predicted_tape(beta, num_steps):
    saved: list[torch.Tensor] = []
    z0, x = torch.zeros(3, 48), normal(25, 3, 48, dtype=torch.float32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        solver = Reversible(beta, arithmetic="bitwise")
        solve(cell, z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=num_steps)
    tape = sum(t.numel() for t in saved if t.dtype == torch.uint8)
    free = Bitwise().free_steps(beta, torch.float32)
    assert tape == 3 * tape_size(beta, 48, num_steps, free)
    others = sum(t.numel() * t.element_size() for t in saved if t.dtype != torch.uint8)
    integers_and_values = 2 * (8 + 8) * 3 * 48
    assert others <= integers_and_values + 4 * 4 * 3 * 48 + 2 * 8 * 3


def test_a_function_that_does_not_repeat_is_named():
    calls = [0]

    def f(z, x):
        calls[0] += 1
        return torch.tanh(z / 2 + x) + calls[0] * 2.0**-30

    z0, x = torch.zeros(2, 3, dtype=torch.float64), normal(26, 2, 3)
    seen: list[Health] = []
    with pytest.raises(GradientError, match="function does not repeat to the bit"):
        leaves_of(f, z0, x, 0.75, 6, ReversibleAdjoint(on_health=seen.append))
    assert seen == []


def test_an_overflow_is_raised_and_never_wrapped():
    z0, x = torch.ones(2, 3, dtype=torch.float64), torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(2, 3)

    def f(z, x):
        return 3 * z * x

    solver = Reversible(0.5, arithmetic="bitwise")
    with pytest.raises(SolveError, match="overflowed") as raised:
        solve(f, z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=60)
    assert raised.value.result is Result.OUT_OF_RANGE
    x = x.clone().requires_grad_()
    solution = solve(f, z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=60, throw=False)
    assert [Result.from_code(int(c)) for c in solution.sample_results] == [Result.OUT_OF_RANGE, Result.STEPS_COMPLETED]
    assert torch.isfinite(solution.z1).all(dim=1).tolist() == [False, True]
    with pytest.raises(GradientError, match="sample 0 is not finite, or left its range, and the loss depends on it"):
        torch.autograd.grad(solution.z1.sum(), x, retain_graph=True)
    (grad,) = torch.autograd.grad(solution.z1[1].sum(), x)
    assert torch.isfinite(grad).all()


def test_a_range_given_holds_what_the_chosen_one_does_not():
    z0 = torch.full((1, 2), 2.0**-20, dtype=torch.float64)

    def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 3 * z + x

    x = torch.full((1, 2), 1e4, dtype=torch.float64)
    grown: dict[str, Any] = {"adjoint": UnrolledAdjoint(), "max_steps": 30, "throw": False}
    small = solve(f, z0, x, solver=Reversible(0.5, arithmetic=Bitwise()), **grown)
    assert small.result is Result.OUT_OF_RANGE
    solver = Reversible(0.5, arithmetic=Bitwise(range=1e30))
    wide = solve(f, z0, x, solver=solver, **grown)
    assert wide.result is Result.STEPS_COMPLETED


def test_a_nan_is_reported_as_one():
    z0 = torch.zeros(1, 2)
    solver = Reversible(0.5, arithmetic="bitwise")
    with pytest.raises(SolveError) as raised:
        solve(cell, z0, math.nan, solver=solver, adjoint=ReversibleAdjoint(), max_steps=3)
    assert raised.value.result is Result.NONFINITE


def test_a_tape_beyond_its_memory_is_refused():
    z0, x = torch.zeros(2, 8), torch.zeros(2, 8, requires_grad=True)
    solver = Reversible(0.8, arithmetic=Bitwise(memory=100))
    with pytest.raises(ValueError, match="outgrow memory=100 bytes"):
        solve(cell, z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=20)
    with torch.no_grad():
        solve(cell, z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=20)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"beta": 0.7, "arithmetic": "bitwise"}, ValueError, "no bitwise form"),
        ({"beta": 0.5, "arithmetic": "exact"}, TypeError, "arithmetic is 'exact'"),
        ({"beta": 0.5, "arithmetic": "bitwise", "state_dtype": torch.float64}, ValueError, "states are integers"),
    ],
)
def test_a_reversible_solver_refuses_arithmetics_it_does_not_have(given, error, said):
    with pytest.raises(error, match=said):
        Reversible(**given)


@pytest.mark.nightly
@pytest.mark.parametrize("beta", [0.5, 0.8, 1.25])
def test_twenty_thousand_bfloat16_steps_are_undone_to_the_bit(beta):
    f, z0 = Dense(27, 4, 0.9, torch.bfloat16), normal(28, 2, 4, dtype=torch.bfloat16)
    x = normal(29, 2, 4, dtype=torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution, _ = leaves_of(f, z0, x, beta, 20_000, ReversibleAdjoint(), (f.weight,))
    assert bitwise_health(solution).verified
