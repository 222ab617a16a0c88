"""Backward in every way in which users run it: twice, for some inputs, with hooks, in threads, differentiated again."""

import copy
import pickle
import threading
from typing import Any, cast

import pytest
import torch
from torch import nn

from revdeq import (
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    PhantomAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    Solution,
    UnrolledAdjoint,
    solve,
)


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def run(problem: Problem, adjoint: Any = None, **options: Any) -> Any:
    z0, weight, x = problem
    settings: dict[str, Any] = {"solver": Reversible(0.8), "adjoint": adjoint or ReversibleAdjoint(), "max_steps": 3}
    return solve(lambda z, a: torch.tanh(z @ weight + a), z0, x, **{**settings, **options})


def test_retained_graph_gives_the_same_gradient_twice(problem: Problem):
    found = run(problem)
    first = torch.autograd.grad(found.z1.sum(), problem, retain_graph=True)
    second = torch.autograd.grad(found.z1.sum(), problem, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert found.health is not None
    assert found.health.passes == 2


def test_second_backward_without_retained_graph_raises(problem: Problem):
    loss = run(problem).z1.sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_gradients_of_two_losses_add(problem: Problem):
    found = run(problem)
    both = torch.autograd.grad(found.z1.sum() + found.y1.square().sum(), problem, retain_graph=True)
    z_part = torch.autograd.grad(found.z1.sum(), problem, retain_graph=True)
    y_part = torch.autograd.grad(found.y1.square().sum(), problem)
    for total, a, b in zip(both, z_part, y_part, strict=True):
        torch.testing.assert_close(total, a + b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_gradient_for_one_input_alone_is_the_same(problem: Problem, index: int):
    found = run(problem)
    everything = torch.autograd.grad(found.z1.sum(), problem, retain_graph=True)
    (alone,) = torch.autograd.grad(found.z1.sum(), problem[index], retain_graph=True)
    assert torch.equal(alone, everything[index])
    found.z1.sum().backward(inputs=[problem[index]])
    assert torch.equal(cast(torch.Tensor, problem[index].grad), alone)
    assert all(t.grad is None for i, t in enumerate(problem) if i != index)


def test_batched_cotangents_give_the_rows_of_the_jacobian(problem: Problem):
    z0, _, x = problem
    found = run(problem)
    rows = torch.autograd.functional.jacobian(lambda a: run((z0, problem[1], a)).z1, x, vectorize=False)
    cotangent = torch.randn_like(found.z1)
    (got,) = torch.autograd.grad(found.z1, x, cotangent)
    torch.testing.assert_close(got, torch.einsum("ij,ijkl->kl", cotangent, rows), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["expanded", "transposed", "sliced"])
def test_cotangent_of_any_layout_is_read_right(problem: Problem, kind: str):
    found = run(problem)
    layouts = {
        "expanded": torch.tensor(0.7, dtype=torch.float64).expand(3, 4),
        "transposed": torch.randn(4, 3, dtype=torch.float64).T,
        "sliced": torch.randn(6, 8, dtype=torch.float64)[::2, ::2],
    }
    cotangent = layouts[kind]
    got = torch.autograd.grad(found.z1, problem, cotangent, retain_graph=True)
    want = torch.autograd.grad(found.z1, problem, cotangent.contiguous())
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-11, atol=1e-13)


def test_hooks_on_the_result_run_once(problem: Problem):
    found = run(problem)
    calls: list[torch.Tensor] = []
    found.z1.register_hook(calls.append)
    found.z1.retain_grad()
    found.z1.sum().backward()
    assert len(calls) == 1
    assert torch.equal(found.z1.grad, torch.ones_like(found.z1))


def test_saved_tensors_may_be_packed_away(problem: Problem):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone().numpy(), torch.from_numpy):
        found = run(problem)
    got = torch.autograd.grad(found.z1.sum(), problem)
    want = torch.autograd.grad(run(problem).z1.sum(), problem)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


