"""Jacobian regularisation: the estimate, its derivative, and what it leaves alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import revdeq._estimate
from revdeq import Reversible, ReversibleAdjoint, solve
from revdeq.nn import Dense, Transformer, jacobian_penalty


def exact(function: Callable[..., torch.Tensor], z: torch.Tensor, x: Any) -> torch.Tensor:
    def at_x(z: torch.Tensor) -> torch.Tensor:
        return function(z, x)

    jacobian: Any = torch.autograd.functional.jacobian(at_x, z, create_graph=True)
    return jacobian.square().sum() / z.numel()


def test_the_estimate_is_unbiased():
    cell = Dense(6, dtype=torch.float64)
    z, x = torch.randn(2, 3, 6, dtype=torch.float64)
    found = torch.stack([jacobian_penalty(cell, z, x, samples=50) for _ in range(40)]).detach()
    wanted = float(exact(cell, z, x).detach())
    error = float(found.std() / 40**0.5)
    assert abs(float(found.mean()) - wanted) <= 4 * error  # four standard errors of the mean
    assert error <= 0.02 * wanted


def test_its_derivative_is_that_of_the_norm():
    cell = Dense(3, dtype=torch.float64)
    z, x = torch.randn(2, 1, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    penalties = [jacobian_penalty(cell, z, x, samples=200, generator=generator) for _ in range(10)]
    got = torch.autograd.grad(torch.stack(penalties).mean(), cell.state.weight)[0]
    wanted = torch.autograd.grad(exact(cell, z, x), cell.state.weight)[0]
    assert float((got - wanted).norm() / wanted.norm()) <= 0.1  # of 2000 samples


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_fused_attention_is_differentiated_twice(causal: bool, padded: bool):
    cell = Transformer(4, 2, hidden=4, causal=causal, dtype=torch.float64)
    z, x = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    args: Any = (x, torch.tensor([[False, False, True]])) if padded else x
    generator = torch.Generator().manual_seed(1)
    penalties = [jacobian_penalty(cell, z, args, samples=200, generator=generator) for _ in range(10)]
    got = torch.autograd.grad(torch.stack(penalties).mean(), cell.query_key_value.weight)[0]
    with sdpa_kernel(SDPBackend.MATH):
        wanted = torch.autograd.grad(exact(cell, z, args), cell.query_key_value.weight)[0]
        jacobian: Any = torch.autograd.functional.jacobian(lambda z: cell(z, args), z)
    assert float((got - wanted).norm() / wanted.norm()) <= 0.1  # of 2000 samples
    norm = float(torch.linalg.matrix_norm(jacobian.reshape(12, 12), 2))
    assert abs(revdeq.lipschitz_constant(cell, z, args, rtol=1e-3).value - norm) <= 1e-3 * norm
    assert torch.backends.cuda.flash_sdp_enabled()


def test_estimators_and_penalty_stand_at_the_top():
    assert revdeq.jacobian_penalty is jacobian_penalty
    assert revdeq.extreme_eigenvalues is revdeq._estimate.extreme_eigenvalues
    assert revdeq.lipschitz_constant is revdeq._estimate.lipschitz_constant


def test_it_is_differentiable_in_args_and_not_in_z():
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    by_x, by_z = torch.autograd.grad(jacobian_penalty(lambda z, a: torch.tanh(z * a), z, x), (x, z), allow_unused=True)
    assert bool(by_x.any())
    assert by_z is None


def test_a_training_step_adds_it_to_the_loss():
    cell = Dense(4, contraction_constant=0.9)
    x = torch.randn(8, 4)
    optimiser = torch.optim.SGD(cell.parameters(), lr=0.05)
    before = float(exact(cell, torch.zeros(8, 4), x).detach())
    for _ in range(40):
        found = solve(cell, cell.start(x), x, solver=Reversible(0.5), adjoint=ReversibleAdjoint(), max_steps=8)
        loss = 0 * found.z1.sum() + jacobian_penalty(cell, found.z1, x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(exact(cell, torch.zeros(8, 4), x).detach()) < 0.5 * before


def test_without_grad_mode_it_is_a_number():
    cell = Dense(4)
    with torch.no_grad():
        found = jacobian_penalty(cell, torch.zeros(2, 4), torch.zeros(2, 4))
    assert not found.requires_grad
    assert float(found) > 0


def test_trees_and_functions_that_ignore_z():
    z = {"a": torch.randn(2, 3), "b": torch.randn(2, 1, dtype=torch.float64)}
    found = jacobian_penalty(lambda z, a: {"a": 2 * z["a"], "b": torch.ones_like(z["b"])}, z, samples=2000)
    assert found.dtype == torch.float64
    assert abs(float(found) - 4 * 6 / 8) <= 0.1
    assert float(jacobian_penalty(lambda z, a: torch.ones_like(z), torch.zeros(2, 3))) == 0.0
    assert float(jacobian_penalty(lambda z, a: z, torch.zeros(0, 3))) == 0.0


def test_a_generator_makes_it_repeatable():
    cell = Dense(4)
    z = torch.randn(2, 4)
    state = torch.get_rng_state()
    numbers = [jacobian_penalty(cell, z, z, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*numbers)
    assert torch.equal(torch.get_rng_state(), state)


def untyped(kind: Any) -> Any:
    """Return `kind`, to be called as somebody without a type checker would."""
    return kind


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: untyped(jacobian_penalty)(3, torch.zeros(1)), TypeError, "function is a int"),
        (lambda: untyped(jacobian_penalty)(torch.tanh, ()), ValueError, "z has no tensor"),
        (
            lambda: untyped(jacobian_penalty)(torch.tanh, torch.zeros(1, dtype=torch.int64)),
            TypeError,
            "real floating dtype",
        ),
        (lambda: untyped(jacobian_penalty)(torch.tanh, torch.zeros(1), samples=0), ValueError, "samples is 0"),
        (lambda: untyped(jacobian_penalty)(torch.tanh, torch.zeros(1), samples=1.0), TypeError, "samples is 1.0"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert str(caught.value).endswith(".")
