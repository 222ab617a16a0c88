"""What the benchmark of certificates times is what it says: the N-step gradient, in balls as in mpmath."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flint import arb

from verify.certificate import Settings
from verify.certificate.posed import head_json
from verify.certificate.proof import task_of
from verify.certificate.stages import n_step_part
from verify.reference.arithmetic import Multiprecision
from verify.reference.graph import Program, trace


ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.certificate_cost")


def as_ball(value: Any) -> arb:
    sign, mantissa, exponent, _ = value._mpf_
    return arb((-int(mantissa) if sign else int(mantissa), int(exponent)))


def test_gradient_that_is_timed_is_that_of_the_certificate(benchmark: Any) -> None:
    traced, ops = trace(*benchmark.dense_cell(3, 2)), Multiprecision(60)
    fixed = {name: values for name, values in traced.arrays().items() if name != "z0"}
    weight = np.array([[1.0, -0.5, 2.0], [0.25, 1.0, -1.0]])
    linearised = Program(traced.linearised, ops, fixed)
    timed = benchmark.n_step_gradient(linearised, ops.convert(np.zeros((2, 3))), ops.convert(weight), 2)
    settings = Settings(beta=0.5, num_steps=2)
    head = head_json(traced, settings, ({"z0": weight}, {"z0": np.zeros((2, 3))}))
    certified = n_step_part(task_of(traced, head), settings, 1.0).proved
    assert certified is not None
    assert set(timed) == set(certified.truth)
    for name, balls in certified.truth.items():
        pairs = zip(balls, timed[name].ravel().tolist(), strict=True)
        assert all(ball.overlaps(arb(as_ball(value), 1e-50)) for ball, value in pairs), name


def test_table_shows_both_ratios(benchmark: Any) -> None:
    seconds = {"balls_seconds": 0.001, "mpmath_seconds": 0.04, "mpmath_twice_digits_seconds": 0.05}
    row = {"batch": 64, "what": "value", **seconds, "ratio": 40.0, "ratio_with_uncertainty": 90.0}
    assert benchmark.ratio_table([row]).splitlines()[-1] == "| 64 x 64 | value | 1 | 40 | 40.0 | 90 | 90.0 |"
