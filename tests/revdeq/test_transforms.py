"""torch.func transforms and forward-mode AD: right with UnrolledAdjoint, refused by those that have none.

Those of ReversibleAdjoint are in `test_transformed_solves`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from revdeq import (
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    PhantomAdjoint,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
FIRST_ORDER = [ImplicitAdjoint(), PhantomAdjoint(), CheckpointedAdjoint()]


def result(
    adjoint: Any, z0: torch.Tensor, weight: torch.Tensor, x: torch.Tensor, *, throw: bool = False
) -> torch.Tensor:
    return solve(
        lambda z, a: torch.tanh(z @ a[0] + a[1]),
        z0,
        (weight, x),
        solver=Reversible(0.8),
        adjoint=adjoint,
        max_steps=3,
        throw=throw,
    ).z1


@pytest.mark.parametrize("adjoint", FIRST_ORDER, ids=repr)
@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp"])
def test_adjoints_without_a_graph_refuse_transforms(problem: Problem, adjoint: Any, transform: str):
    z0, weight, x = (t.detach() for t in problem)
    calls: dict[str, Callable[[], Any]] = {
        "grad": lambda: torch.func.grad(lambda w: result(adjoint, z0, w, x).sum())(weight),
        "vmap": lambda: torch.func.vmap(lambda s: result(adjoint, z0, weight, s))(torch.stack([x, x])),
        "jvp": lambda: torch.func.jvp(lambda w: result(adjoint, z0, w, x), (weight,), (weight,)),
    }
    with pytest.raises(GradientError, match=r"called inside a torch.func transform .* use UnrolledAdjoint there"):
        calls[transform]()


def test_func_grad_of_the_unrolled_solve_is_its_gradient(problem: Problem):
    z0, weight, x = problem
    (expected,) = torch.autograd.grad(result(UnrolledAdjoint(), z0, weight, x).sum(), weight)
    got = torch.func.grad(lambda w: result(UnrolledAdjoint(), z0.detach(), w, x.detach()).sum())(weight.detach())
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_vmap_of_the_unrolled_solve_is_the_loop(problem: Problem):
    z0, weight, x = (t.detach() for t in problem)
    batch = torch.stack([x, 2.0 * x, -x])
    got = torch.func.vmap(lambda s: result(UnrolledAdjoint(), z0, weight, s))(batch)
    want = torch.stack([result(UnrolledAdjoint(), z0, weight, s) for s in batch])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_hessian_of_the_unrolled_solve_agrees_with_autograd(problem: Problem):
    z0, weight, x = (t.detach()[:2, :2] for t in problem)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return result(UnrolledAdjoint(), z0, w, x).square().sum()

    got = torch.func.hessian(loss)(weight)
    want = torch.autograd.functional.hessian(loss, weight)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)


def test_vmap_of_a_solve_that_would_throw_raises(problem: Problem):
    z0, weight, x = (t.detach() for t in problem)
    with pytest.raises(ValueError, match="which vmap does not allow; give throw=False"):
        torch.func.vmap(lambda s: result(UnrolledAdjoint(), z0, weight, s, throw=True))(torch.stack([x, x]))


def test_functional_call_inside_the_function_gives_gradients_to_the_tensors_put_in(agree, problem: Problem):
    z0, _, x = problem
    cell = nn.Linear(4, 4).double()
    replaced = {k: (2.0 * v).detach().requires_grad_() for k, v in cell.named_parameters()}

    def function(z: torch.Tensor, args: tuple[dict[str, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return torch.tanh(0.4 * torch.func.functional_call(cell, args[0], (z,)) + args[1])

    got = agree(function, z0, (replaced, x), (z0, x, *replaced.values(), *cell.parameters()))
    assert [g is None for g in got] == [False] * 4 + [True] * 2


def test_functional_call_round_the_solve_is_refused_by_the_reversible_adjoint(problem: Problem):
    _, _, x = problem

    class Model(nn.Module):
        def __init__(self, adjoint: Any) -> None:
            super().__init__()
            self.cell, self.adjoint = nn.Linear(4, 4).double(), adjoint

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return solve(
                lambda z, a: torch.tanh(0.4 * self.cell(z) + a),
                torch.zeros_like(x),
                x,
                solver=Reversible(0.8),
                adjoint=self.adjoint,
                max_steps=3,
            ).z1

    model = Model(ReversibleAdjoint())
    replaced = {k: 2.0 * v for k, v in model.named_parameters()}
    with pytest.raises(GradientError, match=r"call torch.func.functional_call inside function"):
        torch.func.functional_call(model, replaced, (x,)).sum().backward()
    model.adjoint = UnrolledAdjoint()
    torch.func.functional_call(model, replaced, (x,)).sum().backward()
    assert model.cell.weight.grad is not None


def test_per_sample_gradients_through_vmap_of_grad_are_those_of_the_loop(problem: Problem):
    z0, weight, x = (t.detach() for t in problem)

    def loss(w: torch.Tensor, start: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return result(UnrolledAdjoint(), start[None], w, shift[None]).square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weight, z0, x)
    want = torch.stack([torch.func.grad(loss)(weight, s, a) for s, a in zip(z0, x, strict=True)])
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(), PhantomAdjoint()], ids=repr)
def test_forward_mode_is_refused(problem: Problem, adjoint: Any):
    z0, weight, x = problem
    with forward_ad.dual_level(), pytest.raises(GradientError, match=r"forward-mode AD .* use UnrolledAdjoint"):
        result(adjoint, z0, weight, forward_ad.make_dual(x, torch.ones_like(x)))


def test_forward_mode_through_the_unrolled_solve_is_the_directional_derivative(problem: Problem):
    z0, weight, x = (t.detach() for t in problem)
    direction = torch.randn_like(x)
    with forward_ad.dual_level():
        dual = result(UnrolledAdjoint(), z0, weight, forward_ad.make_dual(x, direction))
        tangent = forward_ad.unpack_dual(dual).tangent
    _, want = torch.autograd.functional.jvp(lambda a: result(UnrolledAdjoint(), z0, weight, a), x, direction)
    torch.testing.assert_close(tangent, want, rtol=1e-11, atol=1e-13)
