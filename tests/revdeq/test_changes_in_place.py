"""What f reads must not change between the passes; what f is given, f must not change."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
CHANGED = "modified by an inplace operation"


@pytest.mark.parametrize("what", ["parameter", "argument", "start", "constant"])
def test_change_between_the_passes_raises(problem: Problem, what: str):
    z0, weight, x = problem
    constant = torch.ones(4, dtype=torch.float64)
    found = solve(
        lambda z, a: torch.tanh(z @ weight + a * constant),
        z0,
        x,
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        max_steps=2,
    )
    tensor = {"parameter": weight, "argument": x, "start": z0, "constant": constant}[what]
    with torch.no_grad():
        tensor.add_(1.0)
    with pytest.raises(RuntimeError, match=CHANGED):
        found.z1.sum().backward()


READS = {
    "matmul": lambda c: c @ torch.eye(4, dtype=c.dtype),
    "index": lambda c: c[[0, 1, 2, 3]],
    "comparison": lambda c: (c >= 0).to(c.dtype),
    "power": lambda c: c**2,
    "from the right": lambda c: 1 - c,
    "negative": lambda c: -c,
    "length": lambda c: c.norm() / len(c),
    "out of a list": lambda c: torch.stack([c, c]).sum(0),
    "by keyword": lambda c: torch.add(input=c, other=1.0),
}


@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_change_of_a_constant_between_the_passes_raises_however_it_is_read(problem: Problem, read: Any):
    z0, weight, x = problem
    constant = torch.ones(4, dtype=torch.float64)
    found = solve(
        lambda z, a: torch.tanh(z @ weight + a * read(constant)),
        z0,
        x,
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        max_steps=2,
    )
    constant.add_(1.0)
    with pytest.raises(RuntimeError, match=CHANGED):
        found.z1.sum().backward()


def test_optimizer_step_between_the_passes_raises(problem: Problem):
    z0, _, x = problem
    linear = nn.Linear(4, 4).double()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    found = [
        solve(
            lambda z, a: torch.tanh(0.5 * linear(z) + a),
            z0,
            x,
            solver=Reversible(0.8),
            adjoint=ReversibleAdjoint(),
            max_steps=2,
        )
        for _ in range(2)
    ]
    found[0].z1.sum().backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match=CHANGED):
        found[1].z1.sum().backward()


@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), UnrolledAdjoint()], ids=repr)
def test_function_that_changes_its_state_in_place_raises(problem: Problem, adjoint):
    _, weight, x = problem
    with pytest.raises(ValueError, match=r"function changed its input z in place \(leaf z0\); .*out-of-place"):
        solve(
            lambda z, a: torch.tanh(z.mul_(2.0) @ weight + a),
            torch.ones(3, 4, dtype=torch.float64),
            x,
            solver=Reversible(0.8),
            adjoint=adjoint,
            max_steps=2,
        )


def test_function_that_changes_its_argument_in_place_is_detected(problem: Problem):
    z0, weight, _ = problem
    counter = torch.zeros(1, dtype=torch.float64)

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        a.add_(1.0)
        return torch.tanh(z @ weight + 0.01 * a)

    found = solve(function, z0, counter, solver=Reversible(0.8), adjoint=ReversibleAdjoint(), max_steps=2)
    with pytest.raises(RuntimeError, match="function does not repeat"):
        found.z1.sum().backward()


def test_inputs_are_left_as_they_were(problem: Problem):
    z0, weight, x = problem
    before = [t.detach().clone() for t in problem]
    versions = [t._version for t in problem]
    found = solve(
        lambda z, a: torch.tanh(z @ weight + a),
        z0,
        x,
        solver=Reversible(0.8),
        adjoint=ReversibleAdjoint(),
        max_steps=2,
    )
    found.z1.sum().backward()
    assert all(torch.equal(b, t) for b, t in zip(before, problem, strict=True))
    assert versions == [t._version for t in problem]


def test_result_of_no_steps_is_a_copy(problem: Problem):
    z0 = problem[0].detach()
    for adjoint in (ReversibleAdjoint(), UnrolledAdjoint()):
        found: Any = solve(lambda z, a: z, z0, solver=Reversible(0.8), adjoint=adjoint, max_steps=0)
        assert torch.equal(found.z1, z0)
        assert found.z1.data_ptr() != z0.data_ptr()
        assert found.y1.data_ptr() != found.z1.data_ptr()
