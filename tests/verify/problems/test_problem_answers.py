"""Every problem against its own answer, its oracle and published numbers; torch against the reference."""

# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false, reportOptionalOperand=false, reportCallIssue=false

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from verify.problems import PROBLEMS, Problem, TorchOperations, get_problem, problem_names, to_bfloat16
from verify.problems.control import gridworld, policy_values
from verify.problems.data import contraction, digit_images, spectral_norm_bound
from verify.problems.scalar import kepler_by_bessel_series
from verify.reference import Tape, difference, fixed_point, jacobian, n_step
from verify.reference.arithmetic import Multiprecision
from verify.rounding.scale import rounding_scale


UNIT_ROUNDOFF = 2.0**-53
ALL = list(PROBLEMS)
WITH_ORACLE = [name for name in ALL if get_problem(name).oracle_float64 is not None]
WITH_ANSWER = [name for name in ALL if get_problem(name).closed_form is not None]


def torch_n_step(problem, function, z0, args, beta, steps):
    y = z = z0
    for _ in range(steps):
        y = (1 - beta) * y + beta * function(z, args)
        z = (1 - beta) * z + beta * function(y, args)
    return y, z


@pytest.mark.parametrize("name", ALL)
def test_torch_agrees_with_the_reference(name):
    problem, beta, steps = get_problem(name), 0.8, 2
    z0, args = problem.inputs(torch.float64, requires_grad=True)
    y, z = torch_n_step(problem, problem.function, z0, args, beta, steps)
    cotangent_z, cotangent_y = problem.cotangents(torch.float64)
    ((cotangent_z * z).sum() + (cotangent_y * y).sum()).backward()
    reference = n_step(problem, beta, steps)
    scale = rounding_scale(
        problem,
        beta,
        steps,
        unit_roundoff_state=UNIT_ROUNDOFF,
        unit_roundoff_function=UNIT_ROUNDOFF,
        differentiation="unrolled",
    )
    gradients = {"z0": z0.grad} | {f"args.{key}": value.grad for key, value in args.items()}
    assert tuple(gradients) == problem.leaves
    checks = [(z.detach(), reference.z, scale.forward_z), (y.detach(), reference.y, scale.forward_y)]
    checks += [(gradients[leaf], reference.gradient[leaf], scale.gradient[leaf]) for leaf in problem.leaves]
    for measured, expected, sig in checks:
        error = math.sqrt(np.mean(difference(measured.numpy(), expected) ** 2))
        # A2, A3: ten times what rounding should cause.
        assert error <= 10 * sig
        assert sig <= 2.0**-40 * np.max(np.abs(expected.astype(float)))


@pytest.mark.parametrize("name", WITH_ORACLE)
def test_oracle_agrees_with_the_fixed_point(name):
    problem = get_problem(name)
    z_star = fixed_point(problem).z_star
    expected = z_star.astype(float)
    condition = np.linalg.cond(np.eye(expected.size) - jacobian(problem, expected, problem.args))
    # A backward-stable solver errs by its backward error (16 u for these sizes) times the condition number.
    bound = 16 * UNIT_ROUNDOFF * condition * max(1.0, np.max(np.abs(expected)))
    assert np.max(np.abs(difference(problem.oracle(), z_star))) <= bound


@pytest.mark.parametrize("name", WITH_ANSWER)
def test_closed_form_is_a_fixed_point_at_every_precision(name):
    problem = get_problem(name)
    coarse, fine = problem.answer(20), problem.answer(60)
    scale = max(1.0, np.max(np.abs(problem.oracle())))
    assert np.max(np.abs(difference(coarse, fine))) <= 1e-19 * scale
    result = fixed_point(problem, 50)
    assert result.uncertainty["z"] <= 1e-46 * scale


@pytest.mark.parametrize("name", ALL)
def test_every_problem_has_an_answer_or_a_refined_fixed_point(name):
    problem = get_problem(name)
    result = fixed_point(problem)
    assert max(result.uncertainty.values()) <= 1e-44
    assert result.source


@pytest.mark.parametrize("name", ALL)
def test_contraction_constant_bounds_the_jacobian_on_the_way(name):
    problem = get_problem(name)
    if problem.contraction_constant is None:
        assert problem.contraction_kind == "none"
        return
    states = [problem.z0, fixed_point(problem).z_star.astype(float), n_step(problem, 0.5, 3).z.astype(float)]
    for state in states:
        matrix = jacobian(problem, state, problem.args)
        norm = np.linalg.norm(matrix, 2 if problem.norm == "2" else np.inf)
        assert norm <= problem.contraction_constant * (1 + 1e-14)


