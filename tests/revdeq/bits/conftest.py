"""Small maps of many kinds, with a plain loop that stores what they see, to compare the reversible gradient with.

A test that takes `cell` runs for each of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from revdeq import Reversible, ReversibleAdjoint, solve
from revdeq.narrowing import narrow


class Case(NamedTuple):
    """A map f(z, parameters), its parameters and a start, in float64 with numbers that bfloat16 holds."""

    function: Callable[[Tensor, Any], Tensor]
    parameters: tuple[Tensor, ...]
    z0: Tensor


def normal(g: torch.Generator, *shape: int) -> Tensor:
    """Numbers that bfloat16 holds, so that all dtypes share one problem."""
    return torch.randn(*shape, generator=g, dtype=torch.float64).bfloat16().double()


def scaled(matrix: Tensor, norm: float) -> Tensor:
    return (matrix / torch.linalg.matrix_norm(matrix, 2) * norm).bfloat16().double()


def dense(g: torch.Generator) -> Case:
    return Case(
        lambda z, p: torch.tanh(z @ p[0] + p[1]), (scaled(normal(g, 8, 8), 0.9), normal(g, 3, 8)), normal(g, 3, 8)
    )


def relu(g: torch.Generator) -> Case:
    return Case(
        lambda z, p: torch.relu(z @ p[0] + p[1]), (scaled(normal(g, 8, 8), 0.9), normal(g, 3, 8)), normal(g, 3, 8)
    )


def non_normal(g: torch.Generator) -> Case:
    triangle = torch.triu(scaled(normal(g, 8, 8), 4.0), 1) + 0.45 * torch.eye(8, dtype=torch.float64)
    parameters = (triangle.bfloat16().double(), normal(g, 3, 8) / 4)
    return Case(lambda z, p: torch.tanh(z @ p[0] + p[1]), parameters, normal(g, 3, 8))


def stiff(g: torch.Generator) -> Case:
    rates = torch.tensor([-0.9375, -0.75, -0.5, -(2.0**-10), 0.0, 2.0**-10, 0.5, 0.96875], dtype=torch.float64)
    return Case(lambda z, p: z * p[0] + p[1], (rates, normal(g, 3, 8)), normal(g, 3, 8))


def saturating(g: torch.Generator) -> Case:
    # Slopes down to 1e-17, and components that stand at 1 to the bit.
    parameters = (scaled(normal(g, 8, 8), 30.0), normal(g, 3, 8))
    return Case(lambda z, p: torch.tanh(z @ p[0] + p[1]), parameters, normal(g, 3, 8))


def dead_branch(g: torch.Generator) -> Case:
    # The second branch lives in some samples only, the third in none.
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(0.5 * z + p[0]) + p[1] * torch.relu(z - 0.5) + p[2] * torch.relu(z - 100.0)

    return Case(f, (normal(g, 3, 8), normal(g, 8) / 8, normal(g, 8)), normal(g, 3, 8))


def first_steps(g: torch.Generator) -> Case:
    # The second parameter acts while the states are still large.
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(0.5 * z @ p[0]) + p[1] * torch.relu(z - 1.25)

    parameters = (scaled(normal(g, 8, 8), 0.9), torch.full((8,), 0.25, dtype=torch.float64))
    return Case(f, parameters, 2 + normal(g, 3, 8).abs())


def large_sample(g: torch.Generator) -> Case:
    x = normal(g, 3, 8)
    x[1] *= 2.0**14
    return Case(lambda z, p: torch.tanh(z @ p[0]) + p[1], (scaled(normal(g, 8, 8), 0.9), x), normal(g, 3, 8))


def kinks(g: torch.Generator) -> Case:
    # z0 stands exactly on kinks, and so does the fixed point of the first four components.
    def f(z: Tensor, p: Any) -> Tensor:
        return (
            p[0] * torch.relu(z - p[2]) - 0.25 * (z - p[2]).abs() + torch.where(z > p[2], 0.125 * z, -0.125 * z) + p[1]
        )

    z0 = normal(g, 3, 8)
    offset = torch.cat((z0[:, :4] * 0.875, normal(g, 3, 4)), dim=1).bfloat16().double()
    return Case(f, (normal(g, 8) / 4, offset, z0.clone()), z0)


def cancelling(g: torch.Generator) -> Case:
    # With beta 0.8 the state y_1 = 0.2 z0 + 0.8 f(z0) cancels to rounding noise, whose sign the steep ReLU asks for.
    def f(z: Tensor, p: Any) -> Tensor:
        steep = (torch.relu(z) * 3e4 * 3e4 * 3e4 * 3e4).clamp(max=1.0)
        return p[0] * z + p[1] * torch.where(z.abs() < 0.25, steep, 0.0 * z)

    z0 = normal(g, 3, 8).abs() + 1.0
    return Case(f, (torch.full((8,), -0.25, dtype=torch.float64), normal(g, 8) / 8), z0.bfloat16().double())


def convolution(g: torch.Generator) -> Case:
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(nn.functional.conv2d(z, p[0], padding=1) + p[1])

    return Case(f, ((normal(g, 2, 2, 3, 3) * 0.1).bfloat16().double(), normal(g, 2, 2, 4, 4)), normal(g, 2, 2, 4, 4))


def attention(g: torch.Generator) -> Case:
    def f(z: Tensor, p: Any) -> Tensor:
        x = z + p[4]
        mixed = nn.functional.scaled_dot_product_attention(x @ p[0], x @ p[1], x @ p[2]) @ p[3]
        return 0.45 * nn.functional.layer_norm(mixed + p[4], (8,))

    return Case(f, (*(scaled(normal(g, 8, 8), 1.0) for _ in range(4)), normal(g, 2, 3, 8)), normal(g, 2, 3, 8))


def batch_statistics(g: torch.Generator) -> Case:
    # The samples read each other.
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(0.5 * nn.functional.batch_norm(z @ p[0], None, None, training=True) + p[1])

    return Case(f, (scaled(normal(g, 8, 8), 0.9), normal(g, 3, 8)), normal(g, 3, 8))


def pooled(g: torch.Generator) -> Case:
    # Ties of a maximum at the start, and a branch that the state takes.
    def f(z: Tensor, p: Any) -> Tensor:
        top = z.max(dim=-1, keepdim=True).values
        slope = 0.5 if float(z.detach().double().sum()) > 0 else 0.25
        return torch.tanh(slope * (z - top) * p[0] + p[1])

    return Case(f, (normal(g, 8) / 2, normal(g, 3, 8)), normal(g, 3, 1).expand(3, 8).clone())


ZOO: dict[str, Callable[[torch.Generator], Case]] = {
    make.__name__: make
    for make in (
        dense,
        relu,
        non_normal,
        stiff,
        saturating,
        dead_branch,
        first_steps,
        large_sample,
        kinks,
        cancelling,
        convolution,
        attention,
        batch_statistics,
        pooled,
    )
}
# In these f uses every tensor once an evaluation, so that unrolling adds the same parts in the same order.
USED_ONCE = ("dense", "relu", "non_normal", "stiff", "saturating", "large_sample", "convolution")


def cotangents(kind: str, g: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cotangents of z_N and y_N.

    Args:
        kind: "both"; "component": of one component of z_N alone; "imbalanced": the samples over 12 decades;
            "cancelling": opposite ones, which cancel where y_N and z_N agree.
        g: the generator.
        like: a state.
    """
    z, y = normal(g, *like.shape), normal(g, *like.shape)
    if kind == "component":
        z, y = torch.zeros_like(z), torch.zeros_like(y)
        z.reshape(-1)[1] = 1.0
    elif kind == "imbalanced":
        sizes = 2.0 ** -torch.arange(0, 14.0 * len(z), 14.0, dtype=torch.float64)
        z, y = (t * sizes.reshape(-1, *[1] * (t.dim() - 1)) for t in (z, y))
    elif kind == "cancelling":
        y = -z
    return z, y


