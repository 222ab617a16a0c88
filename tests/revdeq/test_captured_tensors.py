"""Every trainable tensor that f reads gets its gradient, however f reads it, or the solve raises."""

import functools
import threading
from typing import Any

import pytest
import torch
from torch import nn

from revdeq import GradientError, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.function.reach import Reach


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Cell(nn.Module):
    """tanh(z W + x + b), with a parameter that is never read."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).double()
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.5 * self.linear(z) + x)

    def method(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self(z, x)


class Product(torch.autograd.Function):
    """z W, with a derivative written by hand."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z, weight)
        return z @ weight

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        z, weight = ctx.saved_tensors
        return cotangents[0] @ weight.T, z.T @ cotangents[0]


def product(z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return Product.apply(z, weight)  # type: ignore[no-any-return]


@pytest.mark.parametrize("call", ["module", "method", "partial", "lambda", "keyword"])
def test_module_parameters_get_gradients_through_every_kind_of_callable(agree, problem: Problem, call: str):
    z0, _, x = problem
    cell = Cell()
    functions = {
        "module": cell,
        "method": cell.method,
        "partial": functools.partial(lambda module, z, a: module(z, a), cell),
        "lambda": lambda z, a: cell(z, a),
        "keyword": functools.partial(lambda z, a, module: module(z, x=a), module=cell),
    }
    got = agree(functions[call], z0, x, (z0, x, *cell.parameters()))
    assert [g is None for g in got] == [False, False, True, False, False]


def test_captured_leaf_gets_its_gradient(agree, problem: Problem):
    z0, weight, x = problem
    agree(lambda z, a: torch.tanh(z @ weight + a), z0, x, (z0, weight, x))


def test_captured_tensors_that_are_not_leaves_get_their_gradients(agree, problem: Problem):
    z0, weight, x = problem
    first = 1.5 * weight
    second = torch.sin(first)  # depends on the other captured one: the parts must not be counted twice
    agree(lambda z, a: torch.tanh(z @ first + a @ second), z0, x, (z0, weight, x, first, second))


def test_tensor_in_args_that_is_captured_too_gets_both_parts(agree, problem: Problem):
    z0, weight, x = problem
    agree(lambda z, a: torch.tanh(z @ weight + x @ a["w"]), z0, {"w": weight, "n": 3}, (z0, weight, x))


def test_start_that_is_captured_too_gets_both_parts(agree, problem: Problem):
    z0, weight, x = problem
    agree(lambda z, a: torch.tanh(z @ weight + z0 * a), z0, x, (z0, weight, x))


def test_tensor_twice_in_args_gets_both_parts(agree, problem: Problem):
    z0, weight, x = problem
    agree(lambda z, a: torch.tanh(z @ a[0] + x @ a[1]), z0, (weight, weight), (z0, weight, x))


def test_parameter_shared_by_two_layers_gets_one_gradient(agree, problem: Problem):
    z0, _, x = problem
    first, second = nn.Linear(4, 4, bias=False).double(), nn.Linear(4, 4, bias=False).double()
    second.weight = first.weight
    agree(lambda z, a: torch.tanh(0.3 * second(torch.sin(first(z))) + a), z0, x, (z0, x, first.weight))


def test_views_of_captured_tensors_get_their_gradients(agree, problem: Problem):
    z0, weight, x = problem

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        rows = list(weight)  # iteration, indexing, transposition and unpacking read it by other doors
        return torch.tanh(z @ weight.T + a * rows[0] + weight[1][None] + torch.stack(rows).sum())

    agree(function, z0, x, (z0, weight, x))


def test_operations_called_through_torch_ops_are_seen(agree, problem: Problem):
    z0, weight, x = problem
    scaled = 0.9 * weight

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.tanh(torch.ops.aten.add.Tensor(torch.ops.aten.mm(z, scaled), a))

    agree(function, z0, x, (z0, weight, x))


def test_custom_function_with_args_and_captured_leaves_gets_their_gradients(agree, problem: Problem):
    z0, weight, x = problem
    parameter = nn.Parameter(0.1 * torch.randn(4, 4, dtype=torch.float64))
    agree(lambda z, a: torch.tanh(product(z, a) + product(x, parameter)), z0, weight, (z0, weight, x, parameter))


@pytest.mark.parametrize("kind", ["not a leaf", "leaf with a hook"])
def test_custom_function_with_a_captured_tensor_that_cannot_be_replaced_raises(problem: Problem, kind: str):
    z0, weight, x = problem
    captured = 1.5 * weight
    if kind == "leaf with a hook":
        captured = weight
        weight.register_hook(lambda grad: grad)
    found = solve(
        lambda z, a: torch.tanh(product(z, captured) + a),
        z0,
        x,
        solver=Reversible(0.7),
        adjoint=ReversibleAdjoint(),
        max_steps=2,
    )
    with pytest.raises(GradientError, match=r"hands a captured tensor .* pass it in args"):
        found.z1.sum().backward()


def in_another_thread(hidden: torch.Tensor) -> Any:
    """Return a map that reads a tensor in a thread of its own."""

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        mode, parts = torch.is_grad_enabled(), []

        def work() -> None:
            with torch.set_grad_enabled(mode):
                parts.append(z @ hidden)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return torch.tanh(parts[0] + a)

    return function


def test_leaf_that_only_another_thread_reads_gets_its_gradient(agree, problem: Problem):
    z0, weight, x = problem
    agree(in_another_thread(weight), z0, x, (z0, weight, x))


def test_trainable_tensor_that_only_another_thread_reads_raises(problem: Problem):
    z0, weight, x = problem
    function = in_another_thread(1.5 * weight)
    with pytest.raises(GradientError, match="would be lost; pass it in args"):
        solve(function, z0, x, solver=Reversible(0.7), adjoint=ReversibleAdjoint(), max_steps=2)


def test_leaf_inside_a_scripted_function_gets_its_gradient(agree, problem: Problem):
    z0, _, x = problem

    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(0.1 * torch.randn(4, 4, dtype=torch.float64))

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(z @ self.weight + x)

    traced: Any = torch.jit.trace(Scripted(), (z0, x), check_trace=False)
    agree(lambda z, a: torch.sin(traced(z, a)), z0, x, (z0, x, *traced.parameters()))


def test_tensor_inside_a_scripted_function_that_is_not_a_leaf_raises(problem: Problem):
    z0, weight, x = problem
    hidden = 1.5 * weight

    class Scripted(nn.Module):
        def forward(self, z: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return torch.tanh(z @ weight + x)

    traced: Any = torch.jit.trace(Scripted(), (z0, x, hidden), check_trace=False)
    # Where it enters is seen, and it cannot be replaced, or not even that, by the release of torch.
    with pytest.raises(GradientError, match=r"(could not be seen|cannot be replaced) .*pass it in args"):
        solve(lambda z, a: traced(z, a, hidden), z0, x, solver=Reversible(0.7), max_steps=2).z1.sum().backward()


def test_only_captured_tensors_require_grad_and_still_get_it(agree, problem: Problem):
    z0, weight, x = (t.detach() for t in problem)
    parameter = nn.Parameter(weight)
    agree(lambda z, a: torch.tanh(z @ parameter + a), z0, x, (parameter,))


def branching(captured: torch.Tensor) -> Any:
    """Return a map that reads `captured` only once its state has left the start."""

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ captured + a) if float(z.detach().abs().max()) > 0 else torch.tanh(a)

    return function


def test_captured_tensor_that_only_later_evaluations_read_gets_its_gradient(agree, problem: Problem):
    _, weight, x = problem
    agree(branching(weight), torch.zeros_like(x), x, (x, weight))


def test_module_parameter_that_only_later_evaluations_read_gets_its_gradient(agree, problem: Problem):
    _, _, x = problem

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(0.1 * torch.randn(4, 4, dtype=torch.float64))

        def forward(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
            return torch.tanh(z @ self.weight + a) if float(z.detach().abs().max()) > 0 else torch.tanh(a)

    routed = Routed()
    agree(routed, torch.zeros_like(x), x, (x, routed.weight))


def test_hook_of_a_parameter_runs_once_on_the_whole_gradient(problem: Problem):
    z0, weight, x = problem
    seen: list[torch.Tensor] = []

    def run(adjoint: ReversibleAdjoint | UnrolledAdjoint, captured: torch.Tensor) -> None:
        function = lambda z, a: torch.tanh(z @ captured + a)  # noqa: E731
        solve(function, z0, x, solver=Reversible(0.7), adjoint=adjoint, max_steps=3).z1.sum().backward(
            inputs=[weight], retain_graph=True
        )

    run(UnrolledAdjoint(), weight)
    expected, weight.grad = weight.grad, None
    assert expected is not None
    weight.register_hook(lambda grad: seen.append(grad) or 2.0 * grad)
    weight.register_post_accumulate_grad_hook(lambda tensor: seen.append(tensor))
    run(ReversibleAdjoint(), weight)
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], expected, rtol=1e-11, atol=1e-13)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2.0 * expected, rtol=1e-11, atol=1e-13)


