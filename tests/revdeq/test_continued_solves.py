"""A solve goes on where another one ended, and its gradients reach both states from which it starts."""

from typing import Any

import pytest
import torch

from revdeq import (
    CheckpointedAdjoint,
    ImplicitAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)


WEIGHT = torch.linspace(-0.3, 0.3, 16, dtype=torch.float64).reshape(4, 4)
ADJOINTS = [
    ReversibleAdjoint(),
    ReversibleAdjoint(segment=1),
    ReversibleAdjoint(segment=2),
    ReversibleAdjoint(segment=8),
    ReversibleAdjoint(verify=False),
    CheckpointedAdjoint(2),
]


def f(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(z @ WEIGHT.to(z.dtype) + x)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).reshape(2, 4)
    return torch.full_like(x, 0.1).requires_grad_(), x.requires_grad_()


@pytest.mark.parametrize("adjoint", [*ADJOINTS, UnrolledAdjoint()], ids=repr)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_two_solves_are_one_to_the_bit(adjoint: Any, first: int):
    z0, x = inputs()
    options: Any = {"solver": Reversible(0.8), "adjoint": adjoint}
    whole = solve(f, z0, x, max_steps=5, **options)
    half = solve(f, z0, x, max_steps=first, **options)
    found = solve(f, half.z1, x, y0=half.y1, max_steps=5 - first, **options)
    assert found.y1 is not None
    assert whole.y1 is not None
    assert torch.equal(found.z1, whole.z1)
    assert torch.equal(found.y1, whole.y1)
    got = torch.autograd.grad(found.z1.square().sum() + found.y1.sum(), (z0, x))
    wanted = torch.autograd.grad(whole.z1.square().sum() + whole.y1.sum(), (z0, x))
    for g, w in zip(got, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("stopping", [{"max_steps": 5}, {"max_steps": 60, "rtol": 1e-4, "atol": 0.0}], ids=["N", "tol"])
def test_each_state_at_the_start_has_its_own_gradient(adjoint: Any, dtype: torch.dtype, stopping: Any):
    z0, x = (t.detach().to(dtype).requires_grad_() for t in inputs())
    y0 = torch.linspace(0.5, -0.5, 8, dtype=dtype).reshape(2, 4).requires_grad_()
    found = []
    for how in (adjoint, UnrolledAdjoint()):
        solution = solve(f, z0, x, y0=y0, solver=Reversible(0.7), adjoint=how, **stopping)
        found.append((solution.z1.detach(), *torch.autograd.grad(solution.z1.square().sum(), (z0, y0, x))))
    bound = 20 * torch.finfo(dtype).eps
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=bound, atol=bound)
    assert not torch.equal(found[0][1], found[0][2])


def test_the_fixed_point_knows_nothing_of_either_start():
    z0, x = inputs()
    y0 = torch.full_like(z0, 0.3).requires_grad_()
    found = solve(f, z0, x, y0=y0, solver=Reversible(0.8), adjoint=ImplicitAdjoint(), max_steps=40)
    found.z1.sum().backward()
    assert z0.grad is None
    assert y0.grad is None
    assert x.grad is not None


def test_where_there_is_no_second_state_none_is_taken():
    z0, x = inputs()
    with pytest.raises(ValueError, match="has no second state"):
        solve(f, z0, x, y0=z0, solver=Relaxed(0.5))
    with pytest.raises(ValueError, match="from one state"):
        solve(f, z0, x, y0=z0, solver=Reversible(0.75, arithmetic="bitwise"))


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 4), [torch.zeros(2, 4)], 0.5], ids=str
)
def test_a_second_state_of_another_kind_is_refused(wrong: Any):
    z0, x = inputs()
    with pytest.raises(ValueError, match=r"y0 is .* it must have the structure, shapes, dtypes and device of z0"):
        solve(f, z0, x, y0=wrong)
