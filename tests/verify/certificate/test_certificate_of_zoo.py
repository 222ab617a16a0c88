"""On every problem of the zoo: the kernel and mpmath through the graph, the hand-written loop and the oracle agree.

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

from verify.certificate import Settings
from verify.certificate.kernel.code import Gradient
from verify.certificate.kernel.fixed_points import jacobian, jacobian_by
from verify.certificate.posed import head_json
from verify.certificate.proof import task_of
from verify.certificate.stages import Part, Task, fixed_point_part, n_step_part
from verify.certificate.state_map import StateMap
from verify.problems import PROBLEMS, get_problem
from verify.reference.arithmetic import Multiprecision
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.fixed_point import fixed_point
from verify.reference.graph import Program, trace
from verify.reference.n_step import n_step


DIGITS, BETA, STEPS = 50, 0.5, 3
SETTINGS = Settings(beta=BETA, num_steps=STEPS, digits=40)
NAMES = tuple(PROBLEMS)


@cache
def posed(name: str) -> Task:
    problem = get_problem(name)
    traced = trace(problem.function, *problem.inputs(torch.float64))
    cotangents = {"z0": problem.cotangent_z}, {"z0": problem.cotangent_y}
    return task_of(traced, head_json(traced, SETTINGS, cotangents))


@cache
def enclosed(name: str) -> Part:
    return fixed_point_part(posed(name), SETTINGS, main=False)


@cache
def function_of(name: str) -> StateMap:
    return StateMap(posed(name).traced, posed(name).recorder, SETTINGS.first_bits)


def as_ball(value: Any) -> arb:
    sign, mantissa, exponent, _ = value._mpf_
    return arb((-int(mantissa) if sign else int(mantissa), int(exponent)))


def meets(balls: list[arb], values: Any, uncertainty: float) -> bool:
    pairs = zip(balls, values.ravel().tolist(), strict=True)
    return all(ball.overlaps(arb(as_ball(value), uncertainty)) for ball, value in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_fixed_point_and_implicit_gradient_meet_the_hand_written_reference(name: str) -> None:
    problem, proved = get_problem(name), enclosed(name).proved
    assert proved is not None
    reference = fixed_point(problem, DIGITS)
    assert meets(proved.state, reference.z_star, reference.uncertainty["z"])
    assert set(proved.truth) == {f"args.{leaf}" for leaf in problem.args}
    for leaf, balls in proved.truth.items():
        assert meets(balls, reference.gradient[leaf], reference.uncertainty[leaf])
        assert max(ball.rad() for ball in balls) < 1e-35


@pytest.mark.parametrize("name", NAMES)
def test_n_step_gradient_meets_the_hand_written_reference(name: str) -> None:
    problem = get_problem(name)
    proved = n_step_part(posed(name), SETTINGS, 1.0).proved
    assert proved is not None
    reference = n_step(problem, BETA, STEPS, DIGITS)
    assert meets(proved.state, reference.z, reference.uncertainty["z"])
    assert meets(proved.y, reference.y, reference.uncertainty["y"])
    for leaf in problem.leaves:
        assert meets(proved.truth[leaf], reference.gradient[leaf], reference.uncertainty[leaf])
        assert max(ball.rad() for ball in proved.truth[leaf]) < 1e-25


@pytest.mark.parametrize("name", NAMES)
def test_torch_backward_agrees_with_the_derivative_of_the_forward_graph(name: str) -> None:
    for part in (enclosed(name), n_step_part(posed(name), SETTINGS, 1.0)):
        assert part.proved is not None
        assert part.proved.agreement is not None
        assert part.proved.agreement.agree


@pytest.mark.parametrize("name", NAMES)
def test_interpreter_in_mpmath_lies_in_the_balls(name: str) -> None:
    problem, task, function = get_problem(name), posed(name), function_of(name)
    traced = task.traced
    fixed = {leaf: values for leaf, values in traced.arrays().items() if leaf != "z0"}
    digits = Multiprecision(DIGITS)
    value = Program(traced.forward, digits, fixed)({"z0": problem.z0})["z0"]
    run = function.run("f", function.point(problem.z0))
    assert meets(run.output(), value, 1e-45 * max(1.0, float(np.max(np.abs(digits.to_float64(value))))))
    pulled = Program(traced.vjp, digits, fixed)({"z0": problem.z0, "cotangent": problem.cotangent_z})
    with flint_precision(function.bits):
        gradient = Gradient(len(function.machine.base))
        start = function.machine.reverse(run, function.point(problem.cotangent_z), gradient)
        found = {"z0": start, **task.problem.own(function.machine.leaves(gradient))}
    for leaf, balls in found.items():
        size = max(1.0, float(np.max(np.abs(digits.to_float64(pulled[leaf])))))
        assert meets(balls, pulled[leaf], 1e-43 * size)


@pytest.mark.parametrize("name", NAMES)
def test_derivative_forwards_is_the_transpose_of_that_backwards(name: str) -> None:
    problem, function = get_problem(name), function_of(name)
    run = function.run("f", function.point(problem.z0))
    generator = np.random.default_rng(0)
    way, weights = (function.point(generator.integers(-8, 9, function.size) / 8.0) for _ in range(2))
    with flint_precision(function.bits):
        ahead = function.machine.forward(run, way, [])
        back = function.machine.reverse(run, weights)
        one = sum((x * y for x, y in zip(ahead, weights, strict=True)), arb(0))
        other = sum((x * y for x, y in zip(back, way, strict=True)), arb(0))
        assert one.overlaps(other)
        assert one.rad() < 1e-35


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_jacobian_pulled_back_at_once_are_those_pulled_back_alone(name: str) -> None:
    compare_rows(function_of(name), get_problem(name).z0)


def test_rows_through_the_exponential_of_a_matrix_are_those_pulled_back_alone() -> None:
    z = torch.tensor([[0.3, -0.2], [0.1, 0.5]], dtype=torch.float64)
    traced = trace(lambda z, x: 0.3 * torch.linalg.matrix_exp(z) @ z.tanh() + x, z, z)
    task = task_of(traced, head_json(traced, SETTINGS, ({"z0": z.numpy()}, {"z0": z.numpy()})))
    compare_rows(StateMap(traced, task.recorder, SETTINGS.first_bits), z.numpy())


def compare_rows(function: StateMap, z: np.ndarray[Any, Any]) -> None:
    run = function.run("f", function.point(z))
    with flint_precision(function.bits):
        (block,) = jacobian(function.machine, run, 1)
        alone = jacobian_by(lambda c: function.machine.reverse(run, c), function.size, 1)[0]
    for one, other in zip(block.entries(), alone.entries(), strict=True):
        assert one.overlaps(other)
        assert one.rad() < 1e-35


@pytest.mark.parametrize("name", NAMES)
def test_oracle_lies_within_what_its_residual_proves(name: str) -> None:
    oracle = get_problem(name).oracle()
    if oracle is None:
        assert get_problem(name).oracle_float64 is None
        return
    part, function = enclosed(name), function_of(name)
    assert part.proved is not None
    assert part.enclosure is not None
    z = function.point(oracle)
    with flint_precision(function.bits):
        pairs = zip(function.value(z), z, strict=True)
        size = max(float((value - point).abs_upper()) for value, point in pairs)
        # |z - z*| <= ||(I - K)^-1|| |f(z) - z| to first order; the factor 2 covers the second.
        bound = 2 * max(np.linalg.norm(inverse, np.inf) for inverse in part.enclosure.inverses) * size
        distances = [float((x - y).abs_upper()) for x, y in zip(z, part.proved.state, strict=True)]
    assert max(distances) <= bound + 2.0**-190
    assert size <= 2.0**-30 * max(1.0, np.max(np.abs(oracle)))


def test_steps_and_their_gradient_evaluate_f_twice_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task, settings = posed("dense-tanh"), SETTINGS
    points: list[str] = []
    run = StateMap.run
    monkeypatch.setattr(StateMap, "run", lambda self, kind, z: points.append(kind) or run(self, kind, z))
    n_step_part(task, settings, 1.0, with_torch=False)
    assert points == ["f"] * 2 * STEPS