def test_captured_tensor_that_retains_its_gradient_gets_it_whole(problem: Problem):
    z0, weight, x = problem
    middle = 1.5 * weight
    middle.retain_grad()
    calls: list[torch.Tensor] = []
    middle.register_hook(calls.append)

    def run(adjoint: ReversibleAdjoint | UnrolledAdjoint) -> torch.Tensor:
        found = solve(
            lambda z, a: torch.tanh(z @ middle + a), z0, x, solver=Reversible(0.7), adjoint=adjoint, max_steps=3
        )
        middle.grad = None
        found.z1.sum().backward(retain_graph=True)
        assert middle.grad is not None
        return middle.grad

    expected = run(UnrolledAdjoint())
    calls.clear()
    got = run(ReversibleAdjoint())
    assert len(calls) == 1
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def test_gradients_accumulate_in_parameters_as_everywhere(problem: Problem):
    z0, weight, x = problem

    def backward() -> None:
        solve(
            lambda z, a: torch.tanh(z @ weight + a),
            z0,
            x,
            solver=Reversible(0.7),
            adjoint=ReversibleAdjoint(),
            max_steps=3,
        ).z1.sum().backward()

    backward()
    assert weight.grad is not None
    once = weight.grad.clone()
    backward()
    assert torch.equal(weight.grad, 2.0 * once)


