"""Health: what a backward pass verified, took again and kept, and what plain reversal estimates of itself."""

import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from revdeq import (
    CheckpointedAdjoint,
    GradientError,
    Health,
    ImplicitAdjoint,
    PhantomAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)
from revdeq.adjoint.plain import gradient_error_estimate
from revdeq.nn import DEQ, Dense


Problem = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"tanh": torch.tanh, "affine": lambda t: t}
BITS = {torch.float32: 24.0, torch.float64: 53.0}


def matrix(spectrum: str, constant: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    found = {"general": found, "real": found + found.T, "imaginary": found - found.T}[spectrum]
    return found * (constant / float(torch.linalg.matrix_norm(found, 2)))


def measured(
    spectrum: str, constant: float, beta: float, steps: int, dtype: torch.dtype, state: torch.dtype, activation: str
) -> tuple[Health, list[float]]:
    """Return the health of one unchecked reversal, and the relative errors that it caused in W, x and z0."""
    weight = matrix(spectrum, constant, steps).to(dtype).requires_grad_()
    x = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64).reshape(3, 8).sin().to(dtype).requires_grad_()
    z0 = torch.zeros(3, 8, dtype=dtype, requires_grad=True)

    def run(adjoint: ReversibleAdjoint) -> tuple[Any, tuple[torch.Tensor, ...]]:
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

    _, want = run(ReversibleAdjoint(segment=1))
    found, got = run(ReversibleAdjoint(verify=False))
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


def bits(error: float, dtype: torch.dtype) -> float:
    return min(-math.log2(error) if error > 0.0 else math.inf, BITS[dtype])


def test_the_estimate_of_plain_reversal_claims_no_bit_too_many_and_says_something():
    excess: list[float] = []
    for spectrum, constant, beta, steps, (dtype, state), activation in GRID:
        health, errors = measured(spectrum, constant, beta, steps, dtype, state, activation)
        assert health.reversal_error is not None
        claimed = bits(health.reversal_error, dtype)
        if claimed > 0.0:
            excess.append(claimed - bits(max(errors[:2]), dtype))
    assert len(excess) > 0.9 * len(GRID)
    excess.sort()
    assert excess[-1] < 1.0
    assert excess[int(0.98 * len(excess))] <= 0.25
    assert excess[len(excess) // 4] > -3.0  # and not so careful that it says nothing


def test_reconstruction_error_is_the_distance_from_the_start(problem: Problem):
    z0, weight, x = problem
    solver = Reversible(0.8)
    found: Any = solve(
        lambda z, a: torch.tanh(z @ weight + a),
        z0,
        x,
        solver=solver,
        adjoint=ReversibleAdjoint(verify=False),
        max_steps=5,
    )
    found.z1.sum().backward()
    with torch.no_grad():
        y, z = (found.y1,), (found.z1,)
        steps = solver.bound_to(None, 5)
        for n in reversed(range(5)):
            z = steps.undo_z(z, (torch.tanh(y[0] @ weight + x),), n=n)
            y = steps.undo_y(y, (torch.tanh(z[0] @ weight + x),), n=n)
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


def test_plain_reversal_says_what_it_lost_and_claims_nothing(problem: Problem):
    found, got = hard(problem, ReversibleAdjoint(verify=False))
    _, want = hard(problem, ReversibleAdjoint(segment=1))
    assert found.health.verified is False
    worst = max(float((g - w).norm() / w.norm()) for g, w in zip(got, want, strict=True))
    assert 1e-6 < worst <= 4.0 * found.health.reversal_error
    assert found.health.segments == found.health.repeated_segments == 0
    assert found.health.replay_error is None


@pytest.mark.parametrize(("segment", "segments"), [(None, 0), (1, 0), (2, 6), (5, 3), (12, 1), (100, 1)])
def test_checked_reversal_says_that_nothing_was_lost_and_what_it_took_again(
    problem: Problem, segment: int | None, segments: int
):
    found, got = hard(problem, ReversibleAdjoint(segment=segment))
    _, want = hard(problem, UnrolledAdjoint())
    assert found.health.verified is True
    assert found.health.replay_error == 0.0
    assert found.health.segments == segments
    # In float64 a step undone is rarely undone to the bit.
    assert found.health.repeated_segments == segments
    assert (found.health.repeated_evaluations > 0) == (segments > 0)
    assert found.health.reconstruction_error is found.health.reversal_error is found.health.start_cotangent is None
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-14, atol=1e-15)