def test_backward_from_several_threads_adds_the_gradients(problem: Problem):
    _, weight, _ = problem
    (expected,) = torch.autograd.grad(run(problem).z1.sum(), weight)
    found = [run(problem) for _ in range(4)]
    results: list[torch.Tensor] = []

    def backward(solution: Solution) -> None:
        results.extend(torch.autograd.grad(solution.z1.sum(), weight))

    threads = [threading.Thread(target=backward, args=(solution,)) for solution in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(r, expected) for r in results)


ADJOINTS = [ImplicitAdjoint(), PhantomAdjoint()]


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_second_derivative_raises_and_names_the_adjoint_to_use(problem: Problem, adjoint: Any):
    found = run(problem, adjoint, max_steps=60)
    (first,) = torch.autograd.grad(found.z1.square().sum(), problem[1], create_graph=True)
    with pytest.raises(GradientError, match=r"second derivatives .* use UnrolledAdjoint"):
        first.sum().backward()


def test_gradgradcheck_raises_and_names_the_adjoint_to_use(problem: Problem):
    z0, weight, x = problem
    with pytest.raises(GradientError, match="use UnrolledAdjoint"):
        torch.autograd.gradgradcheck(lambda a: run((z0.detach(), weight, a), ImplicitAdjoint(), max_steps=60).z1, (x,))


@pytest.mark.parametrize("adjoint", [UnrolledAdjoint(), CheckpointedAdjoint(), ReversibleAdjoint()], ids=repr)
def test_gradgradcheck_accepts_adjoints_of_the_steps(problem: Problem, adjoint: Any):
    z0, weight, x = (t[:1, :2].detach().clone() if t.shape[0] == 3 else t[:2, :2].detach() for t in problem)
    assert torch.autograd.gradgradcheck(lambda a: run((z0, weight, a), adjoint, max_steps=2).z1, (x.requires_grad_(),))


def test_create_graph_without_second_derivative_is_fine(problem: Problem):
    found = run(problem)
    got = torch.autograd.grad(found.z1.sum(), problem, create_graph=True)
    want = torch.autograd.grad(run(problem).z1.sum(), problem)
    assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_result_without_grad_mode_is_the_same_and_has_no_graph(problem: Problem, mode: Any):
    expected = run(problem)
    with mode():
        found = run(problem)
    assert not found.z1.requires_grad
    assert torch.equal(found.z1, expected.z1)
    assert torch.equal(found.y1, expected.y1)
    with mode():
        assert torch.equal(found.residual, expected.residual)


def test_start_made_in_inference_mode_is_a_start_like_another(problem: Problem):
    _, weight, x = problem
    with torch.inference_mode():
        z0 = torch.zeros(3, 4, dtype=torch.float64)
    made, cloned = (torch.autograd.grad(run((z, weight, x)).z1.sum(), (weight, x)) for z in (z0, z0.clone()))
    assert all(torch.equal(a, b) for a, b in zip(made, cloned, strict=True))


@pytest.mark.parametrize(
    "item",
    [
        Reversible(0.8, state_dtype=torch.float64),
        Relaxed(0.5),
        ReversibleAdjoint(segment=3),
        ReversibleAdjoint(verify=False),
        UnrolledAdjoint(),
        ImplicitAdjoint(rtol=1e-5, solver=Relaxed(0.9)),
    ],
    ids=repr,
)
def test_solvers_and_adjoints_are_copied_and_pickled(item: Any):
    for twin in (copy.deepcopy(item), pickle.loads(pickle.dumps(item))):
        assert type(twin) is type(item)
        assert repr(twin) == repr(item)


def test_module_that_holds_a_solution_can_be_replaced_and_trained(problem: Problem):
    z0, _, x = problem

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4).double()
            self.last: Solution | None = None

        def cell(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
            return torch.tanh(0.5 * self.linear(z) + a)

        def forward(self, z0: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            self.last = solve(self.cell, z0, x, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=3)
            return self.last.z1

    model = Model()
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss = (model(z0.detach(), x.detach()) - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > losses[1] > losses[2]