@pytest.mark.parametrize("name", [name for name in ALL if get_problem(name).eigenvalues is not None])
def test_stated_eigenvalues_are_those_of_the_matrix(name):
    problem = get_problem(name)
    matrix, eigenvalues = problem.args["W"], problem.eigenvalues
    assert np.allclose(np.poly(matrix), np.poly(eigenvalues), rtol=0, atol=1e-13)
    norm = np.linalg.norm(matrix, 2)
    if problem.contraction_kind == "exact":
        assert norm == pytest.approx(problem.contraction_constant, rel=1e-14)
    if problem.spectrum == "defective":
        assert np.linalg.matrix_rank(matrix - eigenvalues[0].real * np.eye(4)) == 3
    else:
        assert np.array_equal(matrix @ matrix.T, matrix.T @ matrix)
    if problem.spectrum == "real":
        assert np.array_equal(matrix, matrix.T)
    if problem.spectrum == "imaginary":
        assert np.array_equal(matrix, -matrix.T)


@pytest.mark.parametrize("name", ["riccati", "conv-group-norm", "attention"])
def test_cell_without_a_constant_contracts_near_its_fixed_point(name):
    problem = get_problem(name)
    z_star = fixed_point(problem).z_star.astype(float)
    radius = max(abs(np.linalg.eigvals(jacobian(problem, z_star, problem.args))))
    assert 0.4 < radius < 0.95


def test_bellman_discount_is_attained_in_the_sup_norm():
    problem = get_problem("bellman")
    matrix = jacobian(problem, problem.z0, problem.args)
    assert np.linalg.norm(matrix, np.inf) == problem.contraction_constant == problem.args["discount"]
    assert np.array_equal(problem.args["transition"].sum(axis=1), np.ones(25))


def test_gridworld_values_are_the_published_ones():
    # Sutton and Barto, figure 3.2 (right), discount 0.9, one decimal.
    published = [
        [3.3, 8.8, 4.4, 5.3, 1.5],
        [1.5, 3.0, 2.3, 1.9, 0.5],
        [0.1, 0.7, 0.7, 0.4, -0.4],
        [-1.0, -0.4, -0.4, -0.6, -1.2],
        [-1.9, -1.3, -1.2, -1.4, -2.0],
    ]
    transition, reward = gridworld()
    values = policy_values(transition, reward[None], 0.9).reshape(5, 5)
    assert np.array_equal(np.round(values, 1), published)


def test_double_integrator_is_sampled_exactly():
    problem = get_problem("riccati")
    continuous = (np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]]), np.eye(2), np.zeros((2, 1)))
    discrete: Any = scipy.signal.cont2discrete(continuous, 0.5, method="zoh")
    a, b = discrete[0], discrete[1]
    assert np.allclose(problem.args["A"], a, rtol=0, atol=1e-15)
    assert np.allclose(problem.args["B"], b, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["exp", "sin", "cos", "tanh", "softplus", "softmax", "negative"])
def test_torch_operation_is_correct_to_rounding_over_a_wide_range(name):
    at = Multiprecision(30)
    x = np.linspace(-60, 60, 241)
    tape = Tape(at)
    expected = getattr(tape, name)(tape.leaf(at.convert(x))).value
    measured = getattr(TorchOperations(), name)(torch.tensor(x)).numpy()
    # Vendors state a few units in the last place for elementary functions; softmax adds its 241 terms.
    bound = (8 if name != "softmax" else 241) * UNIT_ROUNDOFF * np.abs(expected.astype(float))
    assert np.all(np.abs(difference(measured, expected)) <= bound)


def test_bessel_series_agrees_with_the_fixed_point_of_kepler():
    problem = get_problem("kepler")
    series = kepler_by_bessel_series(problem.args["eccentricity"], problem.args["mean_anomaly"])
    assert np.max(np.abs(difference(series, fixed_point(problem).z_star))) < 32 * UNIT_ROUNDOFF


def test_colebrook_agrees_with_the_moody_chart():
    # Relative roughness 1e-3 at Re = 1e5 has the Darcy friction factor 0.0222 (Moody 1944, to three figures).
    x = 6.0
    for _ in range(50):
        x = -2 * math.log10(1e-3 / 3.7 + 2.51 * x / 1e5)
    statement = get_problem("colebrook").statement
    z = torch.tensor([[x]], dtype=torch.float64)
    args = {"roughness": torch.tensor([[1e-3]]).double(), "reynolds": torch.tensor([[10.0]]).double()}
    assert statement(TorchOperations(), z, args).item() == pytest.approx(x, rel=1e-7)
    assert round(1 / x**2, 4) == 0.0222


