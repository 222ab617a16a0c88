"""Schedules, "auto" and "adaptive" betas of the reversible solver: the same gradient by every adjoint, and no trace."""

import math
from typing import Any

import pytest
import torch

from revdeq import (
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    Result,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)
from revdeq._estimate import EstimateError
from revdeq._schedule import NEAREST_TO_ONE, chebyshev_schedule
from revdeq.rates import optimal_beta


RELAXATIONS = (chebyshev_schedule(12, 0.9), ((0.3, 1.4), (1.7, 0.6)) * 6, "auto", "adaptive")
ADJOINTS = (
    CheckpointedAdjoint(3),
    ReversibleAdjoint(),
    # In float64 hardly a segment is undone to the bit: it is taken again, with the betas that were recorded.
    ReversibleAdjoint(segment=4),
)


def weight(largest=0.9, size=6):
    basis = torch.linalg.qr(torch.sin(torch.outer(*[torch.arange(1.0, size + 1, dtype=torch.float64)] * 2) ** 1.3))[0]
    return basis @ torch.diag(torch.linspace(-largest, largest, size, dtype=torch.float64)) @ basis.T


def start(*shape):
    return torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).reshape(shape)


def function(z, args):
    w, x = args
    return torch.tanh(z @ w + x)


def gradients(relaxation, adjoint, z0, dtype: Any = torch.float64, **options: Any) -> tuple[Any, Any]:
    z0 = z0.to(dtype).requires_grad_()
    w, x = weight().to(dtype).requires_grad_(), torch.linspace(0, 1, 6, dtype=dtype).requires_grad_()
    solver = Reversible(relaxation)
    settings: Any = {"max_steps": 12, **options}
    solution: Any = solve(function, z0, (w, x), solver=solver, adjoint=adjoint, **settings)
    loss = (solution.z1 * start(*z0.shape)).sum() + 0.3 * solution.y1.sum()
    return solution, torch.autograd.grad(loss, (z0, w, x))


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=["chebyshev", "uneven", "auto", "adaptive"])
@pytest.mark.parametrize("shape", [(6,), (3, 6)], ids=["one", "batch"])
def test_every_adjoint_returns_the_same_gradient_for_every_relaxation(relaxation, shape):
    _, expected = gradients(relaxation, UnrolledAdjoint(), start(*shape))
    for adjoint in ADJOINTS:
        solution, found = gradients(relaxation, adjoint, start(*shape))
        assert solution.health is None or solution.health.verified
        for got, wanted in zip(found, expected, strict=True):
            # Sums of three parts in another order.
            assert float((got - wanted).norm() / wanted.norm()) <= 2.0**-50


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=["chebyshev", "uneven", "auto", "adaptive"])
def test_samples_that_stop_by_themselves_keep_their_gradient(relaxation):
    # The first sample begins at its fixed point and takes no step; the others take unequal numbers.
    z0 = start(3, 6)
    with torch.no_grad():
        z0[0] = solve(
            function,
            z0[:1],
            (weight(), torch.linspace(0, 1, 6, dtype=torch.float64)),
            solver=Reversible(1.4),
            adjoint=UnrolledAdjoint(),
            max_steps=80,
        ).z1[0]
    options: Any = {"rtol": 1e-4, "atol": 0.0, "throw": False}
    reference, expected = gradients(relaxation, UnrolledAdjoint(), z0, **options)
    assert int(reference.num_steps[0]) == 0 < int(reference.num_steps.max())
    for adjoint in ADJOINTS:
        solution, found = gradients(relaxation, adjoint, z0, **options)
        assert torch.equal(solution.num_steps, reference.num_steps)
        for got, wanted in zip(found, expected, strict=True):
            assert float((got - wanted).norm() / wanted.norm()) <= 2.0**-50


def test_float32_function_with_adaptive_betas_keeps_all_its_bits():
    options: Any = {"dtype": torch.float32, "max_steps": 3}
    solution, found = gradients("adaptive", ReversibleAdjoint(), start(3, 6), **options)
    _, expected = gradients("adaptive", UnrolledAdjoint(), start(3, 6), **options)
    assert solution.health is not None
    assert solution.health.repeated_segments == 0
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got, wanted)