def overflowing(adjoint: Any, state_dtype: Any) -> tuple[Any, torch.Tensor]:
    x = torch.ones(2, 3, requires_grad=True)
    found = solve(
        lambda z, a: 0.9 * torch.nn.functional.softplus(z) + a,
        torch.zeros(2, 3),
        x,
        solver=Reversible(0.95, state_dtype=state_dtype),
        adjoint=adjoint,
        max_steps=40,
    )
    return found, torch.autograd.grad(found.z1.sum(), x)[0]


@pytest.mark.parametrize("state_dtype", [torch.float32, None])
def test_states_that_overflow_in_reverse_are_never_returned(state_dtype: Any):
    _, want = overflowing(UnrolledAdjoint(), state_dtype)
    if state_dtype is not None:
        # Softplus has a finite slope at infinity, so no gradient shows it.
        found, got = overflowing(ReversibleAdjoint(verify=False), state_dtype)
        assert (found.health.verified, found.health.repeated_segments) == (False, 1)
        assert torch.equal(got, want)
    for segment in (None, 7, 40):
        found, got = overflowing(ReversibleAdjoint(segment=segment), state_dtype)
        assert found.health.verified
        assert (found.health.repeated_segments > 0) == (segment == 40 or (segment == 7 and state_dtype is not None))
        assert torch.equal(got, want)


def test_gradients_that_overflow_where_the_states_do_not_are_never_returned():
    # A rotation by beta 1.9 diverges: states and cotangents of 1e20, whose products float32 does not hold.
    weight = torch.tensor([[0.0, 0.9], [-0.9, 0.0]]).requires_grad_()
    z0 = torch.tensor([[1.0, 0.5]]).requires_grad_()

    def run(adjoint: Any) -> tuple[torch.Tensor, ...]:
        solver = Reversible(1.9, state_dtype=torch.float32)
        found = solve(lambda z, w: z @ w + 1, z0, weight, solver=solver, adjoint=adjoint, max_steps=32, throw=False)
        return torch.autograd.grad(found.z1.sum(), (z0, weight))

    want = run(UnrolledAdjoint())
    assert all(bool(torch.isfinite(leaf).all()) for leaf in want)
    for adjoint in (ReversibleAdjoint(verify=False), ReversibleAdjoint()):
        for got, leaf in zip(run(adjoint), want, strict=True):
            torch.testing.assert_close(got, leaf, rtol=2.0**-22, atol=0.0)


def test_hook_gets_the_health_of_every_backward_pass(problem: Problem):
    seen: list[tuple[int, bool | None, int]] = []
    adjoint = ReversibleAdjoint(
        segment=4, on_health=lambda health: seen.append((health.passes, health.verified, health.repeated_segments))
    )
    found, _ = hard(problem, adjoint)
    found.z1.sum().backward()
    assert seen == [(1, True, 3), (2, True, 3)]


def test_a_pass_that_is_refused_forgets_what_the_one_before_it_verified(problem: Problem):
    z0, weight, x = problem
    scale = [1.0]
    found: Any = solve(lambda z, a: torch.tanh(scale[0] * (z @ weight) + a), z0, x, max_steps=3)
    found.z1.sum().backward(retain_graph=True)
    assert found.health.verified
    scale[0] = 1.5
    with pytest.raises(GradientError, match="does not repeat"):
        found.z1.sum().backward()
    assert not found.health.verified
    assert found.health.passes == 2


