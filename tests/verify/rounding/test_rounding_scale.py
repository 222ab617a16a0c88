"""Rounding scales: proportional to the unit roundoff, exact where nothing rounds, met by a plain float run."""

from typing import Any

import numpy as np
import pytest

from verify.problems import get_problem
from verify.reference import difference, n_step
from verify.reference.arithmetic import Multiprecision, perturbed
from verify.rounding.implicit_scale import implicit_rounding_scale
from verify.rounding.scale import rounding_scale


DOUBLE, SINGLE, BFLOAT16 = 2.0**-53, 2.0**-24, 2.0**-8


def scale(name, beta, steps, state, function, **more):
    return rounding_scale(
        get_problem(name), beta, steps, unit_roundoff_state=state, unit_roundoff_function=function, **more
    )


def test_scale_is_proportional_to_the_unit_roundoff():
    coarse, fine = scale("dense-tanh", 0.5, 4, SINGLE, SINGLE), scale("dense-tanh", 0.5, 4, DOUBLE, DOUBLE)
    pairs = [(coarse.forward_z, fine.forward_z), (coarse.forward_y, fine.forward_y)]
    pairs += list(zip(coarse.reconstruction, fine.reconstruction, strict=True))
    pairs += [(coarse.gradient[leaf], fine.gradient[leaf]) for leaf in coarse.gradient]
    for large, small in pairs:
        # The same seeds disturb both runs alike; second-order terms and the carrier's own rounding are what differs.
        assert large / small == pytest.approx(SINGLE / DOUBLE, rel=0.01)


def test_reconstruction_grows_as_the_duality_says():
    problem = get_problem("affine-slow")
    steps = 16
    errors = rounding_scale(problem, 0.8, steps, unit_roundoff_state=DOUBLE, unit_roundoff_function=DOUBLE).round_trip
    # T6: the worst mode of the inverse grows by rho / a^2; rho solves (lambda - a)^2 = (beta kappa)^2 lambda, T2.
    a, c = 0.2, (0.8 * 0.984375) ** 2
    spectral = max(abs(np.roots([1, -(2 * a + c), a * a])))
    growth = (errors[2] / errors[8]) ** (1 / 6)
    assert growth == pytest.approx(spectral / a**2, rel=0.05)


def test_wide_state_reverses_to_the_bit_at_first():
    result = scale("dense-tanh", 0.5, 8, DOUBLE, SINGLE)
    assert result.round_trip == (0.0,) * 9
    assert result.forward_z > 0
    assert all(value > 0 for value in result.gradient.values())


def test_unrolled_gradient_does_not_feel_the_reversal():
    reversible = scale("affine-slow", 0.8, 12, SINGLE, SINGLE).gradient
    unrolled = scale("affine-slow", 0.8, 12, SINGLE, SINGLE, differentiation="unrolled").gradient
    assert reversible["args.W"] > 100 * unrolled["args.W"]
    # The gradient of an affine map with respect to z0 does not depend on the states.
    assert reversible["z0"] == pytest.approx(unrolled["z0"], rel=0.5)


def test_leaving_the_domain_gives_an_infinite_scale():
    # Reversal at bfloat16 throws Colebrook's states out of the logarithm's domain.
    result = scale("colebrook", 0.8, 16, BFLOAT16, BFLOAT16, accumulate_roundoff=SINGLE)
    assert result.gradient["args.roughness"] == np.inf
    assert np.isfinite(result.forward_z)


@pytest.mark.parametrize("state", [SINGLE, DOUBLE])
def test_scale_does_not_depend_on_the_carrier(state, monkeypatch):
    # Where longdouble is no wider than float64 the carrier is 25-digit mpmath; the same seeds must give the same scale.
    problem = get_problem("kepler")
    arguments = {"unit_roundoff_state": state, "unit_roundoff_function": SINGLE}
    expected = rounding_scale(problem, 0.8, 3, **arguments)
    monkeypatch.setattr(perturbed, "carrier", lambda: Multiprecision(25, strict=False))
    rounding_scale.cache_clear()
    measured = rounding_scale(problem, 0.8, 3, **arguments)
    rounding_scale.cache_clear()
    assert measured is not expected
    assert measured.forward_z == pytest.approx(expected.forward_z, rel=1e-6)
    for leaf, value in expected.gradient.items():
        assert measured.gradient[leaf] == pytest.approx(value, rel=1e-6)


def test_zero_steps_round_nothing():
    result = scale("affine-real", 0.5, 0, SINGLE, SINGLE)
    assert result.forward_z == result.forward_y == result.reconstruction[0] == 0.0


@pytest.mark.parametrize("beta", [0.5, 0.8, 1.25])
@pytest.mark.parametrize("name", ["affine-general", "kepler", "lambert-w"])
def test_float32_run_in_numpy_meets_the_forward_scale(name, beta):
    problem = get_problem(name)
    steps = 6

    class Single:
        add, multiply, matmul = staticmethod(np.add), staticmethod(np.multiply), staticmethod(np.matmul)
        sin, exp, negative = staticmethod(np.sin), staticmethod(np.exp), staticmethod(np.negative)
        transpose = staticmethod(np.transpose)

    args = {leaf: value.astype(np.float32) for leaf, value in problem.args.items()}
    y = z = problem.z0.astype(np.float32)
    ops: Any = Single()
    a, b = np.float32(1 - beta), np.float32(beta)
    for _ in range(steps):
        y = a * y + b * problem.statement(ops, z, args)
        z = a * z + b * problem.statement(ops, y, args)
    assert z.dtype == np.float32
    error = np.sqrt(np.mean(difference(z, n_step(problem, beta, steps).z) ** 2))
    ratio = error / scale(name, beta, steps, SINGLE, SINGLE).forward_z
    assert 0.02 < ratio < 5


def test_implicit_scale_is_proportional_to_the_unit_roundoff():
    problem = get_problem("dense-tanh")
    coarse, fine = (implicit_rounding_scale(problem, unit_roundoff_function=u) for u in (SINGLE, DOUBLE))
    for leaf in problem.leaves[1:]:
        assert coarse[leaf] / fine[leaf] == pytest.approx(SINGLE / DOUBLE, rel=0.01)
    assert coarse["z0"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 1.0}, "beta is 1"),
        ({"beta": 2.0}, "beta is 2"),
        ({"unit_roundoff_state": BFLOAT16}, "coarser than the function"),
        ({"seeds": 4}, "fewer than 8"),
        ({"differentiation": "implicit"}, "'reversible' or 'unrolled'"),
    ],
)
def test_impossible_simulation_is_refused(arguments, message):
    usual = {"beta": 0.5, "num_steps": 2, "unit_roundoff_state": SINGLE, "unit_roundoff_function": SINGLE}
    with pytest.raises(ValueError, match=message):
        rounding_scale(get_problem("affine-real"), **(usual | arguments))