def test_a_tree_of_leaves_is_paced_by_its_joint_residual():
    w = weight().requires_grad_()
    z0 = {"a": start(4, 6), "b": start(4, 3, 2)}

    def coupled(z, args):
        mixed = z["b"].reshape(4, 6)
        return {"a": torch.tanh(mixed @ args), "b": (0.5 * z["a"] @ args).reshape(4, 3, 2)}

    grads = []
    for adjoint in (UnrolledAdjoint(), ReversibleAdjoint()):
        solution: Any = solve(coupled, z0, w, solver=Reversible("adaptive"), adjoint=adjoint, max_steps=6)
        assert solution.beta.shape == (4, 6)
        grads.append(torch.autograd.grad(solution.z1["a"].sum() + solution.y1["b"].sum(), w)[0])
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) <= 2.0**-50


def test_a_sample_does_not_depend_on_the_pace_of_the_others():
    args = (weight(), torch.linspace(0, 1, 6, dtype=torch.float64))
    many: Any = solve(
        function, start(3, 6), args, solver=Reversible("adaptive"), adjoint=UnrolledAdjoint(), max_steps=9
    )
    one: Any = solve(
        function, start(3, 6)[1:2], args, solver=Reversible("adaptive"), adjoint=UnrolledAdjoint(), max_steps=9
    )
    # Products of other shapes may round otherwise; the betas follow ratios of residuals that are far above that.
    assert torch.allclose(many.beta[1], one.beta[0], rtol=1e-9, atol=0)
    assert torch.allclose(many.z1[1], one.z1[0], rtol=1e-9, atol=0)


def test_adaptive_beta_finds_youngs_optimum_and_keeps_it():
    def linear(z, args):
        return z @ args + 1

    solution: Any = solve(
        linear,
        torch.zeros(1, 6, dtype=torch.float64),
        weight(0.97),
        solver=Reversible("adaptive"),
        adjoint=UnrolledAdjoint(),
        max_steps=200,
        rtol=1e-12,
        atol=0.0,
    )
    fixed = solve(
        linear,
        torch.zeros(1, 6, dtype=torch.float64),
        weight(0.97),
        solver=Reversible(0.8),
        adjoint=UnrolledAdjoint(),
        max_steps=2000,
        rtol=1e-12,
        atol=0.0,
    )
    taken = solution.beta[0, : int(solution.num_steps)]
    best = optimal_beta(0.97, "real")
    assert bool(torch.isfinite(taken).all())
    assert bool(torch.isnan(solution.beta[0, int(solution.num_steps) :]).all())
    # Transients of the nearly double eigenvalue make k look larger than it is, never smaller.
    assert best <= 1.001 * float(taken.max()) <= 1.1 * best
    assert 5 * int(solution.num_steps) <= int(fixed.num_steps)
    assert bool(((taken - 1).abs() >= NEAREST_TO_ONE).all())


def test_auto_reports_its_beta_and_what_it_spent():
    calls = 0

    def counted(z, args):
        nonlocal calls
        calls += 1
        return function(z, args)

    args = (weight(), torch.linspace(0, 1, 6, dtype=torch.float64))
    solution = solve(counted, start(3, 6), args, solver=Reversible("auto"), adjoint=ReversibleAdjoint(), max_steps=8)
    assert solution.estimate is not None
    assert calls == 16 + solution.estimate.evaluations
    assert solution.beta == solution.estimate.beta
    assert 0 < solution.estimate.spectrum.radius < 0.91
    given = solve(counted, start(3, 6), args, solver=Reversible(0.5), adjoint=ReversibleAdjoint(), max_steps=2)
    assert given.estimate is None
    assert given.beta == 0.5


def test_auto_leaves_generators_and_running_statistics_as_the_solve_alone_leaves_them():
    own = torch.Generator().manual_seed(3)

    class Cell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(6, 6)
            self.norm = torch.nn.BatchNorm1d(6)

        def forward(self, z, args):
            noise = torch.rand(6, generator=own)
            return 0.3 * torch.dropout(self.norm(self.linear(z) + 3 * start(4, 6).float()), 0.2, True) + 0.01 * noise

    after: list[Any] = []
    relaxation: Any = "auto"
    for _ in range(2):
        torch.manual_seed(0)
        own.manual_seed(3)
        cell = Cell()
        solution = solve(
            cell, start(4, 6).float(), solver=Reversible(relaxation), adjoint=ReversibleAdjoint(), max_steps=3
        )
        # The second run is given the number that the first one chose.
        relaxation = solution.beta
        after.append((solution.z1, cell.norm.running_mean, torch.get_rng_state(), own.get_state()))
    for one, other in zip(*after, strict=True):
        assert torch.equal(one, other)


