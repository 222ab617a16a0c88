"""Every VJP rule of the tape against finite differences in multiprecision, alone and with a replica axis."""

# pyright: reportUnknownLambdaType=false

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from verify.reference import Tape
from verify.reference.arithmetic import Multiprecision, Perturbed


EPS = 2.0**-10
RULES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "add": (lambda o, a, b: o.add(a, b), [(2, 3), (3,)]),
    "add-number": (lambda o, a: o.add(0.5, a), [(2, 3)]),
    "add-itself": (lambda o, a: o.add(a, a), [(2, 3)]),
    "subtract": (lambda o, a, b: o.subtract(a, b), [(2, 1), (2, 3)]),
    "subtract-number": (lambda o, a: o.subtract(1.5, a), [(2, 3)]),
    "multiply": (lambda o, a, b: o.multiply(a, b), [(2, 2, 3), (2, 1)]),
    "multiply-scalar": (lambda o, a, b: o.multiply(a, b), [(), (2, 3)]),
    "multiply-itself": (lambda o, a: o.multiply(a, a), [(4,)]),
    "divide": (lambda o, a, b: o.divide(a, o.add(b, 4.0)), [(2, 3), (2, 1)]),
    "divide-number": (lambda o, a: o.divide(o.add(a, 4.0), 3.0), [(2, 3)]),
    "negative": (lambda o, a: o.negative(a), [(3,)]),
    "matmul": (lambda o, a, b: o.matmul(a, b), [(2, 3), (3, 4)]),
    "matmul-folded": (lambda o, a, b: o.matmul(a, b), [(2, 2, 3), (3, 4)]),
    "matmul-batched": (lambda o, a, b: o.matmul(a, b), [(2, 2, 3), (2, 3, 2)]),
    "matmul-broadcast": (lambda o, a, b: o.matmul(a, b), [(2, 3), (2, 3, 2)]),
    "sum": (lambda o, a: o.sum(a, axis=-2), [(2, 3, 2)]),
    "sum-keepdims": (lambda o, a: o.multiply(a, o.sum(a, axis=-1, keepdims=True)), [(2, 3)]),
    "exp": (lambda o, a: o.exp(a), [(4,)]),
    "log": (lambda o, a: o.log(o.add(o.multiply(a, a), 1.0)), [(4,)]),
    "sqrt": (lambda o, a: o.sqrt(o.add(o.multiply(a, a), 1.0)), [(4,)]),
    "sin": (lambda o, a: o.sin(a), [(4,)]),
    "cos": (lambda o, a: o.cos(a), [(4,)]),
    "tanh": (lambda o, a: o.tanh(a), [(4,)]),
    "relu": (lambda o, a: o.relu(o.multiply(2.0, a)), [(6,)]),
    "solve": (lambda o, a, b: o.solve(o.add(o.multiply(0.1, a), np.eye(3)), b), [(3, 3), (2, 3)]),
    "softplus": (lambda o, a: o.softplus(o.multiply(20.0, a)), [(6,)]),
    "softmax": (lambda o, a: o.softmax(a), [(2, 4)]),
    "layer-norm": (lambda o, a, w, b: o.layer_norm(a, w, b, EPS), [(2, 2, 4), (4,), (4,)]),
    "group-norm": (lambda o, a, w, b: o.group_norm(a, 2, w, b, EPS), [(2, 4, 2, 2), (4,), (4,)]),
    "conv2d": (lambda o, a, w: o.conv2d(a, w), [(2, 2, 4, 3), (3, 2, 3, 3)]),
    "conv2d-5x5": (lambda o, a, w: o.conv2d(a, w), [(1, 1, 3, 3), (2, 1, 5, 5)]),
    "reshape": (lambda o, a: o.reshape(o.multiply(a, a), (-1, 2)), [(2, 3, 2)]),
    "permute": (lambda o, a: o.permute(o.multiply(a, a), (2, 0, 1)), [(2, 3, 4)]),
    "transpose": (lambda o, a: o.transpose(o.multiply(a, a)), [(2, 3, 4)]),
}


def evaluate(rule, at, arrays, replicas=None):
    tape = Tape(at, replicas=replicas)
    leaves = [tape.leaf(array) for array in arrays]
    return tape, leaves, rule(tape, *leaves)


