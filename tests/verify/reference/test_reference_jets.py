"""Forward differentiation in balls: each operation's derivative, held to differences in mpmath."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flint import arb

from verify.reference.arithmetic import Arithmetic, Multiprecision, Undecided
from verify.reference.arithmetic.balls import Balls, filled
from verify.reference.arithmetic.jets import Jets


BITS, DIGITS = 200, 90
X = np.array([[0.75, 0.5], [0.25, 1.5]])
WAY = np.array([[1.0, -0.5], [0.25, 2.0]])
WEIGHT = np.array([[1.25, -0.5], [0.5, 0.75]])
Rule = Callable[[Arithmetic, Any], Any]


def product(ops: Arithmetic, x: Any) -> Any:
    return ops.matmul(ops.matmul(x, ops.convert(WEIGHT)), x)


RULES: dict[str, Rule] = {
    "exp": lambda ops, x: ops.exp(x),
    "expm1": lambda ops, x: ops.expm1(x),
    "log": lambda ops, x: ops.log(x),
    "log1p": lambda ops, x: ops.log1p(x),
    "sqrt": lambda ops, x: ops.sqrt(x),
    "sin": lambda ops, x: ops.sin(x),
    "cos": lambda ops, x: ops.cos(x),
    "tanh": lambda ops, x: ops.tanh(x),
    "erf": lambda ops, x: ops.erf(x),
    "add": lambda ops, x: ops.add(x, ops.multiply(x, ops.convert(3.0))),
    "subtract": lambda ops, x: ops.subtract(ops.convert(WEIGHT), ops.multiply(x, x)),
    "divide": lambda ops, x: ops.divide(x, ops.add(ops.convert(2.0), ops.sin(x))),
    "divide by": lambda ops, x: ops.divide(ops.convert(2.0), x),
    "negative": lambda ops, x: ops.negative(x),
    "absolute": lambda ops, x: ops.absolute(ops.subtract(x, ops.convert(1.0))),
    "maximum": lambda ops, x: ops.maximum(ops.multiply(x, x), ops.convert(0.5)),
    "minimum": lambda ops, x: ops.minimum(ops.convert(WEIGHT), ops.exp(x)),
    "cube": lambda ops, x: ops.power(x, 3),
    "inverse square": lambda ops, x: ops.power(x, -2),
    "three halves": lambda ops, x: ops.power(x, 1.5),
    "other power": lambda ops, x: ops.power(x, 0.3),
    "no power": lambda ops, x: ops.power(x, 0),
    "matmul": product,
    "vector product": lambda ops, x: ops.matmul(ops.convert(WEIGHT), x[0]),
    "sum": lambda ops, x: ops.sum(ops.multiply(x, x), axis=0, keepdims=True),
    "broadcast": lambda ops, x: ops.add(x[0], ops.multiply(ops.convert(WEIGHT), x[:, :1])),
    "where": lambda ops, x: ops.where(ops.less(x, ops.convert(0.6)), ops.exp(x), ops.convert(WEIGHT)),
}


@pytest.mark.parametrize("name", RULES)
def test_derivative_of_an_operation_is_that_of_its_differences(name: str) -> None:
    balls, digits = Balls(BITS), Multiprecision(DIGITS)
    jets = Jets(balls)
    values, tangents = jets.parts(RULES[name](jets, jets.jets(balls.convert(X), balls.convert(WAY))))
    h = digits.convert(np.asarray(2.0**-90))
    ends = [
        RULES[name](digits, digits.add(digits.convert(X), digits.multiply(digits.convert(WAY), step)))
        for step in (h, digits.negative(h))
    ]
    slope = digits.to_float64(digits.divide(digits.subtract(*ends), digits.add(h, h)))
    assert values.shape == slope.shape
    plain = RULES[name](balls, balls.convert(X))
    assert all(ball.overlaps(other) for ball, other in zip(values.flat, plain.flat, strict=True))
    found = np.zeros(slope.shape) if tangents is None else balls.to_float64(tangents)
    assert np.allclose(found, slope, rtol=2.0**-50, atol=2.0**-50)
    assert tangents is None or all(ball.rad() < 2.0**-180 for ball in tangents.flat)


def test_kink_inside_a_ball_is_undecided() -> None:
    balls = Balls(64)
    jets = Jets(balls)
    wide = filled([arb(0.0, 0.1)], (1,))
    around = jets.jets(wide, balls.convert(np.ones(1)))
    for rule in (jets.absolute, lambda x: jets.maximum(x, jets.convert(np.zeros(1)))):
        with pytest.raises(Undecided):
            rule(around)


def test_arithmetic_of_constants_has_no_derivative() -> None:
    jets = Jets(Balls(64))
    assert isinstance(jets, Arithmetic)
    assert jets.parts(jets.tanh(jets.multiply(jets.convert(X), jets.pi())))[1] is None
