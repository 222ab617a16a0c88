"""Plans: what they promise is measured, what cannot be met is refused with what would, and they read well."""

import math
from functools import partial
from typing import Any

import pytest
import torch

from revdeq import ReversibleAdjoint, solve
from revdeq._plan import Plan, PlanError, plan
from revdeq._precision import function_error, reversal_error
from revdeq.arithmetic import tape_size
from revdeq.arithmetic.forms import bitwise_betas
from revdeq.rates import ellipse_points
from revdeq.solver import Reversible


def linear_cell(dimension: int = 12, k: float = 0.9):
    generator = torch.Generator().manual_seed(7)
    basis = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64))[0]
    weight = basis @ torch.diag(torch.linspace(-k, k, dimension, dtype=torch.float64)) @ basis.T
    inputs = torch.randn(dimension, generator=generator, dtype=torch.float64)
    cotangent = torch.randn(dimension, generator=generator, dtype=torch.float64)
    return weight, inputs, cotangent


def test_planned_gradient_error_is_kept_on_a_linear_cell():
    weight, inputs, cotangent = linear_cell()
    chosen = plan(0.9, spectrum="real", dtype=torch.float64, gradient_error=1e-6)
    parameter = weight.clone().requires_grad_()
    solution = solve(
        lambda z, args: z @ args + inputs,
        torch.zeros(12, dtype=torch.float64),
        parameter,
        solver=Reversible(chosen.beta),
        adjoint=ReversibleAdjoint(),
        max_steps=chosen.num_steps,
    )
    (gradient,) = torch.autograd.grad(solution.z1, parameter, cotangent)
    defect = torch.eye(12, dtype=torch.float64) - weight
    exact = torch.outer(torch.linalg.solve(defect.T, inputs), torch.linalg.solve(defect, cotangent))
    measured = float((gradient - exact).norm() / exact.norm())
    assert measured <= chosen.gradient_error <= 1e-6
    # The plan is not far too careful either: two steps fewer would not do for the worst cotangent.
    assert plan(0.9, spectrum="real", dtype=torch.float64, beta=chosen.beta, num_steps=chosen.num_steps - 2,
                gradient_error=1.0).truncation_error > 1e-6  # fmt: skip


@pytest.mark.parametrize("spectrum", ["real", "imaginary", "any"])
def test_fewer_digits_need_no_more_steps(spectrum):
    wished = [plan(0.5, spectrum=spectrum, gradient_error=e, arithmetic="bitwise") for e in (1e-1, 1e-2, 1e-3)]
    steps = [chosen.num_steps for chosen in wished]
    assert steps == sorted(steps)


def test_counts_of_work_follow_from_the_steps():
    chosen = plan(0.5)
    assert chosen.evaluations == 4 * chosen.num_steps
    assert chosen.vjps == 2 * chosen.num_steps
    assert chosen.bits_left == pytest.approx(-math.log2(chosen.rounding_error))
    assert chosen.memory is None


def test_paper_settings_in_float32_are_refused_and_the_advice_names_the_wider_state():
    with pytest.raises(PlanError, match=r"state_dtype=torch\.float64") as refusal:
        plan(0.9, beta=0.8, num_steps=8, state_dtype=torch.float32, target="n-step", gradient_error=1e-2)
    assert "leaving beta = 0.8 and num_steps = 8 to be chosen" in str(refusal.value)


def test_advice_is_true_where_it_says_what_would_do():
    with pytest.raises(PlanError, match="knowing that the spectrum is real or imaginary"):
        plan(0.9, gradient_error=1e-4, arithmetic="floating")
    assert plan(0.9, spectrum="real", gradient_error=1e-4).gradient_error <= 1e-4
    with pytest.raises(PlanError, match="wider dtype"):
        plan(0.9, spectrum="real", gradient_error=1e-8)
    assert plan(0.9, spectrum="real", gradient_error=1e-8, dtype=torch.float64).gradient_error <= 1e-8
    with pytest.raises(PlanError, match=r"more than 16 steps"):
        plan(0.99, spectrum="real", max_steps=16)
    assert plan(0.99, spectrum="real").num_steps > 16


def test_only_integer_states_reach_where_rounding_would_end_every_floating_plan():
    with pytest.raises(PlanError, match=r"arithmetic='bitwise' with beta = 0\.\d+ and \d+ steps"):
        plan(0.9, gradient_error=1e-4, arithmetic="floating")
    chosen = plan(0.9, gradient_error=1e-4)
    assert chosen.arithmetic == "bitwise"
    assert chosen.state_dtype == torch.int64
    assert bitwise_betas(chosen.beta) == (chosen.beta,)
    assert chosen.bits_lost == 0
    error = function_error(chosen.beta, ellipse_points(0.9, 0.9, 33), chosen.num_steps, torch.float32)
    assert chosen.rounding_error == float(error[-1])
    assert "arithmetic='bitwise'" in str(chosen).splitlines()[0]


