"""Every solver with every adjoint: the gradient that the pair promises, or a refusal in words."""

import inspect
from typing import Any

import pytest
import torch

import revdeq.adjoint
import revdeq.solver
from revdeq import (
    GMRES,
    Adjoint,
    Anderson,
    Broyden,
    CheckpointedAdjoint,
    ForwardBackward,
    ImplicitAdjoint,
    PeacemanRachford,
    PhantomAdjoint,
    Relaxed,
    Reversible,
    ReversibleAdjoint,
    Solver,
    UnrolledAdjoint,
    solve,
)
from revdeq.nn import Monotone


SOLVERS = [
    Relaxed(0.4),
    Reversible(0.8),
    Reversible(0.75, arithmetic="bitwise"),
    Anderson(),
    Broyden(),
    PeacemanRachford(1.0),
    ForwardBackward(0.3),
]
EXACT = [UnrolledAdjoint(), CheckpointedAdjoint(1), CheckpointedAdjoint(3), CheckpointedAdjoint(None)]
AT_THE_FIXED_POINT = [
    ImplicitAdjoint(solver=GMRES(), rtol=1e-12),
    ImplicitAdjoint(solver=Anderson(), rtol=1e-12),
    ImplicitAdjoint(solver=Broyden(), rtol=1e-12),
    PhantomAdjoint(200, 0.4),
]


def gradients(solver, adjoint, *, converged):
    """Return the gradients of a loss on z1 in x, in the parameters, and in z0 (None where there is none)."""
    torch.manual_seed(1)
    cell = Monotone(6, 4, margin=0.5, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    z0 = torch.rand(3, 6, dtype=torch.float64, requires_grad=True)
    tolerances: dict[str, Any] = {"max_steps": 400, "rtol": 1e-10, "atol": 0.0} if converged else {"max_steps": 5}
    found = solve(cell, z0, x, solver=solver, adjoint=adjoint, **tolerances)
    weights = torch.linspace(-1.0, 2.0, 18, dtype=torch.float64).reshape(3, 6)
    return torch.autograd.grad((found.z1 * weights).sum(), (x, *cell.parameters(), z0), allow_unused=True)


@pytest.fixture(scope="module")
def implicit():
    return gradients(PeacemanRachford(1.0), ImplicitAdjoint(solver=GMRES(24), rtol=1e-13), converged=True)[:-1]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize(
    ("adjoint", "converged"), [*((a, False) for a in EXACT[1:]), (EXACT[-1], True)], ids=lambda value: repr(value)
)
def test_gradient_of_the_steps_taken_equals_the_unrolled_one_to_the_bit(solver, adjoint, converged):
    expected = gradients(solver, UnrolledAdjoint(), converged=converged)
    got = gradients(solver, adjoint, converged=converged)
    assert all(torch.equal(g, e) for g, e in zip(got, expected, strict=True))


@pytest.mark.parametrize("solver", [s for s in SOLVERS if isinstance(s, Reversible)], ids=repr)
def test_reversible_gradient_equals_the_unrolled_one(solver):
    expected = gradients(solver, UnrolledAdjoint(), converged=False)
    got = gradients(solver, ReversibleAdjoint(), converged=False)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("adjoint", [*EXACT[:1], *AT_THE_FIXED_POINT], ids=repr)
def test_gradient_at_convergence_is_that_of_the_fixed_point(solver, adjoint, implicit):
    *got, start = gradients(solver, adjoint, converged=True)
    # A residual of 1e-10 of the norm, times the condition of this problem; bitwise states are rounded beside.
    for g, e in zip(got, implicit, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-6, atol=1e-7)
    if not isinstance(adjoint, UnrolledAdjoint):
        assert start is None


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not isinstance(s, Reversible)], ids=repr)
def test_steps_without_an_inverse_are_refused(solver):
    with pytest.raises(TypeError, match="whose steps have no inverse"):
        gradients(solver, ReversibleAdjoint(), converged=False)


@pytest.mark.parametrize("adjoint", [*EXACT, *AT_THE_FIXED_POINT, ReversibleAdjoint()], ids=repr)
def test_a_solver_of_affine_equations_is_refused_with_every_adjoint(adjoint):
    with pytest.raises(TypeError, match="solves affine equations alone"):
        gradients(GMRES(), adjoint, converged=False)


def test_the_product_of_all_solvers_and_adjoints_is_walked():
    def public(package, base):
        kinds = [kind for kind in vars(package).values() if inspect.isclass(kind) and issubclass(kind, base)]
        return {kind for kind in kinds if not inspect.isabstract(kind)}

    assert {type(solver) for solver in SOLVERS} | {GMRES} == public(revdeq.solver, Solver)
    adjoints = {type(adjoint) for adjoint in (*EXACT, *AT_THE_FIXED_POINT)} | {ReversibleAdjoint}
    assert adjoints == public(revdeq.adjoint, Adjoint)


@pytest.mark.parametrize("solver", [PeacemanRachford(), ForwardBackward()], ids=repr)
@pytest.mark.parametrize("adjoint", [*EXACT, *AT_THE_FIXED_POINT], ids=repr)
def test_a_function_without_a_splitting_is_refused(solver, adjoint):
    with pytest.raises(TypeError, match="needs a function with a method split"):
        solve(lambda z, a: z, torch.zeros(1, 2), solver=solver, adjoint=adjoint, max_steps=1)
