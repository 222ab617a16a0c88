"""Half steps compiled together with f: the same gradients, and a sentence where they cannot be had."""

from typing import Any

import pytest
import torch
from torch import nn

from revdeq import GradientError, ImplicitAdjoint, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.adjoint.base import Adjoint


pytestmark = [
    pytest.mark.skipif(torch.__version__ < "2.13", reason="an older torch cannot compile a VJP inside a function"),
    # Torch's own compiler warns about itself.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

NUM_STEPS = 3


class Cell(nn.Module):
    """A contraction with parameters, a buffer, and an input."""

    shift: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(4, 4, generator=generator) / 6)
        self.register_buffer("shift", torch.linspace(-1.0, 1.0, 4))

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the next state."""
        return torch.tanh(z @ self.weight + x + self.shift)


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradients(cell: Cell, x: torch.Tensor, solver: Reversible, adjoint: Adjoint, **stopping: Any) -> list[torch.Tensor]:
    """Return z1 and the gradients of z0, x and the weight of a scalar of both states."""
    z0 = torch.full((3, 4), 0.25, requires_grad=True)
    solution = solve(cell, z0, x, solver=solver, adjoint=adjoint, max_steps=NUM_STEPS, throw=False, **stopping)
    assert solution.y1 is not None
    loss = solution.z1.square().sum() + solution.y1.sum()
    return [solution.z1.detach(), *torch.autograd.grad(loss, [z0, x, cell.weight])]


@pytest.mark.parametrize(
    ("beta", "stopping"),
    [(0.6, {}), (((0.5, 0.7), (0.6, 0.8), (1.1, 0.9)), {}), ("adaptive", {}), (0.6, {"rtol": 2e-2, "atol": 0.0})],
    ids=["number", "schedule", "adaptive", "tolerance"],
)
def test_compiled_gradients_are_the_unrolled_ones(cell: Cell, x: torch.Tensor, beta, stopping) -> None:
    expected = gradients(cell, x, Reversible(beta), UnrolledAdjoint(), **stopping)
    seen = []
    adjoint = ReversibleAdjoint(on_health=seen.append)
    found = gradients(cell, x, Reversible(beta, compile=True), adjoint, **stopping)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=3e-6, atol=3e-7)
    assert seen[0].verified
    assert seen[0].replay_error == 0.0


def test_every_leaf_of_a_tree_gets_its_gradient_when_compiled() -> None:
    gain = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)

    def function(z: dict[str, torch.Tensor], args: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": torch.sin(gain * z["b"]) + args, "b": 0.5 * torch.cos(z["a"]) * gain}

    def found(solver: Reversible, adjoint: Adjoint) -> tuple[torch.Tensor, ...]:
        z0 = {"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}
        bias = torch.full((2, 3), 0.1, requires_grad=True)
        solution = solve(function, z0, bias, solver=solver, adjoint=adjoint, max_steps=NUM_STEPS)
        return torch.autograd.grad(solution.z1["a"].sum() + solution.z1["b"].square().sum(), [bias, gain])

    compiled = found(Reversible(0.7, compile=True), ReversibleAdjoint())
    for got, wanted in zip(compiled, found(Reversible(0.7), UnrolledAdjoint()), strict=True):
        torch.testing.assert_close(got, wanted, rtol=3e-6, atol=3e-7)


def test_graphs_do_not_depend_on_the_number_of_steps(cell: Cell, x: torch.Tensor) -> None:
    solver, adjoint = Reversible(0.6, compile=True), ReversibleAdjoint(segment=2)
    gradients(cell, x, solver, adjoint)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]  # pyright: ignore[reportPrivateUsage]
    z0 = torch.full((3, 4), 0.25, requires_grad=True)
    solve(cell, z0, x, solver=solver, adjoint=adjoint, max_steps=20).z1.sum().backward()
    assert before > 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("beta", "stopping", "batch_dims"),
    [(0.6, {}, None), ("adaptive", {}, None), (0.6, {"rtol": 2e-2, "atol": 0.0}, 1)],
    ids=["number", "adaptive", "tolerance"],
)
def test_other_numbers_of_samples_are_not_compiled_anew(beta, stopping, batch_dims) -> None:
    cell, stats = Cell(), torch._dynamo.utils.counters["stats"]  # pyright: ignore[reportPrivateUsage]
    counts = []
    for samples in (8, 5, 3, 8):
        x = torch.randn(samples, 4, requires_grad=True)
        found = []
        for solver, adjoint in (
            (Reversible(beta, compile=True), ReversibleAdjoint()),
            (Reversible(beta), UnrolledAdjoint()),
        ):
            z0 = torch.full((samples, 4), 0.25)
            options: dict[str, Any] = {"max_steps": NUM_STEPS, "throw": False, "batch_dims": batch_dims, **stopping}
            z1 = solve(cell, z0, x, solver=solver, adjoint=adjoint, **options).z1
            found.append(torch.autograd.grad(z1.square().sum(), [x, cell.weight]))
        for got, expected in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        counts.append(stats["unique_graphs"])
    assert counts[0] > 0
    assert len(set(counts)) == 1


@pytest.mark.parametrize(("shape", "batch_dims"), [((), 0), ((4,), 0), ((4,), 1)], ids=str)
def test_function_sees_the_shapes_of_its_own_state_when_compiled(shape, batch_dims) -> None:
    start, source = torch.full(shape, 0.25), torch.full(shape, 0.5, requires_grad=True)

    def f(z: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.3 * z + a)

    found: list[tuple[torch.Tensor, ...]] = []
    for compiled in (True, False):
        solver = Reversible(0.6, compile=compiled)
        z1 = solve(f, start, source, solver=solver, max_steps=2, batch_dims=batch_dims).z1
        found.append((z1, *torch.autograd.grad((z1 * torch.arange(1.0, 5.0)[: z1.numel()]).sum(), source)))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


def test_changed_code_is_compiled_anew(x: torch.Tensor) -> None:
    class Switched(Cell):
        factor = 1.0

        def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self.factor * super().forward(z, x)

    cell = Switched()
    for cell.factor in (1.0, -0.5):
        found = gradients(cell, x, Reversible(0.6, compile=True), ReversibleAdjoint())
        expected = gradients(cell, x, Reversible(0.6), UnrolledAdjoint())
        torch.testing.assert_close(found, expected, rtol=3e-6, atol=3e-7)


def test_in_place_changes_between_the_passes_raise_when_compiled(cell: Cell, x: torch.Tensor) -> None:
    z1 = solve(
        cell, torch.zeros(3, 4), x, solver=Reversible(0.6, compile=True), adjoint=ReversibleAdjoint(), max_steps=2
    ).z1
    cell.shift.mul_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z1.sum().backward()


def solved(function, **kwargs) -> torch.Tensor:
    """Solve compiled, and take the gradient."""
    z0 = torch.full((3, 4), 0.25, requires_grad=True)
    solution = solve(
        function, z0, solver=Reversible(0.6, compile=True), adjoint=ReversibleAdjoint(), max_steps=2, **kwargs
    )
    solution.z1.sum().backward()
    return solution.z1


def test_graph_break_is_refused_with_its_reason() -> None:
    def function(z: torch.Tensor, args: object) -> torch.Tensor:
        return z * 0.5 if float(z.detach().sum()) > 0 else -0.5 * z

    with pytest.raises(ValueError, match=r"could not be compiled to one graph \(.+\).*compile=False"):
        solved(function)


def test_random_numbers_are_refused_when_compiled() -> None:
    with pytest.raises(GradientError, match=r"draws random numbers and compile is True.*compile=False"):
        solved(lambda z, args: nn.functional.dropout(z, 0.5))


def test_captured_tensor_that_is_not_a_leaf_is_refused_when_compiled() -> None:
    made = torch.ones(3, 4, requires_grad=True) * 0.5
    with pytest.raises(GradientError, match=r"not a leaf or has hooks.*pass it in args"):
        solved(lambda z, args: 0.5 * torch.sin(z + made))


def test_running_statistics_are_refused_when_compiled() -> None:
    norm = nn.BatchNorm1d(4)
    with pytest.raises(ValueError, match="updates running statistics and compile is True"):
        solve(
            lambda z, args: norm(z),
            torch.zeros(3, 4),
            solver=Reversible(0.6, compile=True),
            adjoint=ReversibleAdjoint(),
            max_steps=1,
        )


def test_function_that_changes_its_input_is_refused_when_compiled() -> None:
    z0 = torch.full((3, 4), 0.25, dtype=torch.float64)
    with pytest.raises(ValueError, match="function changed its input z in place"):
        solve(
            lambda z, args: z.mul_(0.5),
            z0,
            solver=Reversible(0.6, compile=True),
            adjoint=ReversibleAdjoint(),
            max_steps=2,
        )


def test_wrong_shape_is_said_as_without_compilation() -> None:
    with pytest.raises(ValueError, match=r"function returned shape \(3, 1\)"):
        solved(lambda z, args: z.sum(dim=-1, keepdim=True))


@pytest.mark.parametrize("adjoint", [UnrolledAdjoint(), ImplicitAdjoint()])
def test_other_adjoints_are_refused_when_compiled(cell: Cell, x: torch.Tensor, adjoint: Adjoint) -> None:
    with pytest.raises(TypeError, match="use ReversibleAdjoint, or give compile=False"):
        gradients(cell, x, Reversible(0.6, compile=True), adjoint)


def test_bad_compile_is_refused() -> None:
    with pytest.raises(TypeError, match="compile is 'yes'; it must be True or False"):
        Reversible(0.6, compile="yes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"compile is True and arithmetic is .*arithmetic='floating'"):
        Reversible(0.5, arithmetic="bitwise", compile=True)


def test_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch, cell: Cell, x: torch.Tensor) -> None:
    monkeypatch.setattr("revdeq._compiled.dynamo_config", object())
    with pytest.raises(RuntimeError, match=r"cannot compile a VJP.*compile=False"):
        gradients(cell, x, Reversible(0.6, compile=True), ReversibleAdjoint())
