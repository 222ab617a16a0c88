"""On every problem of the zoo: balls and mpmath through the graph, the hand-written loop and the oracle agree.

Each pair is held to what the two state together: the balls' radii, the reference's own uncertainty, and for the oracle
the bound ||(I - K)^-1|| |f(z) - z| that its residual proves.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from flint import arb

from verify.certificate.approximate import FloatMap, approximate_fixed_point
from verify.certificate.confirmation import confirm, fixed_point_loss, n_step_loss
from verify.certificate.fixed_point import Enclosure, enclose_fixed_point
from verify.certificate.implicit import implicit_gradient
from verify.certificate.n_step import n_steps
from verify.certificate.state_map import StateMap
from verify.problems import PROBLEMS, get_problem
from verify.reference.arithmetic import Multiprecision
from verify.reference.fixed_point import fixed_point
from verify.reference.graph import Program, Traced, trace
from verify.reference.n_step import n_step


BITS, DIGITS, BETA, STEPS = 200, 50, 0.5, 3
NAMES = tuple(PROBLEMS)


@cache
def recorded(name: str) -> Traced:
    problem = get_problem(name)
    return trace(problem.function, *problem.inputs(torch.float64))


@cache
def enclosed(name: str) -> tuple[StateMap, Enclosure]:
    start = approximate_fixed_point(FloatMap(recorded(name)), newton=True)
    assert start is not None
    function = StateMap(recorded(name), BITS)
    enclosure, sentence = enclose_fixed_point(function, start)
    assert enclosure is not None, sentence
    return function, enclosure


def as_ball(value: Any) -> arb:
    sign, mantissa, exponent, _ = value._mpf_
    return arb((-int(mantissa) if sign else int(mantissa), int(exponent)))


def meets(balls: Any, values: Any, uncertainty: float) -> bool:
    pairs = zip(balls.ravel().tolist(), values.ravel().tolist(), strict=True)
    return all(ball.overlaps(arb(as_ball(value), uncertainty)) for ball, value in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_fixed_point_and_implicit_gradient_meet_the_hand_written_reference(name: str) -> None:
    problem = get_problem(name)
    function, enclosure = enclosed(name)
    reference = fixed_point(problem, DIGITS)
    assert meets(enclosure.solution, reference.z_star, reference.uncertainty["z"])
    weights = problem.cotangent_z + problem.cotangent_y
    gradient = implicit_gradient(function, enclosure, function.ops.convert(weights.ravel()))
    assert gradient is not None
    assert set(gradient) == {f"args.{leaf}" for leaf in problem.args}
    for leaf, balls in gradient.items():
        assert meets(balls, reference.gradient[leaf], reference.uncertainty[leaf])
        assert max(ball.rad() for ball in balls.flat) < 1e-35


@pytest.mark.parametrize("name", NAMES)
def test_n_step_gradient_meets_the_hand_written_reference(name: str) -> None:
    problem = get_problem(name)
    function = enclosed(name)[0]
    reference = n_step(problem, BETA, STEPS, DIGITS)
    cotangents = [function.ops.convert(values.ravel()) for values in (problem.cotangent_z, problem.cotangent_y)]
    steps = n_steps(function, BETA, STEPS, cotangents[0], cotangents[1])
    assert meets(steps.z, reference.z, reference.uncertainty["z"])
    assert meets(steps.y, reference.y, reference.uncertainty["y"])
    for leaf in problem.leaves:
        assert meets(steps.gradient[leaf], reference.gradient[leaf], reference.uncertainty[leaf])
        assert max(ball.rad() for ball in steps.gradient[leaf].flat) < 1e-25


@pytest.mark.parametrize("name", NAMES)
def test_interpreter_in_mpmath_lies_in_the_balls(name: str) -> None:
    traced, problem = recorded(name), get_problem(name)
    fixed = {leaf: values for leaf, values in traced.arrays().items() if leaf != "z0"}
    at = {"z0": problem.z0, "cotangent": problem.cotangent_z}
    function = enclosed(name)[0]
    digits = Multiprecision(DIGITS)
    value = Program(traced.forward, digits, fixed)({"z0": problem.z0})["z0"]
    start = function.ops.convert(problem.z0.ravel())
    image, pullback = function.linearised(start)
    for enclosure in (function.value(start), image):
        assert meets(enclosure, value, 1e-45 * max(1.0, float(np.max(np.abs(digits.to_float64(value))))))
    pulled = Program(traced.vjp, digits, fixed)(at)
    for leaf, balls in pullback(function.ops.convert(problem.cotangent_z.ravel())).items():
        size = max(1.0, float(np.max(np.abs(digits.to_float64(pulled[leaf])))))
        assert meets(balls, pulled[leaf], 1e-43 * size)


@pytest.mark.parametrize("name", NAMES)
def test_oracle_lies_within_what_its_residual_proves(name: str) -> None:
    oracle = get_problem(name).oracle()
    if oracle is None:
        assert get_problem(name).oracle_float64 is None
        return
    function, enclosure = enclosed(name)
    z = function.ops.convert(oracle.ravel())
    residual = function.ops.subtract(function.value(z), z)
    size = np.max(np.abs(function.ops.to_float64(residual)))
    # |z - z*| <= ||(I - K)^-1|| |f(z) - z| to first order; the factor 2 covers the second.
    bound = 2 * max(np.linalg.norm(inverse, np.inf) for inverse in enclosure.inverses) * size
    distance = function.ops.to_float64(function.ops.subtract(z, enclosure.solution))
    assert np.max(np.abs(distance)) <= bound + 2.0**-200
    assert size <= 2.0**-30 * max(1.0, np.max(np.abs(oracle)))


@pytest.mark.parametrize("name", ["kepler", "dense-tanh", "riccati"])
def test_gradients_are_confirmed_by_differences_of_the_forward_graph(name: str) -> None:
    problem, traced = get_problem(name), recorded(name)
    function, enclosure = enclosed(name)
    c_z, c_y = problem.cotangent_z.ravel(), problem.cotangent_y.ravel()
    gradient = implicit_gradient(function, enclosure, function.ops.convert(c_z + c_y))
    assert gradient is not None
    implicit = confirm(traced, fixed_point_loss(traced, enclosure, c_z + c_y), gradient, DIGITS, "implicit gradient")
    steps = n_steps(function, BETA, STEPS, function.ops.convert(c_z), function.ops.convert(c_y))
    reversible = confirm(traced, n_step_loss(traced, BETA, STEPS, c_z, c_y), steps.gradient, DIGITS, "N-step gradient")
    for found in (implicit, reversible):
        assert found.finding.answer.value == "certified"
        assert found.digits > 30


def test_steps_and_their_gradient_evaluate_f_twice_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, traced = get_problem("dense-tanh"), recorded("dense-tanh")
    function = StateMap(traced, 150)
    points: list[int] = []
    tanh = function.ops.tanh
    monkeypatch.setattr(function.ops, "tanh", lambda x: points.append(x.size) or tanh(x))
    weight = function.ops.convert(problem.cotangent_z.ravel())
    n_steps(function, BETA, 3, weight, weight)
    assert points == [problem.z0.size] * 6
