"""The rigorous bounds: never crossed, not vacuous, and crossed by what is less precise than it says."""

from typing import Any

import numpy as np
import pytest
import torch

from revdeq import Reversible, ReversibleAdjoint, solve
from verify.case import BITWISE, Case
from verify.checks import Trial, measure
from verify.problems import get_problem
from verify.reference import difference, n_step
from verify.rounding.bounds import error_bounds
from verify.subject import RevdeqSubject


ROUNDOFFS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
AFFINE = ("affine-real", "affine-imaginary", "affine-general", "affine-defective")
PAIRS = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.float32, torch.float64),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float64),
]


def shares(name: str, beta: float, num_steps: int, dtype: torch.dtype, state_dtype: torch.dtype) -> dict[str, float]:
    """Each error over its bound: of z1, y1 and the gradients."""
    problem, u, v = get_problem(name), ROUNDOFFS[state_dtype], ROUNDOFFS[dtype]
    bounds = error_bounds(problem, beta, num_steps, unit_roundoff_state=u, unit_roundoff_function=v)
    reference = n_step(problem, beta, num_steps)
    z0, args = problem.inputs(dtype, "cpu")
    for leaf in (z0, *args.values()):
        leaf.requires_grad_()
    solver = Reversible(beta, state_dtype=state_dtype)
    adjoint = ReversibleAdjoint(verify=False)
    solution: Any = solve(problem.function, z0, args, solver=solver, adjoint=adjoint, max_steps=num_steps)
    cotangents = (torch.from_numpy(c).to(dtype) for c in (problem.cotangent_z, problem.cotangent_y))
    loss = torch.stack([(s * c).sum() for s, c in zip((solution.z1, solution.y1), cotangents, strict=True)]).sum()
    grads = torch.autograd.grad(loss, (z0, args["W"], args["b"]))

    def error(got: torch.Tensor, expected: Any) -> float:
        return float(np.linalg.norm(difference(got.detach().to(torch.float64).numpy(), expected)))

    # What a solve returns was rounded once more, to z0's dtype.
    rounded = {"z1": 1.04 * v * solution.z1.double().norm().item(), "y1": 1.04 * v * solution.y1.double().norm().item()}
    found = {
        "z1": error(solution.z1, reference.z) / (bounds.forward_z + rounded["z1"]),
        "y1": error(solution.y1, reference.y) / (bounds.forward_y + rounded["y1"]),
    }
    for leaf, grad in zip(("z0", "args.W", "args.b"), grads, strict=True):
        found[leaf] = error(grad, reference.gradient[leaf]) / bounds.gradient[leaf]
    return found


@pytest.mark.parametrize("name", [*AFFINE, "dense-tanh"])
@pytest.mark.parametrize(("dtype", "state_dtype"), PAIRS)
@pytest.mark.parametrize(("beta", "num_steps"), [(0.3, 1), (0.5, 4), (0.8, 4), (1.25, 3)])
def test_no_error_crosses_its_bound(name, dtype, state_dtype, beta, num_steps):
    for leaf, share in shares(name, beta, num_steps, dtype, state_dtype).items():
        assert share <= 1, leaf


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*AFFINE, "affine-slow", "affine-rotation", "dense-tanh"])
@pytest.mark.parametrize("beta", [0.25, 0.5, 0.8, 1.25])
def test_no_error_crosses_its_bound_over_many_steps(name, beta):
    for dtype, state_dtype in PAIRS[:3]:
        for num_steps in (1, 2, 8, 16, 32):
            for leaf, share in shares(name, beta, num_steps, dtype, state_dtype).items():
                assert share <= 1, (leaf, dtype, num_steps)


def integer_shares(name: str, beta: float, num_steps: int, dtype: str) -> list[float]:
    trial = Trial(Case(name, beta, num_steps, dtype, solver=BITWISE), RevdeqSubject(), get_problem(name))
    return [float(row.measured or 0.0) for row in measure("rounding-bound", trial)]


@pytest.mark.parametrize("name", ["affine-real", "affine-general", "dense-tanh"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("beta", "num_steps"), [(0.5, 1), (0.75, 4), (0.8, 8)])
def test_no_error_of_integer_states_crosses_its_bound(name, dtype, beta, num_steps):
    found = integer_shares(name, beta, num_steps, dtype)
    assert found
    assert max(found) <= 1


def test_the_bound_of_integer_states_does_not_grow_as_reversal_would():
    problem = get_problem("affine-general")
    formats: dict[str, Any] = {"unit_roundoff_state": 2.0**-53, "unit_roundoff_function": 2.0**-53}
    floating = error_bounds(problem, 0.8, 24, **formats)
    integer = error_bounds(problem, 0.8, 24, **formats, arithmetic="bitwise")
    assert integer.gradient["args.W"] < 1e-6 * floating.gradient["args.W"]
    assert integer.rebuilt_z[0] < 1e-12


def test_the_bounds_are_within_two_powers_of_ten_of_the_errors_of_one_step():
    found = shares("affine-real", 0.3, 1, torch.float32, torch.float32)
    assert all(share >= 1e-2 for share in found.values())


def test_a_float32_run_crosses_the_float64_bound():
    # The control: precision that is lost silently is found by the bound.
    problem = get_problem("affine-real")
    honest = error_bounds(problem, 0.5, 4, unit_roundoff_state=2.0**-24, unit_roundoff_function=2.0**-24)
    claimed = error_bounds(problem, 0.5, 4, unit_roundoff_state=2.0**-53, unit_roundoff_function=2.0**-53)
    found = shares("affine-real", 0.5, 4, torch.float32, torch.float32)
    for leaf, share in found.items():
        if leaf in honest.gradient:
            assert share * honest.gradient[leaf] / claimed.gradient[leaf] > 1


@pytest.mark.parametrize("beta", [0.5, 0.8])
def test_rebuilt_states_stay_within_their_bounds(beta):
    problem, steps = get_problem("affine-general"), 8
    bounds = error_bounds(problem, beta, steps, unit_roundoff_state=2.0**-24, unit_roundoff_function=2.0**-24)
    reference = n_step(problem, beta, steps)
    z0, args = problem.inputs(torch.float32, "cpu")
    solver = Reversible(beta, state_dtype=torch.float32).bound_to(None, steps)

    def evaluate(state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (problem.function(state[0], args),)

    state = solver.init((z0,))
    for n in range(steps):
        state = solver.step(evaluate, state, evaluate(state.z), n)
    y, z = state.y, state.z
    for n in reversed(range(steps)):
        z = solver.undo_z(z, evaluate(y))
        y = solver.undo_y(y, evaluate(z))
        expected_y, expected_z = reference.trajectory[n]
        for got, expected, allowed in (
            (y, expected_y, bounds.rebuilt_y[n]),
            (z, expected_z, bounds.rebuilt_z[n]),
        ):
            assert np.linalg.norm(difference(got[0].double().numpy(), expected)) <= allowed


@pytest.mark.parametrize(
    ("name", "beta", "said"), [("attention", 0.5, "there is no bound"), ("affine-real", 1.0, "beta is 1")]
)
def test_bounds_are_refused_where_there_are_none(name, beta, said):
    with pytest.raises(ValueError, match=said):
        error_bounds(get_problem(name), beta, 4, unit_roundoff_state=2.0**-53, unit_roundoff_function=2.0**-53)