def test_auto_refuses_what_no_beta_converges_for_and_names_the_averaged_map():
    def steep(z, args):
        return -1.5 * z

    with pytest.raises(EstimateError, match="averaged map"):
        solve(steep, start(2, 6), solver=Reversible("auto"), adjoint=ReversibleAdjoint(), max_steps=8)


def test_auto_is_refused_inside_transforms_and_adaptive_works_there():
    def loss(z0, relaxation):
        args = (weight(), torch.linspace(0, 1, 6, dtype=torch.float64))
        solver = Reversible(relaxation)
        return solve(function, z0, args, solver=solver, adjoint=UnrolledAdjoint(), max_steps=4, throw=False).z1.sum()

    with pytest.raises(GradientError, match="automatic_beta"):
        torch.func.grad(loss)(start(6), "auto")
    z0 = start(6).requires_grad_()
    (expected,) = torch.autograd.grad(loss(z0, "adaptive"), z0)
    assert torch.equal(torch.func.grad(loss)(start(6), "adaptive"), expected)


def test_implicit_gradient_does_not_see_how_beta_was_chosen():
    w = weight().requires_grad_()
    args = (w, torch.linspace(0, 1, 6, dtype=torch.float64))
    grads = []
    for relaxation in (1.4, "auto", "adaptive"):
        solution = solve(
            function,
            start(3, 6),
            args,
            solver=Reversible(relaxation),
            adjoint=ImplicitAdjoint(rtol=1e-13, atol=0.0),
            max_steps=200,
            rtol=1e-13,
            atol=0.0,
        )
        assert solution.result is Result.CONVERGED
        grads.append(torch.autograd.grad(solution.z1.square().sum(), w)[0])
    for other in grads[1:]:
        assert float((other - grads[0]).norm() / grads[0].norm()) <= 1e-10


def test_a_step_of_a_schedule_is_undone_by_its_own_betas_and_not_without_its_index():
    solver = Reversible(((0.3, 1.4), (1.7, 0.6))).bound_to(None, 2)

    def f(leaves):
        return (torch.tanh(leaves[0]),)

    state = solver.init((start(2, 6),))
    after = solver.step(f, state, f(solver.estimate(state)), 1)
    z = solver.undo_z(after.z, f(solver.coupled(after)), n=1)
    y = solver.undo_y(after.y, f(z), n=1)
    assert torch.allclose(z[0], start(2, 6), rtol=0, atol=2.0**-48)
    assert torch.allclose(y[0], start(2, 6), rtol=0, atol=2.0**-48)
    with pytest.raises(ValueError, match="give n, the index of the step"):
        solver.undo_z(after.z, f(solver.coupled(after)))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("best", ValueError, "'auto' and 'adaptive'"),
        ((), ValueError, "empty schedule"),
        (((0.5, 0.5), (0.5,)), ValueError, "step 1 of the schedule"),
        (((0.5, 0.5), 0.5), ValueError, "step 1 of the schedule"),
        (((0.5, 1.0),), ValueError, "cannot be reversed"),
        (((0.5, 2.5),), ValueError, "0 < beta < 2"),
        (((0.5, "a"),), TypeError, "0 < beta < 2"),
    ],
)
def test_relaxations_outside_their_range_are_refused(given, error, said):
    with pytest.raises(error, match=said):
        Reversible(given)


def test_a_schedule_shorter_than_the_solve_is_refused():
    with pytest.raises(ValueError, match="longer schedule"):
        solve(
            function,
            start(6),
            (weight(), 0.0),
            solver=Reversible(((0.5, 0.5),) * 3),
            adjoint=UnrolledAdjoint(),
            max_steps=4,
        )


@pytest.mark.parametrize("relaxation", [((0.5, 0.5),), "auto", "adaptive"])
def test_bitwise_arithmetic_refuses_betas_that_it_does_not_know_beforehand(relaxation):
    with pytest.raises(ValueError, match="one beta that is known beforehand"):
        Reversible(relaxation, arithmetic="bitwise")


def test_a_solver_that_chooses_its_beta_for_a_function_needs_one():
    with pytest.raises(ValueError, match="looks at the function of a solve"):
        Reversible("auto").bound_to(None, 4)