def test_a_plan_says_how_far_each_mode_reaches():
    chosen = plan(0.9, spectrum="real", gradient_error=1e-4)
    reach = {part.mode: part for part in chosen.reach}
    assert list(reach) == ["floating", "wide", "bitwise"]
    assert reach["floating"].num_steps < reach["wide"].num_steps < reach["bitwise"].num_steps == 256
    assert reach["floating"].bits_left < reach["wide"].bits_left
    assert reach["bitwise"].betas == bitwise_betas(chosen.beta)
    assert [part.state_dtype for part in chosen.reach] == [torch.float32, torch.float64, torch.int64]
    for part in chosen.reach[:2]:
        met = plan(0.9, spectrum="real", gradient_error=1e-4, target="n-step", beta=chosen.beta,
                   num_steps=part.num_steps, state_dtype=part.state_dtype)  # fmt: skip
        assert met.rounding_error <= 1e-4
        with pytest.raises(PlanError):
            plan(0.9, spectrum="real", gradient_error=1e-4, target="n-step", beta=chosen.beta,
                 num_steps=part.num_steps + 1, state_dtype=part.state_dtype)  # fmt: skip
    assert len(plan(0.5, spectrum="real", dtype=torch.float64).reach) == 2


def test_the_plan_stands_on_the_prediction_that_the_envelope_confirms():
    chosen = plan(0.9, spectrum="real", beta=0.8, num_steps=3, target="n-step", gradient_error=1e-2)
    error = reversal_error(0.8, ellipse_points(0.9, 0.0, 33), 3, torch.float32, torch.float64)
    assert chosen.rounding_error == float(error[-1])


def test_a_bitwise_plan_counts_its_remainders():
    weight = torch.diag(torch.linspace(-0.6, 0.6, 16))
    chosen = plan(function=lambda z, args: torch.tanh(z @ weight + 1), z=torch.zeros(4, 16), arithmetic="bitwise")
    assert chosen.tape == tape_size(chosen.beta, 64, chosen.num_steps)
    assert f"{chosen.tape} bytes, which grow with the steps" in str(chosen)


def test_planned_function_reports_its_memory():
    weight = torch.diag(torch.linspace(-0.6, 0.6, 16))
    chosen = plan(function=lambda z, args: torch.tanh(z @ weight + 1), z=torch.zeros(4, 16), arithmetic="floating")
    assert chosen.memory is not None
    assert chosen.memory.states == 4 * 64 * 8
    # tanh keeps its value and the product its weight.
    assert chosen.memory.graph == 64 * 4 + 256 * 4
    assert chosen.memory.unrolled == 256 * 4 + 2 * chosen.num_steps * 64 * 4 + 2 * 64 * 8
    assert "memory" in str(chosen)


def test_plan_reads_as_a_short_table():
    text = str(plan(0.9, spectrum="real"))
    assert text.splitlines()[0].startswith("Reversible(beta=1.")
    assert "real spectrum in [-0.9, 0.9]" in text
    assert "not bounds" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_plan_is_immutable():
    chosen: Plan = plan(0.5)
    with pytest.raises(AttributeError):
        chosen.beta = 0.5  # pyright: ignore[reportAttributeAccessIssue]


def unchanged(z, args):
    return z


def doubled_and_flipped(z, args):
    return -2 * z


