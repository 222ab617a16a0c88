"""How the tests of the solver compare gradients and count evaluations."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from revdeq import Adjoint, Reversible, ReversibleAdjoint, Solution, Solver, UnrolledAdjoint, solve
from revdeq._tree import flatten


Tree = Any
Compare = Callable[..., list[torch.Tensor | None]]


def leaves_of(tree: Tree) -> list[torch.Tensor]:
    """Return the tensors of a tree."""
    leaves, _ = flatten(tree)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def loss_of(solution: Solution, *, on: str = "both") -> torch.Tensor:
    """Return a scalar with an uneven cotangent on z1, on y1 (named "z", "y"), or on both."""
    total = torch.zeros((), dtype=torch.float64)
    for name, tree in (("z", solution.z1), ("y", solution.y1)):
        if on not in (name, "both"):
            continue
        for leaf in leaves_of(tree):
            weights = torch.linspace(0.5, 1.5 if name == "z" else -1.0, leaf.numel(), dtype=torch.float64)
            total = total + (leaf.double().reshape(-1) * weights).sum()
    return total


def gradients(
    function: Callable[..., Tree],
    z0: Tree,
    args: Tree,
    wanted: Sequence[torch.Tensor],
    *,
    adjoint: Adjoint,
    solver: Solver | None = None,
    max_steps: int = 3,
    on: str = "both",
    **options: Any,
) -> list[torch.Tensor | None]:
    """Return the gradients of `loss_of` in `wanted`; None where there is no dependence."""
    solution = solve(
        function, z0, args, solver=solver or Reversible(0.7), adjoint=adjoint, max_steps=max_steps, **options
    )
    return list(torch.autograd.grad(loss_of(solution, on=on), wanted, allow_unused=True, retain_graph=True))


VARIANTS = (ReversibleAdjoint(), ReversibleAdjoint(segment=2))
"""The default, and segments of two steps whatever the dtypes: states are stored, undone, and taken again."""


@pytest.fixture
def agree() -> Compare:
    """Assert that the reversible gradients are the unrolled ones, and those of stored inputs to the bit."""

    def compare(
        function: Callable[..., Tree],
        z0: Tree,
        args: Tree,
        wanted: Sequence[torch.Tensor],
        *,
        tolerance: float = 1e-15,
        **options: Any,
    ) -> list[torch.Tensor | None]:
        expected = gradients(function, z0, args, wanted, adjoint=UnrolledAdjoint(), **options)
        stored = gradients(function, z0, args, wanted, adjoint=ReversibleAdjoint(segment=1), **options)
        for i, (g, e) in enumerate(zip(stored, expected, strict=True)):
            if e is None or not bool(e.any()):
                assert g is None or not bool(g.any()), f"leaf {i}: {g}, expected none"
                continue
            assert g is not None, f"leaf {i} has no gradient"
            assert g.dtype == e.dtype
            assert g.shape == e.shape
            error = float(torch.linalg.vector_norm((g - e).double()) / torch.linalg.vector_norm(e.double()))
            assert error <= tolerance, f"leaf {i}: relative error {error:.1e}, allowed {tolerance:.1e}"
        for adjoint in VARIANTS:
            assert_same_bits(gradients(function, z0, args, wanted, adjoint=adjoint, **options), stored)
        return stored

    return compare


def assert_same_bits(got: Sequence[torch.Tensor | None], expected: Sequence[torch.Tensor | None]) -> None:
    """Assert that two lists of gradients are equal to the bit, signs of zeros apart."""
    for i, (g, e) in enumerate(zip(got, expected, strict=True)):
        assert (g is None) == (e is None), f"leaf {i}: {g}, expected {e}"
        if g is not None and e is not None:
            assert torch.equal(g, e), f"leaf {i} differs by {float((g - e).double().abs().max()):.1e}"


class Counter(TorchDispatchMode):
    """A map whose evaluations and VJPs are counted, from outside: f has no hook, nor a backward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0
        self.vjps = 0

    def __call__(self, z: torch.Tensor, args: torch.Tensor) -> torch.Tensor:
        self.evaluations += 1
        return torch.tanh(z @ args)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.vjps += func is torch.ops.aten.tanh_backward.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def counter() -> Iterator[Counter]:
    """Give a fresh counting map z -> tanh(z @ args)."""
    with Counter() as counting:
        yield counting


@pytest.fixture
def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return z0 (3, 4), W (4, 4) and x (3, 4) in float64, all requiring grad, with ||W|| about 0.4."""
    z0 = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight = (0.1 * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    return z0, weight, x
