"""The references: two oracles agree, the uncertainty is honest, and a planted fault is seen."""

# pyright: reportUnknownLambdaType=false

import dataclasses
import subprocess
import sys

import mpmath
import numpy as np
import pytest

from verify.problems import get_problem
from verify.reference import (
    ReferenceFailure,
    agreement,
    default_direction,
    difference,
    finite_differences,
    fixed_point,
    jacobian,
    n_step,
)
from verify.reference.arithmetic import Multiprecision


SMALL = ["affine-general", "kepler", "riccati", "dense-tanh"]


def test_reference_does_not_import_torch():
    code = "import sys, verify.reference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("beta", [0.5, 0.8, 1.25])
def test_n_step_gradient_agrees_with_finite_differences(name, beta):
    result = agreement(get_problem(name), beta, 3, digits=40)
    assert result.relative < 1e-25
    assert result.disagreement <= result.uncertainty


@pytest.mark.parametrize("name", SMALL)
def test_implicit_gradient_agrees_with_finite_differences(name):
    result = agreement(get_problem(name), 0.5, 0, target="fixed-point", digits=40)
    assert result.relative < 1e-25
    assert result.disagreement <= result.uncertainty


def test_agreement_of_one_leaf_uses_that_leaf_alone():
    problem = get_problem("kepler")
    parts = [agreement(problem, 0.5, 2, leaf=leaf, digits=30) for leaf in problem.leaves]
    whole = agreement(problem, 0.5, 2, digits=30)
    assert all(part.relative < 1e-15 for part in parts)
    assert whole.scale == pytest.approx(sum(part.scale for part in parts), rel=1e-12)


@pytest.mark.parametrize("leaf", ["z0", "args.W", "args.b"])
def test_agreement_detects_a_planted_wrong_adjoint(leaf):
    problem = get_problem("affine-real")
    gradient = dict(n_step(problem, 0.5, 2, 30).gradient)
    gradient[leaf] = gradient[leaf] * (1 + 2.0**-40)
    wrong = agreement(problem, 0.5, 2, digits=30, gradient=gradient)
    assert wrong.relative > 2.0**-46
    assert wrong.disagreement > 1e3 * wrong.uncertainty


def test_implicit_gradient_is_not_the_n_step_one():
    problem = get_problem("dense-tanh")
    implicit = dict(fixed_point(problem, 30).gradient)
    assert agreement(problem, 0.5, 2, digits=30, gradient=implicit).relative > 1e-2


@pytest.mark.parametrize("reference", [lambda p, d: n_step(p, 0.8, 4, d), fixed_point])
def test_uncertainty_is_honest(reference):
    problem = get_problem("kepler")
    coarse, fine = reference(problem, 12), reference(problem, 60)
    for leaf, claimed in coarse.uncertainty.items():
        if leaf in ("z", "y"):
            continue
        error = np.max(np.abs(difference(coarse.gradient[leaf], fine.gradient[leaf])))
        assert error <= 1.001 * claimed
        assert claimed <= 1e-9
        assert fine.uncertainty[leaf] < 1e-55
    assert max(coarse.uncertainty.values()) > 1e-13


def test_uncertainty_grows_as_digits_fall():
    problem = get_problem("dense-tanh")
    claims = [max(n_step(problem, 0.5, 3, digits).uncertainty.values()) for digits in (6, 12, 24)]
    assert claims[0] > 1e4 * claims[1] > 1e8 * claims[2] > 0


def test_n_step_of_zero_steps_is_the_start():
    problem = get_problem("affine-real")
    result = n_step(problem, 0.5, 0)
    assert np.array_equal(result.z.astype(float), problem.z0)
    assert np.array_equal(result.gradient["z0"].astype(float), problem.cotangent_z + problem.cotangent_y)
    assert not result.gradient["args.W"].astype(float).any()