BAD_WISHES: list[tuple[dict[str, Any], str]] = [
    ({}, "takes a contraction_constant"),
    ({"contraction_constant": 1.0}, "less than 1"),
    ({"contraction_constant": -0.5}, "at least 0"),
    ({"contraction_constant": math.nan}, "at least 0"),
    ({"contraction_constant": 0.5, "gradient_error": 0.0}, "gradient_error is .*; it must be positive"),
    ({"contraction_constant": 0.5, "gradient_error": math.nan}, "gradient_error is .*; it must be positive"),
    ({"contraction_constant": 0.5, "gradient_error": -1e-3}, "gradient_error is .*; it must be positive"),
    ({"contraction_constant": 0.5, "gradient_error": math.inf}, "gradient_error is .*; it must be positive and finite"),
    ({"contraction_constant": 0.5, "target": "both"}, "target is .*; it must be"),
    ({"contraction_constant": 0.5, "target": "n-step"}, "needs num_steps"),
    ({"contraction_constant": 0.5, "num_steps": 0}, "num_steps is .*; it must be at least 1"),
    ({"contraction_constant": 0.5, "max_steps": 0}, "max_steps is .*; it must be at least 1"),
    ({"contraction_constant": 0.5, "beta": 1.0}, "different from 1"),
    ({"contraction_constant": 0.5, "beta": -0.5}, "positive"),
    ({"contraction_constant": 0.5, "state_dtype": torch.float16}, "narrower than dtype float32"),
    ({"contraction_constant": 0.5, "arithmetic": "integer"}, "arithmetic is .*; it must be"),
    ({"contraction_constant": 0.5, "arithmetic": "bitwise", "beta": 0.7}, r"1 - 1/3 = 0\.666667 and 1 - 1/4 = 0\.75"),
    ({"contraction_constant": 0.5, "arithmetic": "bitwise", "state_dtype": torch.float64}, "states are integers"),
    ({"contraction_constant": 0.5, "z": torch.zeros(1)}, "without function"),
    ({"function": unchanged}, "without z"),
    ({"contraction_constant": 0.5, "function": unchanged, "z": torch.zeros(1)}, "not both"),
    ({"function": doubled_and_flipped, "z": torch.zeros(3)}, "averaged map helps below -1"),
]


@pytest.mark.parametrize("target", ["fixed-point", "n-step"])
@pytest.mark.parametrize("num_steps", [4, 24])
def test_no_other_beta_is_better_for_a_number_of_steps(num_steps, target):
    """For the fixed point none has a lesser error; for N steps none that is as right as wished comes nearer to it."""
    wished = partial(plan, 0.5, num_steps=num_steps, dtype=torch.float64, target=target, arithmetic="floating")
    chosen = wished(gradient_error=0.5)
    for beta in (0.3, 0.5, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3):
        other = wished(gradient_error=1e300, beta=beta)
        if target == "fixed-point":
            assert chosen.gradient_error <= other.gradient_error
        elif other.gradient_error <= 0.5:
            assert chosen.solution_error <= other.solution_error


@pytest.mark.parametrize(("arguments", "message"), BAD_WISHES)
def test_bad_wishes_are_refused_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(**arguments)


def non_normal(kind: str, seed: int) -> torch.Tensor:
    """Return a matrix far from normal whose eigenvalues lie well inside the unit disc."""
    g = torch.Generator().manual_seed(seed)
    if kind == "triangular":
        spread = torch.diag(torch.rand(16, generator=g, dtype=torch.float64) * 1.2 - 0.6)
        return torch.triu(torch.randn(16, 16, generator=g, dtype=torch.float64), 1) + spread
    if kind == "skewed":
        basis = torch.randn(12, 12, generator=g, dtype=torch.float64)
        values = torch.rand(12, generator=g, dtype=torch.float64) * 1.4 - 0.7
        return basis @ torch.diag(values) @ torch.linalg.inv(basis)
    return torch.diag(torch.full((15,), 1.5 + 0.1 * (seed % 3), dtype=torch.float64), 1)


@pytest.mark.parametrize("kind", ["triangular", "skewed", "shift"])
@pytest.mark.parametrize("at", ["start", "fixed point"])
@pytest.mark.parametrize("seed", range(6))
def test_a_plan_for_a_map_far_from_normal_does_what_it_says(kind: str, at: str, seed: int):
    a = non_normal(kind, seed)
    b = torch.randn(len(a), generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)

    def f(z: torch.Tensor, _: Any) -> torch.Tensor:
        return z @ a.T + b

    z0 = torch.zeros(1, len(a), dtype=torch.float64)
    usual = solve(f, z0, solver=Reversible(0.8), max_steps=200, rtol=1e-9, atol=0.0)
    made = plan(function=f, z=z0 if at == "start" else usual.z1, max_steps=256)
    found = solve(f, z0, solver=Reversible(made.beta), max_steps=made.num_steps, throw=False)
    residual = float((f(found.z1, ()) - found.z1).norm() / b.norm())
    # Ten times is what a plan is held to; from another start than the one that it saw, ten times that.
    assert residual <= (10 if at == "start" else 100) * made.residual
    assert made.num_steps <= 3 * int(usual.num_steps.max())
    assert "estimated" in made.spectrum or "measured" in made.spectrum


def test_a_map_that_no_beta_iterates_is_refused_with_what_was_seen():
    z = torch.zeros(1, 4, dtype=torch.float64)
    with pytest.raises(
        PlanError, match=r"from 1\.5 to 1\.5 \(estimate\).* neither beta 0\.5 nor 0\.8 does from z within 64 steps"
    ):
        plan(function=lambda z, _: 1.5 * z + 1.0, z=z, max_steps=64)