def sample(shapes, seed):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("name", RULES)
def test_vjp_agrees_with_finite_differences(name):
    rule, shapes = RULES[name]
    at = Multiprecision(50)
    arrays = [at.convert(array) for array in sample(shapes, 1)]
    along = [at.convert(array) for array in sample(shapes, 2)]
    tape, leaves, output = evaluate(rule, at, arrays)
    cotangent = at.convert(np.random.default_rng(3).normal(size=output.value.shape))
    pulled = tape.pull_back(output, cotangent, leaves)
    step = at.context.mpf(10) ** -15

    def value(sign):
        moved = [at.add(a, at.multiply(at.convert(sign * step), d)) for a, d in zip(arrays, along, strict=True)]
        return at.sum(at.multiply(cotangent, evaluate(rule, at, moved)[2].value))[()]

    difference = (value(1) - value(-1)) / (2 * step)
    product = sum(at.sum(at.multiply(g, d))[()] for g, d in zip(pulled, along, strict=True))
    for gradient, array in zip(pulled, arrays, strict=True):
        assert gradient.shape == array.shape
    # Central differences at 1e-15 leave 1e-30 of the third derivative, which 20^3 in softplus makes 1e-26.
    assert abs(difference - product) < 1e-24


@pytest.mark.parametrize("name", RULES)
def test_replicas_equal_separate_runs(name):
    rule, shapes = RULES[name]
    at = Multiprecision(30)
    runs = [[at.convert(array) for array in sample(shapes, seed)] for seed in (1, 2)]
    tape, leaves, output = evaluate(rule, at, [np.stack(pair) for pair in zip(*runs, strict=True)], replicas=2)
    cotangent = at.convert(np.random.default_rng(3).normal(size=output.value.shape))
    pulled = tape.pull_back(output, cotangent, leaves)
    for index, arrays in enumerate(runs):
        own_tape, own_leaves, own_output = evaluate(rule, at, arrays)
        own_pulled = own_tape.pull_back(own_output, cotangent[index], own_leaves)
        assert np.array_equal(output.value[index], own_output.value)
        for together, alone in zip(pulled, own_pulled, strict=True):
            assert np.max(np.abs(at.to_float64(at.subtract(np.asarray(together[index]), alone))), initial=0) < 1e-28


@pytest.mark.parametrize("name", RULES)
def test_perturbed_value_is_near_the_exact_one(name):
    rule, shapes = RULES[name]
    exact, rounded = Multiprecision(30), Perturbed(2.0**-8, 2.0**-24, seed=1)
    arrays = sample(shapes, 1)
    expected = exact.to_float64(evaluate(rule, exact, [exact.convert(a) for a in arrays])[2].value)
    measured = rounded.to_float64(
        evaluate(rule, rounded, [rounded.convert(np.stack([a] * 8)) for a in arrays], replicas=8)[2].value
    )
    # At most three roundings follow each other, on intermediate results of at most 20 times the greatest.
    assert np.max(np.abs(measured - expected)) <= 3 * 20 * 2.0**-8 * max(1.0, np.max(np.abs(expected)))


def test_pull_back_gives_zero_for_a_leaf_that_is_not_used():
    at = Multiprecision(20)
    tape = Tape(at)
    used, unused = tape.leaf(at.convert(np.ones(2))), tape.leaf(at.convert(np.ones(3)))
    output = tape.tanh(used)
    _, gradient = tape.pull_back(output, at.convert(np.ones(2)), [used, unused])
    assert np.array_equal(at.to_float64(gradient), np.zeros(3))


def test_pull_back_of_a_leaf_itself_is_the_cotangent():
    at = Multiprecision(20)
    tape = Tape(at)
    leaf = tape.leaf(at.convert(np.ones(2)))
    (gradient,) = tape.pull_back(leaf, at.convert(np.array([2.0, 3.0])), [leaf])
    assert np.array_equal(at.to_float64(gradient), [2.0, 3.0])


def test_pull_back_twice_gives_the_same():
    at = Multiprecision(20)
    tape = Tape(at)
    leaf = tape.leaf(at.convert(np.array([0.5])))
    output = tape.exp(tape.sin(leaf))
    first, second = (tape.pull_back(output, at.convert(np.ones(1)), [leaf])[0] for _ in range(2))
    assert first == second


def test_axis_counted_from_the_front_is_refused():
    at = Multiprecision(20)
    tape = Tape(at)
    with pytest.raises(ValueError, match="count it from the end"):
        tape.sum(tape.leaf(at.convert(np.ones((2, 2)))), axis=0)