def test_n_step_gradient_of_affine_map_is_the_matrix_formula():
    problem = get_problem("affine-defective")
    beta, steps = 0.5, 3
    matrix = problem.args["W"]
    upper = np.hstack([(1 - beta) * np.eye(4), beta * matrix])
    lower = np.hstack([beta * (1 - beta) * matrix, (1 - beta) * np.eye(4) + beta**2 * matrix @ matrix])
    power = np.linalg.matrix_power(np.vstack([upper, lower]), steps)
    pulled = np.hstack([problem.cotangent_y, problem.cotangent_z]) @ power
    expected = pulled[:, :4] + pulled[:, 4:]
    measured = n_step(problem, beta, steps).gradient["z0"].astype(float)
    assert np.max(np.abs(measured - expected)) < 1e-14


def test_implicit_gradient_of_kepler_is_the_closed_form():
    problem = get_problem("kepler")
    result = fixed_point(problem)
    e, z = problem.args["eccentricity"], result.z_star.astype(float)
    cotangent = problem.cotangent_z + problem.cotangent_y
    slope = cotangent / (1 - e * np.cos(z))
    expected = {"args.mean_anomaly": slope, "args.eccentricity": np.sum(slope * np.sin(z), axis=1, keepdims=True)}
    for leaf, value in expected.items():
        assert np.max(np.abs(result.gradient[leaf].astype(float) - value)) < 1e-13
    assert not result.gradient["z0"].astype(float).any()


def test_jacobian_of_affine_map_is_block_diagonal():
    problem = get_problem("affine-general")
    expected = np.kron(np.eye(2), problem.args["W"])
    assert np.array_equal(jacobian(problem, problem.z0, problem.args), expected)


def test_wrong_closed_form_is_refused():
    problem = get_problem("lambert-w")
    wrong = dataclasses.replace(problem, closed_form=lambda digits: problem.answer(digits) * (1 + mpmath.mpf(2) ** -40))
    with pytest.raises(ReferenceFailure, match="away from the fixed point"):
        fixed_point(wrong, 40)


def test_map_without_fixed_point_is_refused():
    problem = get_problem("affine-real")
    drift = dataclasses.replace(
        problem, statement=lambda ops, z, args: ops.add(z, ops.exp(ops.negative(z))), closed_form=None
    )
    with pytest.raises(ReferenceFailure, match="no fixed point"):
        fixed_point(drift)


def test_finite_differences_state_their_error():
    problem = get_problem("dense-tanh")
    direction = default_direction(problem)
    exact = n_step(problem, 0.5, 2, 60).gradient
    at = Multiprecision(60)
    expected = sum(at.sum(at.multiply(exact[leaf], at.convert(along)))[()] for leaf, along in direction.items())
    for digits in (15, 30, 45):
        result = finite_differences(problem, 0.5, 2, direction=direction, digits=digits)
        error = abs(float(expected - at.convert(result.value)[()]))
        assert error <= result.error_estimate
        # The estimate is the last correction, of order h^4 at h = 10^(-digits/7).
        assert result.error_estimate < 10.0 ** (-4 / 7 * digits + 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "both"}, "'n-step' or 'fixed-point'"),
        ({"direction": {"args.V": np.ones((4, 4))}}, "no leaf 'args.V'"),
        ({"direction": {"args.W": np.ones(4)}}, r"it must be \(4, 4\)"),
    ],
)
def test_impossible_finite_differences_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        finite_differences(get_problem("affine-real"), 0.5, 2, **arguments)


@pytest.mark.parametrize(("beta", "steps"), [(0.0, 2), (2.0, 2), (float("nan"), 2), (0.5, -1), (0.5, 1.5)])
def test_impossible_iteration_is_refused(beta, steps):
    with pytest.raises(ValueError, match=r"beta is|num_steps is"):
        n_step(get_problem("affine-real"), beta, steps)


def test_difference_is_taken_before_rounding():
    at = Multiprecision(50)
    expected = at.add(at.convert(np.array([1.0])), at.convert(np.array([1e-30])))
    assert difference(np.array([1.0]), expected) == -1e-30
    assert np.isnan(difference(np.array([np.nan]), expected)).all()
    assert np.isinf(difference(np.array([np.inf]), expected)).all()
    with pytest.raises(ValueError, match="compare arrays of one shape"):
        difference(np.ones((1, 1)), expected)