def test_state_of_lambert_and_colebrook_stays_in_the_domain_of_the_constant():
    for name, least in (("lambert-w", 0.0), ("colebrook", 2.0)):
        problem = get_problem(name)
        for beta in (0.5, 0.8, 1.0):
            states = [state for pair in n_step(problem, beta, 8).trajectory for state in pair]
            assert min(np.min(state.astype(float)) for state in states) >= least


@pytest.mark.parametrize("name", ALL)
def test_samples_are_independent_and_of_unequal_difficulty(name):
    problem = get_problem(name)
    batch, size = problem.z0.shape[0], problem.z0[0].size
    z_star = fixed_point(problem).z_star.astype(float)
    matrix = jacobian(problem, z_star, problem.args).reshape(batch, size, batch, size)
    for i in range(batch):
        for j in range(batch):
            if i != j:
                assert not matrix[i, :, j].any()
    if batch > 1:
        distances = [np.linalg.norm((problem.z0 - z_star)[i]) for i in range(batch)]
        assert len(set(distances)) == batch


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_inputs_are_exact_in_every_dtype(name, dtype):
    problem = get_problem(name)
    z0, args = problem.inputs(dtype)
    assert np.array_equal(z0.double().numpy(), problem.z0)
    assert z0.dtype == dtype
    for key, value in args.items():
        assert np.array_equal(value.double().numpy(), problem.args[key])
    for tensor, array in zip(problem.cotangents(dtype), (problem.cotangent_z, problem.cotangent_y), strict=True):
        assert np.array_equal(tensor.double().numpy(), array)
    assert problem.function(z0, args).isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_module_and_closure_are_the_same_function(name):
    problem = get_problem(name)
    z0, args = problem.inputs(torch.float64)
    expected = problem.function(z0, args)
    module = problem.module(torch.float64)
    closure, captured = problem.closure(torch.float64)
    assert [key for key, _ in module.named_parameters()] == list(args) == list(captured)
    assert torch.equal(module(z0), expected)
    assert torch.equal(module(z0, ()), expected)
    assert torch.equal(closure(z0), expected)
    assert torch.equal(closure(z0, ()), expected)
    assert all(value.requires_grad for value in captured.values())
    assert expected.shape == z0.shape


def test_spectral_norm_bound_is_a_bound_and_is_sharp():
    for seed in range(5):
        matrix = contraction(seed, 6, 0.9)
        norm, bound = np.linalg.norm(matrix, 2), spectral_norm_bound(matrix)
        assert norm * (1 - 1e-14) <= bound <= norm * 6 ** (1 / 128) * (1 + 1e-12)
    assert spectral_norm_bound(np.zeros((2, 2))) == 0.0


def test_digits_are_pooled_exactly():
    fine, coarse = digit_images((3, 5), 8), digit_images((3, 5), 4)
    assert fine.shape == (2, 8, 8)
    assert coarse[1, 0, 2] == fine[1, :2, 4:6].mean()
    assert np.array_equal(coarse * 64, np.round(coarse * 64))


def test_rounding_to_bfloat16_is_that_of_torch():
    values = np.random.default_rng(0).normal(size=1000)
    assert np.array_equal(to_bfloat16(values), torch.tensor(values).bfloat16().double().numpy())


def test_problem_names_grow_with_the_profile():
    quick, full, nightly = (problem_names(profile) for profile in ("quick", "full", "nightly"))
    reversible = {name for name in PROBLEMS if get_problem(name).scope.reversible}
    assert set(quick) < set(full) <= set(nightly) == reversible < set(PROBLEMS)
    assert get_problem(quick[0]) is get_problem(quick[0])
    assert all(get_problem(name).name == name for name in nightly)
    with pytest.raises(ValueError, match="quick, full or nightly"):
        problem_names("weekly")
    with pytest.raises(ValueError, match="there is no problem 'heat'; choose one of affine-real"):
        get_problem("heat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z0": np.ones((2, 4), dtype=np.float32)}, "give it as float64"),
        ({"z0": np.full((2, 4), 0.1)}, "bfloat16 does not hold"),
        ({"z0": np.full((2, 4), np.nan)}, "bfloat16 does not hold"),
        ({"cotangent_y": np.ones((2, 3))}, r"shape \(2, 3\)"),
        ({"contraction_constant": None}, "'none' goes with None"),
        ({"contraction_kind": "none"}, "'none' goes with None"),
        ({"contraction_constant": -0.5}, "is negative"),
    ],
)
def test_impossible_problem_is_refused(changes, message):
    problem = get_problem("affine-real")
    assert isinstance(problem, Problem)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(problem, **changes)
