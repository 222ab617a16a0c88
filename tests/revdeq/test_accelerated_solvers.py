"""Anderson and Broyden: fast where the plain iteration is slow, and never an error of their own."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from revdeq import (
    GMRES,
    Anderson,
    Broyden,
    CheckpointedAdjoint,
    ImplicitAdjoint,
    Relaxed,
    Result,
    Reversible,
    UnrolledAdjoint,
    solve,
)
from revdeq._iterate import iterate
from revdeq._residual import Stopping


ACCELERATED = [Anderson(), Broyden(), Anderson(0.5, history=1), Broyden(0.5, history=2)]


def affine(dimension: int, radius: float, *, batch: int = 3):
    """Return z -> z K^T + b with spectral radius `radius`, and its fixed point."""
    matrix = torch.randn(dimension, dimension, dtype=torch.float64)
    matrix *= radius / float(torch.linalg.eigvals(matrix).abs().max())
    b = torch.randn(batch, dimension, dtype=torch.float64)
    z_star = torch.linalg.solve(torch.eye(dimension, dtype=torch.float64) - matrix, b.T).T

    def function(z: torch.Tensor, args: Any) -> torch.Tensor:
        return z @ matrix.T + b

    return function, z_star


@pytest.mark.parametrize("solver", [Anderson(history=12), Broyden(history=24)], ids=repr)
@pytest.mark.parametrize("radius", [0.99, 3.0])
def test_an_affine_map_is_solved_whatever_its_spectral_radius(solver, radius):
    function, z_star = affine(6, radius)
    found = solve(
        function,
        torch.zeros_like(z_star),
        solver=solver,
        adjoint=UnrolledAdjoint(),
        max_steps=30,
        rtol=1e-10,
        atol=0.0,
    )
    # ||z - z*|| <= ||(I - K)^{-1}|| residual; 1e4 is more than that norm for these matrices.
    torch.testing.assert_close(found.z1, z_star, rtol=1e-6, atol=1e-6)


def test_anderson_takes_fewer_steps_than_the_plain_iteration():
    function, z_star = affine(20, 0.97)
    steps = {
        type(solver).__name__: int(
            solve(
                function,
                torch.zeros_like(z_star),
                solver=solver,
                adjoint=UnrolledAdjoint(),
                max_steps=2000,
                rtol=1e-8,
                atol=0.0,
            ).num_steps.max()
        )
        for solver in (Relaxed(1.0), Anderson(), Broyden())
    }
    assert 3 * steps["Anderson"] < steps["Relaxed"]
    assert 3 * steps["Broyden"] < steps["Relaxed"]


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
def test_gradient_of_the_steps_is_right(solver):
    weight = (0.4 * torch.randn(3, 3, dtype=torch.float64)).requires_grad_()
    z0 = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def run(z, w):
        return solve(
            lambda z, w: torch.tanh(z @ w + 0.3), z, w, solver=solver, adjoint=UnrolledAdjoint(), max_steps=4
        ).z1

    assert torch.autograd.gradcheck(run, (z0, weight))


DEGENERATE: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "identity": lambda z, a: z,
    "zero": lambda z, a: torch.zeros_like(z),
    "constant": lambda z, a: torch.ones_like(z) + 0 * z,
    "translation": lambda z, a: z + 1,
    "reflection": lambda z, a: -z,
    "permutation": lambda z, a: torch.cat([z[:, 1:], z[:, :1]], dim=1),
    "rank one": lambda z, a: z.sum(dim=1, keepdim=True).expand_as(z),
}


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-30, 1e30])
def test_degenerate_changes_are_no_error_and_leave_no_nan(solver, name, scale):
    z0 = (scale * torch.arange(1.0, 9.0).reshape(2, 4)).requires_grad_()
    found = solve(DEGENERATE[name], z0, solver=solver, adjoint=UnrolledAdjoint(), max_steps=12, throw=False)
    assert bool(torch.isfinite(found.z1).all())
    (gradient,) = torch.autograd.grad(found.z1.sum() + 0 * z0.sum(), z0)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("solver", [*ACCELERATED, GMRES(4)], ids=repr)
@pytest.mark.parametrize(("dtype", "power"), [(torch.float64, 600), (torch.float32, 100)])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_affine_solve_scales_to_the_bit(solver, dtype, power, sign):
    matrix = (0.4 * torch.randn(6, 6, dtype=torch.float64)).to(dtype)
    b = torch.randn(3, 6, dtype=torch.float64).to(dtype)

    def run(scale):
        outcome = iterate(lambda v: (v[0] @ matrix.T + scale * b,), solver, (torch.zeros_like(b),), Stopping(8))
        return solver.estimate(outcome.state)[0]

    scale = 2.0 ** (sign * power)
    assert torch.equal(run(scale), scale * run(1.0))


@pytest.mark.parametrize("solver", [*ACCELERATED, Relaxed(0.7), Reversible(0.7).bound_to(None, 25), GMRES(3)], ids=repr)
def test_fixed_steps_read_no_value(solver):
    # Tensors of the meta device have no values: whatever would wait for a device raises there.
    z0 = (torch.zeros(3, 5, device="meta"), torch.zeros(3, 2, dtype=torch.float64, device="meta"))
    outcome = iterate(lambda z: (0.5 * z[0] + 1, 0.5 * z[1]), solver, z0, Stopping(25))
    assert [leaf.shape for leaf in solver.estimate(outcome.state)] == [leaf.shape for leaf in z0]
    with pytest.raises((NotImplementedError, RuntimeError)):
        iterate(lambda z: (0.5 * z[0] + 1, 0.5 * z[1]), solver, z0, Stopping(2, 1e-3, 0.0))


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
def test_an_expanding_map_ends_with_a_result(solver):
    def function(z, a):
        return 1e30 * z * z + 1

    found = solve(
        function,
        torch.ones(2, 3),
        solver=solver,
        adjoint=UnrolledAdjoint(),
        max_steps=50,
        rtol=1e-6,
        atol=0.0,
        throw=False,
    )
    assert found.result in (Result.NONFINITE, Result.MAX_STEPS_REACHED)


@pytest.mark.parametrize("solver", [*ACCELERATED, Relaxed(0.7)], ids=repr)
def test_a_nan_sample_is_reported_and_harms_no_other(solver):
    weight = 0.3 * torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64)
    broken = x.clone()
    broken[1] = math.nan

    def run(x):
        return solve(
            lambda z, a: torch.tanh(z @ weight + a),
            torch.zeros_like(x),
            x,
            solver=solver,
            adjoint=UnrolledAdjoint(),
            max_steps=60,
            rtol=1e-9,
            atol=0.0,
            throw=False,
        )

    good, bad = run(x), run(broken)
    codes = [Result.CONVERGED.code, Result.NONFINITE.code, Result.CONVERGED.code]
    assert bad.sample_results.tolist() == codes
    for i in (0, 2):
        assert torch.equal(bad.z1[i], good.z1[i])
        assert bad.num_steps[i] == good.num_steps[i]


@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=repr)
def test_a_batch_gives_what_its_samples_give_alone(solver):
    weight = 0.5 * torch.randn(4, 4, dtype=torch.float64)
    x = torch.tensor([0.01, 1.0, 3.0], dtype=torch.float64).unsqueeze(1) * torch.randn(3, 4, dtype=torch.float64)

    def run(x):
        return solve(
            lambda z, a: torch.tanh(z @ weight + a),
            torch.zeros_like(x),
            x,
            solver=solver,
            adjoint=UnrolledAdjoint(),
            max_steps=200,
            rtol=1e-8,
            atol=0.0,
        )

    together = run(x)
    for i in range(3):
        alone = run(x[i : i + 1])
        # The products of one row and of three differ in the last bits, and the steps amplify that a little.
        torch.testing.assert_close(together.z1[i : i + 1], alone.z1, rtol=1e-9, atol=1e-9)
        assert abs(int(together.num_steps[i]) - int(alone.num_steps[0])) <= 1


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
def test_a_solved_start_takes_no_step(solver):
    z0 = torch.zeros(2, 3)
    found = solve(lambda z, a: 0.5 * z, z0, solver=solver, adjoint=UnrolledAdjoint(), max_steps=5, rtol=0.0, atol=0.0)
    assert found.num_steps.tolist() == [0, 0]
    assert torch.equal(found.z1, z0)


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (), (5,), (1, 1), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_shapes_and_dtypes_are_kept(solver, shape, dtype):
    z0 = torch.zeros(shape, dtype=dtype)
    found = solve(lambda z, a: 0.25 * z + 1, z0, solver=solver, adjoint=UnrolledAdjoint(), max_steps=6)
    assert found.z1.shape == shape
    assert found.z1.dtype == dtype
    torch.testing.assert_close(found.z1, torch.full_like(z0, 4 / 3), rtol=2e-2, atol=0.0)


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
def test_a_tree_of_two_dtypes_is_solved_as_one_vector(solver):
    z0 = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 1, dtype=torch.float64)}

    def function(z, args):
        return {"a": 0.5 * torch.tanh(z["a"] + z["b"].float()), "b": 0.5 * z["a"].double().sum(1, keepdim=True) + 1}

    found = solve(function, z0, solver=solver, adjoint=UnrolledAdjoint(), max_steps=200, rtol=1e-5, atol=0.0)
    assert found.z1["a"].dtype == torch.float32
    assert found.z1["b"].dtype == torch.float64
    torch.testing.assert_close(function(found.z1, ()), found.z1, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ACCELERATED, ids=repr)
def test_a_step_takes_the_evaluations_that_it_says(solver, counter):
    x = 0.1 * torch.randn(4, 4, dtype=torch.float64)
    solve(counter, torch.zeros(2, 4, dtype=torch.float64), x, solver=solver, adjoint=UnrolledAdjoint(), max_steps=7)
    assert counter.evaluations == 7 * solver.evaluations_per_step


def test_memory_of_the_state_is_limited_by_the_history():
    for solver in (Anderson(history=3), Broyden(history=3)):
        state: Any = solver.init((torch.zeros(2, 5),))
        for n in range(10):
            state = solver.step(lambda z: z, state, (torch.randn(2, 5),), n)
        numbers = sum(part.numel() for leaf in state for part in (leaf if isinstance(leaf, tuple) else (leaf,)))
        assert numbers == (2 * 3 + 3) * 10


def untyped(kind: Any) -> Any:
    """Return `kind`, to be called as somebody without a type checker would."""
    return kind


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: untyped(Anderson)(0.0), ValueError, "0 < beta < 2"),
        (lambda: untyped(Anderson)("1"), TypeError, "beta is '1'"),
        (lambda: untyped(Anderson)(math.nan), ValueError, "beta is nan"),
        (lambda: untyped(Anderson)(history=0), ValueError, "history is 0; it must be an int >= 1"),
        (lambda: untyped(Anderson)(history=2.0), TypeError, "history is 2.0"),
        (lambda: untyped(Anderson)(history=True), TypeError, "history is True"),
        (lambda: untyped(Anderson)(regularisation=0.0), ValueError, "regularisation is 0.0"),
        (lambda: untyped(Anderson)(regularisation=math.nan), ValueError, "regularisation is nan"),
        (lambda: untyped(Anderson)(regularisation=1.0), ValueError, "regularisation < 1"),
        (lambda: untyped(Anderson)(regularisation=None), TypeError, "regularisation is None"),
        (lambda: untyped(Broyden)(2.0), ValueError, "0 < beta < 2"),
        (lambda: untyped(Broyden)(history=-1), ValueError, "history is -1"),
        (lambda: untyped(Broyden)(history=None), TypeError, "history is None"),
        (lambda: untyped(GMRES)(0), ValueError, "restart is 0"),
        (lambda: untyped(GMRES)(1.5), TypeError, "restart is 1.5"),
        (lambda: untyped(GMRES)(per_sample=1), TypeError, "per_sample is 1"),
        (lambda: untyped(CheckpointedAdjoint)(0), ValueError, "segment is 0"),
        (lambda: untyped(CheckpointedAdjoint)("all"), TypeError, "segment is 'all'"),
        (lambda: untyped(ImplicitAdjoint)(solver="gmres"), TypeError, "solver is 'gmres'"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(make, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")) as caught:
        make()
    assert str(caught.value).endswith(".")
