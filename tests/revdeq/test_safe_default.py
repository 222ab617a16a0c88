"""With no option given, a reversible gradient is as right as the unrolled one, whatever beta and however many steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revdeq import GradientError, Health, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.adjoint.trust import gradient_error_estimate
from revdeq.narrowing import narrow


Cell = Callable[[Tensor, Any], Tensor]
NARROW = [torch.float32, torch.bfloat16, torch.float16]
# Times the unrolled gradient's own error in the same dtype, or one rounding of f if that is more (A12).
ALLOWED = 3.0


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers that bfloat16 holds, so that all dtypes share one problem."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).bfloat16().to(torch.float64)


def scaled(matrix: Tensor, norm: float) -> Tensor:
    return (matrix / torch.linalg.matrix_norm(matrix, 2) * norm).bfloat16().to(torch.float64)


def dense(g: torch.Generator, k: float) -> tuple[Cell, list[Tensor], tuple[int, ...]]:
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(z @ p[0] + p[1])

    return f, [scaled(normal(g, 12, 12), k), normal(g, 4, 12)], (4, 12)


def non_normal(g: torch.Generator, k: float) -> tuple[Cell, list[Tensor], tuple[int, ...]]:
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(z @ p[0] + p[1])

    triangle = torch.triu(scaled(normal(g, 12, 12), 4.0), 1) + (k / 2) * torch.eye(12, dtype=torch.float64)
    return f, [triangle.bfloat16().to(torch.float64), normal(g, 4, 12) / 4], (4, 12)


def convolution(g: torch.Generator, k: float) -> tuple[Cell, list[Tensor], tuple[int, ...]]:
    def f(z: Tensor, p: Any) -> Tensor:
        return torch.tanh(nn.functional.conv2d(z, p[0], padding=1) + p[1])

    return f, [(normal(g, 3, 3, 3, 3) * (k / 10)).bfloat16().to(torch.float64), normal(g, 2, 3, 5, 5)], (2, 3, 5, 5)


def attention(g: torch.Generator, k: float) -> tuple[Cell, list[Tensor], tuple[int, ...]]:
    def f(z: Tensor, p: Any) -> Tensor:
        x = z + p[4]
        mixed = nn.functional.scaled_dot_product_attention(x @ p[0], x @ p[1], x @ p[2]) @ p[3]
        return k / 2 * nn.functional.layer_norm(mixed + p[4], (8,))

    return f, [*(scaled(normal(g, 8, 8), 1.0) for _ in range(4)), normal(g, 2, 4, 8)], (2, 4, 8)


CELLS = {"dense": dense, "non-normal": non_normal, "convolution": convolution, "attention": attention}


def gradients(
    cell: str, k: float, beta: float, num_steps: int, adjoint: Any, dtype: torch.dtype, *, of_start: bool
) -> tuple[list[Tensor], Health | None]:
    g = torch.Generator().manual_seed(len(cell))
    f, parameters, shape = CELLS[cell](g, k)
    args = [p.to(dtype).requires_grad_() for p in parameters]
    z0, cotangent_z, cotangent_y = (normal(g, *shape).to(dtype) for _ in range(3))
    z0.requires_grad_(of_start)
    solver = Reversible(beta)
    solution: Any = solve(f, z0, args, solver=solver, adjoint=adjoint, max_steps=num_steps, throw=False)
    loss = (solution.z1 * cotangent_z).sum() + (solution.y1 * cotangent_y).sum()
    leaves = [z0, *args] if of_start else args
    return [grad.to(torch.float64) for grad in torch.autograd.grad(loss, leaves)], solution.health


def excess(cell: str, k: float, beta: float, num_steps: int, dtype: torch.dtype, *, of_start: bool) -> float:
    """Greatest error of a leaf of the default gradient, over the error of the unrolled one."""
    exact, _ = gradients(cell, k, beta, num_steps, UnrolledAdjoint(), torch.float64, of_start=of_start)
    unrolled, _ = gradients(cell, k, beta, num_steps, UnrolledAdjoint(), dtype, of_start=of_start)
    default, _ = gradients(cell, k, beta, num_steps, ReversibleAdjoint(), dtype, of_start=of_start)
    if not all(bool(torch.isfinite(grad).all()) for grad in (*exact, *unrolled)):
        return 0.0  # the iteration diverged: there is no gradient to be right about
    u = torch.finfo(dtype).eps / 2
    return max(
        float((d - e).norm() / torch.maximum((n - e).norm(), u * e.norm()))
        for d, n, e in zip(default, unrolled, exact, strict=True)
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_steps", [2, 8, 40])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8, 0.9, 1.1, 1.5])
def test_the_default_gradient_is_as_right_as_the_unrolled_one(cell, num_steps, beta):
    assert excess(cell, 0.9, beta, num_steps, torch.float32, of_start=num_steps == 8) <= ALLOWED


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("beta", "num_steps", "of_start"), [(0.5, 8, True), (0.8, 40, False), (1.25, 16, True)])
def test_the_default_gradient_of_a_16_bit_function_is_as_right(cell, dtype, beta, num_steps, of_start):
    assert excess(cell, 0.9, beta, num_steps, dtype, of_start=of_start) <= ALLOWED


@pytest.mark.nightly
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("of_start", [False, True])
def test_the_default_gradient_is_as_right_as_the_unrolled_one_over_the_grid(cell, dtype, of_start):
    for k in (0.5, 0.9, 0.99):
        for beta in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 1.9):
            for num_steps in (1, 2, 4, 8, 16, 40, 100):
                assert excess(cell, k, beta, num_steps, dtype, of_start=of_start) <= ALLOWED, (k, beta, num_steps)


def test_without_the_default_check_the_grid_has_wrong_gradients():
    # The control: the same comparison finds the error that the default keeps away.
    exact, _ = gradients("dense", 0.9, 0.95, 20, UnrolledAdjoint(), torch.float64, of_start=False)
    loose = ReversibleAdjoint(min_bits=0, on_untrusted="checkpoint")
    reversed_, health = gradients("dense", 0.9, 0.95, 20, loose, torch.float32, of_start=False)
    assert health is not None
    assert not health.fell_back
    assert max(float((r - e).norm() / e.norm()) for r, e in zip(reversed_, exact, strict=True)) > 30 * 2.0**-24


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("beta", "num_steps"), [(0.5, 4), (0.8, 2), (0.9, 2), (0.7, 4), (1.1, 2), (1.25, 8), (0.95, 2)]
)
def test_few_steps_are_not_computed_again(cell, beta, num_steps):
    _, health = gradients(cell, 0.9, beta, num_steps, ReversibleAdjoint(), torch.float32, of_start=False)
    assert health is not None
    assert not health.fell_back
    assert health.bits_left == 24


@pytest.mark.parametrize("dtype", NARROW)
def test_narrowing_keeps_numbers_that_the_dtype_holds(dtype):
    held = normal(torch.Generator().manual_seed(1), 10_000).to(dtype)
    assert torch.equal(narrow(held.to(torch.float64), dtype), held)


@pytest.mark.parametrize("dtype", NARROW)
def test_narrowing_errs_by_at_most_33_64ths_of_a_last_place(dtype):
    wide = torch.rand(100_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1
    error = (narrow(wide, dtype).to(torch.float64) - wide).abs().max() / torch.finfo(dtype).eps
    # x < 2 shifts by at most 2^-(p+6) * 2 = 1/64 of the spacing 2^(1-p).
    assert 0.5 <= float(error) <= 0.5 + 1 / 64


@pytest.mark.parametrize("dtype", NARROW)
def test_narrowing_does_not_change_its_mind_at_ties(dtype):
    eps = torch.finfo(dtype).eps
    ties = 1 + eps * (torch.arange(64, dtype=torch.float64) + 0.5)
    noise = torch.tensor([-eps / 512, 0.0, eps / 512], dtype=torch.float64).unsqueeze(1)
    plain, shifted = (ties + noise).to(dtype), narrow(ties + noise, dtype)
    assert bool((shifted == shifted[1]).all())
    assert not bool((plain == plain[1]).all())


def test_narrowing_has_the_identity_as_derivative():
    wide = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(narrow(wide, torch.float32).sum(), wide)
    assert torch.equal(grad, torch.ones(3, dtype=torch.float64))


def test_the_estimate_weighs_errors_by_cotangents():
    # Errors E |a|^(N-k), weights s^k: for N = 2, a = 1/2, s = 1/4 the mean is (s E/2 + s^2 E) / (s + s^2) = 3/5 E.
    estimate = gradient_error_estimate(1e-3, 1 / 16, 2, 0.5, of_start=False)
    assert estimate == pytest.approx(0.6e-3, rel=1e-12)
    assert gradient_error_estimate(1e-3, 1 / 16, 2, 0.5, of_start=True) == pytest.approx(1e-3, rel=1e-12)


@pytest.mark.parametrize(("error", "cotangent"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, 1.0)])
def test_an_estimate_from_numbers_that_are_not_finite_is_infinite(error, cotangent):
    assert gradient_error_estimate(error, cotangent, 4, 0.5, of_start=False) == math.inf


def imaginary_run(adjoint: ReversibleAdjoint | UnrolledAdjoint) -> tuple[tuple[Tensor, ...], Health | None]:
    """A rotation by beta 1.5, which diverges: states and cotangents of 1e20, whose products float32 does not hold."""
    weight = torch.tensor([[0.0, 0.9], [-0.9, 0.0]]).requires_grad_()
    z0 = torch.tensor([[1.0, 0.5]]).requires_grad_()
    solution: Any = solve(
        lambda z, w: z @ w + 1, z0, weight, solver=Reversible(1.9, state_dtype=torch.float32), adjoint=adjoint,
        max_steps=32, throw=False,
    )  # fmt: skip
    return torch.autograd.grad(solution.z1.sum(), (z0, weight)), solution.health


def test_gradients_that_overflow_are_not_returned_silently_whatever_is_asked():
    grads, _ = imaginary_run(UnrolledAdjoint())
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)
    with pytest.raises(GradientError, match="left the range of their dtypes"):
        imaginary_run(ReversibleAdjoint(min_bits=0, on_untrusted="raise"))
    with pytest.warns(UserWarning, match="left the range of their dtypes"):
        imaginary_run(ReversibleAdjoint(min_bits=0, on_untrusted="warn"))
    found, health = imaginary_run(ReversibleAdjoint(min_bits=0))
    assert health is not None
    assert health.fell_back
    assert all(bool(torch.isfinite(grad).all()) for grad in found)


def test_a_state_that_f_cannot_hold_is_not_trusted_whatever_is_asked():
    # The float64 state is 1e38 in reverse, infinite in float32: f saturates, and its VJP would be 0 times infinity.
    adjoint = ReversibleAdjoint(min_bits=0)
    grads, health = gradients("dense", 0.9, 0.95, 40, adjoint, torch.float32, of_start=False)
    assert health is not None
    assert health.fell_back
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)