LOSSES = ("both", "component", "imbalanced", "cancelling")


def stored_gradients(
    case: Case, betas: Sequence[tuple[float, float]], cotangent: tuple[Tensor, Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """Return (z_N, y_N, gradients of z0 and the parameters) by a plain loop in float64 states that stores f's inputs.

    The parts of a gradient are summed from the last evaluation to the first, in float32 where f is in 16 bits.
    """
    z0 = case.z0.to(dtype)
    parameters = [p.to(dtype).requires_grad_() for p in case.parameters]
    inputs: list[Tensor] = []
    weights = [beta for pair in betas for beta in pair]

    def f(at: Tensor) -> Tensor:
        return case.function(at, parameters)

    states = [z0.double(), z0.double()]  # y, z: half step k moves states[k % 2] and evaluates f at the other one
    with torch.no_grad():
        for k, beta in enumerate(weights):
            inputs.append(narrow(states[(k + 1) % 2], dtype))
            states[k % 2] = (states[k % 2] * (1.0 - beta)).add_(f(inputs[-1]), alpha=beta)
    p = [c.to(dtype).double() for c in reversed(cotangent)]
    sums: list[Tensor | None] = [None] * len(parameters)
    for k in reversed(range(len(weights))):
        at = inputs[k].detach().requires_grad_()
        value = f(at)
        pulled = (p[k % 2] * weights[k]).to(dtype)
        parts: Any = torch.autograd.grad(value, (at, *parameters), pulled, allow_unused=True)
        if parts[0] is not None:
            p[(k + 1) % 2] = p[(k + 1) % 2] + parts[0]
        p[k % 2] = p[k % 2] * (1.0 - weights[k])
        for i, part in enumerate(parts[1:]):
            if part is not None:
                total = sums[i]
                wide = part.to(torch.promote_types(dtype, torch.float32))
                sums[i] = wide if total is None else total + wide
    found = [torch.zeros_like(q) if s is None else s.to(dtype) for s, q in zip(sums, parameters, strict=True)]
    y, z = (narrow(state, dtype) for state in states)
    return [z, y, (p[0] + p[1]).to(dtype), *found]


def reversed_gradients(
    case: Case,
    solver: Reversible,
    cotangent: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    adjoint: Any = None,
    **stopping: Any,
) -> tuple[Any, list[Tensor]]:
    """Return the solution, and what `stored_gradients` returns, by `solve`; adjoint None is the default one."""
    z0 = case.z0.to(dtype).requires_grad_()
    parameters = [p.to(dtype).requires_grad_() for p in case.parameters]
    how: Any = {"adjoint": ReversibleAdjoint() if adjoint is None else adjoint, "throw": False, **stopping}
    solution: Any = solve(case.function, z0, parameters, solver=solver, **how)
    found: Any = torch.autograd.grad(
        [solution.z1, solution.y1], (z0, *parameters), [c.to(dtype) for c in cotangent], allow_unused=True
    )
    grads = [torch.zeros_like(p) if g is None else g for g, p in zip(found, (z0, *parameters), strict=True)]
    return solution, [solution.z1.detach(), solution.y1.detach(), *grads]


def differing(got: Sequence[Tensor], expected: Sequence[Tensor]) -> list[int]:
    """Return which tensors are not equal to the bit; the sign of a zero does not count, NaN equals NaN."""
    return [
        i
        for i, (g, e) in enumerate(zip(got, expected, strict=True))
        if g.dtype != e.dtype or not torch.equal(torch.nan_to_num(g, nan=7e4), torch.nan_to_num(e, nan=7e4))
    ]


class Zoo:
    """What the tests here share."""

    cells = tuple(ZOO)
    losses = LOSSES
    used_once = USED_ONCE
    stored = staticmethod(stored_gradients)
    reversed = staticmethod(reversed_gradients)
    cotangents = staticmethod(cotangents)
    differing = staticmethod(differing)

    @staticmethod
    def case(name: str, seed: int = 0) -> tuple[Case, torch.Generator]:
        """Return a case of this name, and the generator that goes on."""
        g = torch.Generator().manual_seed(seed)
        return ZOO[name](g), g


@pytest.fixture
def zoo() -> type[Zoo]:
    """Return the maps, the plain loop and what compares them."""
    return Zoo


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `cell` for each of them."""
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", tuple(ZOO))