def test_health_is_empty_but_for_its_bytes_before_backward_and_absent_for_other_adjoints(problem: Problem):
    z0, weight, x = problem
    options: Any = {"solver": Reversible(0.8), "max_steps": 2}
    fresh: Any = solve(lambda z, a: torch.tanh(z @ weight + a), z0, x, adjoint=ReversibleAdjoint(), **options)
    assert fresh.health == Health(stored_bytes=fresh.health.stored_bytes)
    assert solve(lambda z, a: z, z0, x, adjoint=UnrolledAdjoint(), **options).health is None
    with torch.no_grad():
        without: Any = solve(lambda z, a: torch.tanh(z @ weight + a), z0, x, adjoint=ReversibleAdjoint(), **options)
    assert without.health == Health()


def test_estimate_is_infinite_where_a_measurement_is_not_finite():
    for bad in (math.nan, math.inf):
        assert gradient_error_estimate(bad, 0.5, 4, 0.2) == math.inf
        assert gradient_error_estimate(1e-9, bad, 4, 0.2) == math.inf


def test_estimate_of_a_perfect_reversal_is_zero():
    assert gradient_error_estimate(0.0, 0.5, 4, 0.2) == 0.0


def test_the_estimate_weighs_errors_by_cotangents():
    # Errors E |a|^(N-k), weights s^k: for N = 2, a = 1/2, s = 1/4 the mean is (s E/2 + s^2 E) / (s + s^2) = 3/5 E.
    assert gradient_error_estimate(1e-3, 1 / 16, 2, 0.5) == pytest.approx(0.6e-3, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150, 1e200])
@pytest.mark.parametrize("adjoint", [ReversibleAdjoint(), ReversibleAdjoint(segment=2)], ids=repr)
def test_gradient_is_right_at_tiny_and_huge_scales(adjoint: ReversibleAdjoint, scale: float):
    x = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).reshape(2, 3)

    def run(adjoint: Any, scale: float) -> torch.Tensor:
        a = (scale * x).requires_grad_()
        found = solve(
            lambda z, a: 0.5 * z + a, torch.zeros_like(a), a, solver=Reversible(0.8), adjoint=adjoint, max_steps=4
        )
        return torch.autograd.grad(found.z1, a, scale * torch.ones_like(a))[0]

    torch.testing.assert_close(run(adjoint, scale) / scale, run(UnrolledAdjoint(), 1.0), rtol=1e-14, atol=0.0)


HEALTHS: list[Health] = []


def take_note(health: Health) -> None:  # at the top of a module, so that what holds it can be pickled
    HEALTHS.append(health)


@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        (ReversibleAdjoint, Reversible(0.8)),
        (ImplicitAdjoint, Relaxed(0.9)),
        (PhantomAdjoint, Relaxed(0.9)),
        (CheckpointedAdjoint, Reversible(0.8)),
        (UnrolledAdjoint, Reversible(0.8)),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_every_adjoint_reports_each_pass_once_and_names_the_layer(kind: Any, solver: Any):
    HEALTHS.clear()
    cell = Dense(4)
    layer = pickle.loads(
        pickle.dumps(DEQ(cell, solver=solver, adjoint=kind(on_health=take_note), max_steps=30, name="a"))
    )
    for _ in range(2):
        layer(torch.ones(2, 4)).square().sum().backward()
    assert [(health.layer, health.passes) for health in HEALTHS] == [("a", 1), ("a", 1)]
    with pytest.raises(TypeError, match=r"on_health is a int; it must be callable as on_health\(health\)"):
        kind(on_health=3)


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(), PhantomAdjoint()], ids=repr)
def test_the_adjoints_of_the_fixed_point_say_whether_f_repeated(adjoint: Any):
    x = torch.ones(2, 4, requires_grad=True)
    found = solve(lambda z, x: torch.tanh(0.3 * z + x), torch.zeros(2, 4), x, adjoint=adjoint, max_steps=30)
    found.z1.sum().backward()
    assert found.health is not None
    assert (found.health.verified, found.health.replay_error, found.health.passes) == (True, 0.0, 1)
