"""Health: the reversal measures itself at no extra evaluation, claims about as many bits as it has, and acts on it."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from revdeq import GradientError, Health, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.adjoint.trust import gradient_error_estimate, significand_bits


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "softplus": torch.nn.functional.softplus,
    "affine": lambda t: t,
}


def matrix(spectrum: str, constant: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    found = {"general": found, "real": found + found.T, "imaginary": found - found.T}[spectrum]
    return found * (constant / float(torch.linalg.matrix_norm(found, 2)))


def measured(
    spectrum: str, constant: float, beta: float, steps: int, dtype: torch.dtype, state: torch.dtype, activation: str
) -> tuple[Health, list[float]]:
    """Return the health of one reversal, and the true relative errors of the gradients of W, x and z0."""
    weight = matrix(spectrum, constant, steps).to(dtype).requires_grad_()
    x = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64).reshape(3, 8).sin().to(dtype).requires_grad_()
    z0 = torch.zeros(3, 8, dtype=dtype, requires_grad=True)

    def run(adjoint: Any) -> tuple[Any, tuple[torch.Tensor, ...]]:
        found = solve(
            lambda z, a: ACTIVATIONS[activation](z @ a[0] + a[1]),
            z0,
            (weight, x),
            solver=Reversible(beta, state_dtype=state),
            adjoint=adjoint,
            max_steps=steps,
        )
        loss = (found.z1 * torch.linspace(-1.0, 1.0, 24).reshape(3, 8).to(dtype)).sum()
        return found, torch.autograd.grad(loss, (weight, x, z0))

    _, want = run(UnrolledAdjoint())
    found, got = run(ReversibleAdjoint(min_bits=0))
    errors = [float((g - w).double().norm() / w.double().norm()) for g, w in zip(got, want, strict=True)]
    return found.health, errors


GRID = list(
    itertools.product(
        ("general", "real", "imaginary"),
        (0.6, 1.1),
        (0.3, 0.5, 0.8, 1.2),
        (3, 10),
        ((torch.float32, torch.float32), (torch.float64, torch.float64), (torch.float32, torch.float64)),
        ("tanh", "affine"),
    )
)


def test_bits_left_are_at_most_seven_too_many_and_seldom_more_than_two():
    excess: list[float] = []
    for spectrum, constant, beta, steps, (dtype, state), activation in GRID:
        health, errors = measured(spectrum, constant, beta, steps, dtype, state, activation)
        assert health.bits_left is not None
        worst = max(errors)
        true = min(-math.log2(worst) if worst > 0.0 else math.inf, float(significand_bits(dtype)))
        if health.bits_left > 0.0 and not health.fell_back:
            excess.append(health.bits_left - true)
    assert len(excess) > 0.7 * len(GRID)
    excess.sort()
    assert excess[-1] < 7.0
    assert excess[int(0.98 * len(excess))] < 2.0
    assert excess[len(excess) // 2] <= 0.0
    assert excess[len(excess) // 4] > -12.0  # and not so careful that it says nothing


@pytest.mark.parametrize(("beta", "steps", "fewest"), [(0.5, 4, 24.0), (0.8, 2, 24.0), (0.8, 8, 0.0)])
def test_settings_of_the_paper_are_believed_as_they_deserve(beta: float, steps: int, fewest: float):
    health, errors = measured("general", 0.9, beta, steps, torch.float32, torch.float64, "tanh")
    assert health.bits_left is not None
    assert health.bits_left >= fewest
    assert max(errors) <= max(2.0 ** (2.0 - health.bits_left), 2.0**-22)


def test_reconstruction_error_is_the_distance_from_the_start(problem: Problem):
    z0, weight, x = problem
    solver = Reversible(0.8)
    found: Any = solve(
        lambda z, a: torch.tanh(z @ weight + a), z0, x, solver=solver, adjoint=ReversibleAdjoint(), max_steps=5
    )
    found.z1.sum().backward()
    with torch.no_grad():
        y, z = (found.y1,), (found.z1,)
        for _ in range(5):
            z = solver.undo_z(z, (torch.tanh(y[0] @ weight + x),))
            y = solver.undo_y(y, (torch.tanh(z[0] @ weight + x),))
        moved = torch.linalg.vector_norm(torch.stack([y[0] - z0, z[0] - z0]))
        size = torch.linalg.vector_norm(torch.stack([found.y1, found.z1]))
    assert found.health.reconstruction_error == pytest.approx(float(moved / size), rel=1e-12)
    assert found.health.reconstruction_error > 0.0


def hard(problem: Problem, adjoint: Any) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """Reverse so far that hardly a bit is left."""
    _, weight, x = problem
    found = solve(
        lambda z, a: torch.sin(0.95 * z + z @ weight.square() + 0.1 * a),
        torch.zeros_like(x),
        x,
        solver=Reversible(0.8),
        adjoint=adjoint,
        max_steps=12,
    )
    return found, torch.autograd.grad(found.z1.square().sum(), (weight, x), retain_graph=True)


def test_untrusted_gradient_is_computed_again_by_default(problem: Problem):
    found, got = hard(problem, ReversibleAdjoint())
    _, want = hard(problem, UnrolledAdjoint())
    assert found.health.fell_back
    assert found.health.bits_left < 10.0
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-14)


def test_fallback_gives_the_unrolled_gradients_of_all_leaves(agree, problem: Problem):
    z0, weight, x = problem
    captured = 1.5 * weight
    for tolerance in (None, 1e-5):
        agree(
            lambda z, a: torch.tanh(z @ captured + a["x"] * a["w"].sum()),
            z0,
            {"x": x, "w": weight},
            (z0, weight, x),
            adjoint=ReversibleAdjoint(min_bits=100),
            max_steps=30 if tolerance else 5,
            rtol=tolerance,
            atol=tolerance,
        )


def test_untrusted_gradient_raises_where_that_was_asked(problem: Problem):
    adjoint = ReversibleAdjoint(on_untrusted="raise")
    with pytest.raises(GradientError, match=r"about \d+\.\d bits left, below min_bits = .* take fewer steps"):
        hard(problem, adjoint)


def test_untrusted_gradient_warns_where_that_was_asked(problem: Problem):
    adjoint = ReversibleAdjoint(on_untrusted="warn")
    with pytest.warns(UserWarning, match=r"about \d+\.\d bits left, below min_bits"):
        found, _ = hard(problem, adjoint)
    assert not found.health.fell_back


def test_min_bits_is_the_threshold(problem: Problem):
    found, _ = hard(problem, ReversibleAdjoint(min_bits=0))
    bits = found.health.bits_left
    assert not hard(problem, ReversibleAdjoint(min_bits=bits))[0].health.fell_back
    assert hard(problem, ReversibleAdjoint(min_bits=bits + 0.01))[0].health.fell_back


@pytest.mark.parametrize("policy", ["checkpoint", "raise", "warn"])
def test_overflow_in_reverse_is_never_returned_silently(policy: Any):
    x = torch.ones(2, 3, requires_grad=True)

    def run(adjoint: Any) -> tuple[Any, torch.Tensor]:
        found = solve(
            lambda z, a: 0.9 * torch.nn.functional.softplus(z) + a,
            torch.zeros(2, 3),
            x,
            solver=Reversible(0.95, state_dtype=torch.float32),
            adjoint=adjoint,
            max_steps=40,
        )
        return found, torch.autograd.grad(found.z1.sum(), x)[0]

    adjoint = ReversibleAdjoint(min_bits=0, on_untrusted=policy)
    if policy == "raise":
        with pytest.raises(GradientError, match="left the range of their dtypes"):
            run(adjoint)
    elif policy == "warn":
        with pytest.warns(UserWarning, match="left the range of their dtypes"):
            run(adjoint)
    else:
        found, got = run(adjoint)
        assert found.health.fell_back
        torch.testing.assert_close(got, run(UnrolledAdjoint())[1], rtol=1e-5, atol=1e-6)


def test_overflow_of_a_narrow_function_in_reverse_is_never_returned_silently():
    x = torch.linspace(-1.0, 1.0, 6).reshape(2, 3).requires_grad_()
    weight = torch.full((3, 3), 0.3).requires_grad_()

    def run(adjoint: Any) -> tuple[Any, tuple[torch.Tensor, ...]]:
        found = solve(
            lambda z, a: torch.tanh(z @ weight + a),
            torch.zeros(2, 3),
            x,
            solver=Reversible(0.95),
            adjoint=adjoint,
            max_steps=60,
        )
        return found, torch.autograd.grad(found.z1.sum(), (x, weight))

    # The float64 states are rebuilt far outside float32, but finite: only the gradient of W, z^T p, is NaN.
    found, got = run(ReversibleAdjoint(min_bits=0))
    assert found.health.fell_back
    for g, w in zip(got, run(UnrolledAdjoint())[1], strict=True):
        torch.testing.assert_close(g, w, rtol=1e-5, atol=1e-6)


def test_hook_gets_the_health_of_every_backward_pass(problem: Problem):
    seen: list[tuple[int, float | None]] = []
    adjoint = ReversibleAdjoint(on_health=lambda health: seen.append((health.passes, health.bits_left)))
    found, _ = hard(problem, adjoint)
    found.z1.sum().backward()
    assert [passes for passes, _ in seen] == [1, 2]
    assert all(bits is not None for _, bits in seen)


def test_health_is_empty_before_backward_and_absent_for_other_adjoints(problem: Problem):
    z0, weight, x = problem
    options: Any = {"solver": Reversible(0.8), "max_steps": 2}
    fresh = solve(lambda z, a: torch.tanh(z @ weight + a), z0, x, adjoint=ReversibleAdjoint(), **options)
    assert fresh.health == Health()
    assert solve(lambda z, a: z, z0, x, adjoint=UnrolledAdjoint(), **options).health is None


def test_estimate_is_infinite_where_a_measurement_is_not_finite():
    for bad in (math.nan, math.inf):
        assert gradient_error_estimate(bad, 0.5, 4, 0.2, of_start=False) == math.inf
        assert gradient_error_estimate(1e-9, bad, 4, 0.2, of_start=False) == math.inf


def test_estimate_of_a_perfect_reversal_is_zero():
    assert gradient_error_estimate(0.0, 0.5, 4, 0.2, of_start=True) == 0.0


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float64, 53), (torch.float32, 24), (torch.bfloat16, 8)])
def test_significand_bits_are_those_of_the_format(dtype: torch.dtype, bits: int):
    assert significand_bits(dtype) == bits


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150, 1e200])
def test_gradient_is_right_at_tiny_and_huge_scales(scale: float):
    x = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(2, 3)

    def run(adjoint: Any, scale: float) -> torch.Tensor:
        a = (scale * x).requires_grad_()
        found = solve(
            lambda z, a: 0.5 * z + a, torch.zeros_like(a), a, solver=Reversible(0.8), adjoint=adjoint, max_steps=4
        )
        return torch.autograd.grad(found.z1, a, scale * torch.ones_like(a))[0]

    torch.testing.assert_close(
        run(ReversibleAdjoint(), scale) / scale, run(UnrolledAdjoint(), 1.0), rtol=1e-11, atol=1e-13
    )