def test_frozen_parameters_stay_without_gradient(problem: Problem):
    z0, _, x = problem
    cell = Cell()
    cell.linear.weight.requires_grad_(False)
    solve(cell, z0, x, solver=Reversible(0.7), adjoint=ReversibleAdjoint(), max_steps=3).z1.sum().backward()
    assert cell.linear.weight.grad is None
    assert cell.linear.bias.grad is not None


def test_sparse_embedding_gradients_are_summed(agree):
    table = nn.Embedding(5, 4, sparse=True).double()
    index = torch.tensor([0, 3, 3])
    z0 = torch.zeros(3, 4, dtype=torch.float64)

    def run(adjoint: ReversibleAdjoint | UnrolledAdjoint) -> torch.Tensor:
        table.weight.grad = None
        found = solve(
            lambda z, a: torch.tanh(0.5 * z + table(a)), z0, index, solver=Reversible(0.7), adjoint=adjoint, max_steps=3
        )
        found.z1.square().sum().backward()
        assert table.weight.grad is not None
        return table.weight.grad.to_dense()

    torch.testing.assert_close(run(ReversibleAdjoint()), run(UnrolledAdjoint()), rtol=1e-11, atol=1e-13)


def test_complex_parameter_gets_its_gradient(agree, problem: Problem):
    z0, _, x = problem
    spectrum = (0.3 * torch.randn(4, dtype=torch.complex128)).requires_grad_()

    def function(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.fft.ifft(torch.fft.fft(z) * spectrum).real + a)

    found = [
        torch.autograd.grad(
            solve(function, z0, x, solver=Reversible(0.7), adjoint=adjoint, max_steps=3).z1.square().sum(), spectrum
        )[0]
        for adjoint in (ReversibleAdjoint(), UnrolledAdjoint())
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-13)


GLOBAL_LAYER = nn.Linear(4, 4)


def reads_a_global(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return torch.tanh(GLOBAL_LAYER(z) + a)


class Plain:
    """A callable that is no module and holds a list of modules."""

    def __init__(self) -> None:
        self.layers = [nn.Linear(2, 2)]

    def __call__(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return z

    def method(self, z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return z


def test_reach_finds_what_a_callable_holds():
    layer, plain, cell = nn.Linear(2, 2), Plain(), Cell()
    inside = {id(plain.layers[0])}

    def nested(z: torch.Tensor, a: torch.Tensor, default: nn.Module = layer) -> torch.Tensor:
        return cell(z, a)

    def ids(function: Any) -> set[int]:
        return {id(module) for module in Reach.of(function).modules}

    assert ids(plain) == inside
    assert ids(plain.method) == inside
    assert ids(cell) == {id(cell)}
    assert ids(nested) == {id(layer), id(cell)}
    assert ids(functools.partial(nested, default=layer)) == ids(nested)
    assert ids(reads_a_global) == {id(GLOBAL_LAYER)}
    assert ids(torch.tanh) == set()
