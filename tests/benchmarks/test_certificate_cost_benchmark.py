"""What the benchmark of certificates times is what it says: the N-step gradient, in balls as in mpmath."""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb

from benchmarks.certificate_cost import dense_cell, n_step_gradient, ratio_table
from verify.certificate.n_step import n_steps
from verify.certificate.state_map import StateMap
from verify.reference.arithmetic import Multiprecision
from verify.reference.graph import Program, trace


def as_ball(value: Any) -> arb:
    sign, mantissa, exponent, _ = value._mpf_
    return arb((-int(mantissa) if sign else int(mantissa), int(exponent)))


def test_gradient_that_is_timed_is_that_of_the_certificate() -> None:
    traced, ops = trace(*dense_cell(3, 2)), Multiprecision(60)
    fixed = {name: values for name, values in traced.arrays().items() if name != "z0"}
    weight = np.array([[1.0, -0.5, 2.0], [0.25, 1.0, -1.0]])
    programs = Program(traced.forward, ops, fixed), Program(traced.vjp, ops, fixed)
    timed = n_step_gradient(*programs, ops.convert(np.zeros((2, 3))), ops.convert(weight), 2)
    function = StateMap(traced, 150)
    certified = n_steps(function, 0.5, 2, function.ops.convert(weight.ravel()), function.ops.convert(np.zeros(6)))
    assert set(timed) == set(certified.gradient)
    for name, balls in certified.gradient.items():
        pairs = zip(balls.ravel().tolist(), timed[name].ravel().tolist(), strict=True)
        assert all(ball.overlaps(arb(as_ball(value), 1e-50)) for ball, value in pairs), name


def test_table_shows_both_ratios() -> None:
    seconds = {"balls_seconds": 0.001, "mpmath_seconds": 0.04, "mpmath_twice_digits_seconds": 0.05}
    row = {"batch": 64, "what": "value", **seconds, "ratio": 40.0, "ratio_with_uncertainty": 90.0}
    assert ratio_table([row]).splitlines()[-1] == "| 64 x 64 | value | 1 | 40 | 40.0 | 90 | 90.0 |"
