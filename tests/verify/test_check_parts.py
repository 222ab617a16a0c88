"""The parts that checks are made of: ratios, windows, fits, counts of bytes and of bits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from verify.case import Case
from verify.checks import CRITERIA, Trial, measure
from verify.gate import judge_row
from verify.planted.base import Honest
from verify.problems import get_problem
from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.subject import Settings
from verify.trial.decay import Decay, fit_rate_with_linear_factor, step_rate
from verify.trial.memory import Allocations, Saved
from verify.trial.observation import observe, same_bits
from verify.trial.ratio import ratio_row, rms


def exact(values):
    return Multiprecision(30).convert(np.asarray(values, dtype=np.float64))


@pytest.fixture
def trial():
    return Trial(Case("kepler", 0.5, 2), Honest(), get_problem("kepler"))


def test_rms_of_nothing_is_nan():
    assert math.isnan(rms(np.zeros(0)))


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_rms_neither_overflows_nor_underflows(size):
    assert rms(np.array([3.0, 4.0]) * size) == pytest.approx(math.sqrt(12.5) * size)


def test_rms_of_nan_and_infinity_is_not_finite():
    assert math.isnan(rms(np.array([1.0, math.nan])))
    assert rms(np.array([1.0, math.inf])) == math.inf


def test_ratio_counts_in_scales_and_names_the_worst_component(trial):
    got = torch.tensor([[1.0, 2.0], [3.0, 4.5]], dtype=torch.float64)
    row = ratio_row(trial, "W", got, exact([[1, 2], [3, 4]]), scale=0.125, uncertainty=0.0)
    assert row.measured == pytest.approx(0.25 / 0.125)
    assert (row.index, row.got, row.expected) == ((1, 1), 4.5, 4.0)
    assert row.status == "measured"
    assert row.power == pytest.approx(0.125 / math.sqrt(30 / 4))


@pytest.mark.parametrize("got", [None, torch.zeros(2, 3)])
def test_lost_or_misshapen_leaf_is_a_failed_row(trial, got):
    row = ratio_row(trial, "W", got, exact([[1, 2], [3, 4]]), scale=1e-9, uncertainty=0.0)
    assert (row.status, row.measured) == ("failed", None)
    assert judge_row(replace(row, check="gradient"), CRITERIA).passed is False


@pytest.mark.parametrize(("scale", "status"), [(1e-3, "measured"), (10.0, "no-power"), (math.inf, "no-power")])
def test_ratio_without_power_says_so(trial, scale, status):
    row = ratio_row(trial, "W", torch.zeros(2), exact([1, 2]), scale=scale, uncertainty=0.0)
    assert row.status == status


def test_nan_scale_is_not_a_pass(trial):
    row = ratio_row(trial, "W", torch.zeros(2), exact([1, 2]), scale=math.nan, uncertainty=0.0)
    assert judge_row(replace(row, check="gradient"), CRITERIA).passed is not True


def test_nan_gradient_is_not_a_pass(trial):
    row = ratio_row(trial, "W", torch.full((2,), math.nan), exact([1, 2]), scale=1e-9, uncertainty=0.0)
    assert judge_row(replace(row, check="gradient"), CRITERIA).passed is False


def test_linear_factor_is_told_from_the_rate():
    steps = np.arange(20, 90)
    values = np.asarray((3.0 + 0.5 * steps) * 0.8**steps, dtype=np.float64)
    assert fit_rate_with_linear_factor(steps, values) == pytest.approx(math.log(0.8), rel=1e-3)
    assert fit_rate_with_linear_factor(steps, np.asarray(0.8**steps, dtype=np.float64)) == pytest.approx(
        math.log(0.8), rel=1e-6
    )


def test_step_rate_of_a_real_spectrum_is_the_closed_form_of_its_largest_eigenvalue():
    c = 0.5 * 0.9
    closed = ((c + math.sqrt(c * c + 4 * 0.5)) / 2) ** 2
    assert step_rate(np.array([0.9, -0.3]), 0.5) == pytest.approx(closed)
    assert closed == pytest.approx(0.9352, abs=1e-4)


def test_imaginary_spectrum_below_its_optimum_is_balanced():
    assert step_rate(np.array([0.875j, -0.875j]), 0.5) == pytest.approx(0.5)


def test_window_is_empty_where_the_error_does_not_fall():
    assert len(Decay(np.ones(50), 1.0, 0.9).window()) == 0
    falling = Decay(0.5 ** np.arange(60.0), 1.0, 0.5).window()
    assert (falling[0], falling[-1]) == (14, 36)


def test_hidden_tensors_are_counted_until_they_are_dropped():
    hidden = []
    allocations = Allocations()
    with allocations:
        hidden.append(torch.zeros(8, dtype=torch.float64) + 1)
        torch.zeros(1000)
    assert allocations.alive() == 64
    hidden.clear()
    assert allocations.alive() == 0


def test_saved_tensors_are_counted_once_and_only_while_the_graph_lives():
    x = torch.ones(4, dtype=torch.float64, requires_grad=True)
    saved = Saved()
    with saved.watch():
        torch.exp(x).sum()
        y = torch.exp(x)
        z = (y * y).sum()
    assert saved.bytes() == 32
    del y, z
    assert saved.bytes() == 0


def test_same_bits_wants_dtype_shape_and_value():
    one = torch.tensor([1.0, math.nan])
    assert same_bits(one, one.clone())
    assert not same_bits(one, one.double())
    assert not same_bits(one, one[:1])
    assert not same_bits(one, torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("binding", ["args", "module", "closure"])
def test_observation_counts_and_binds(binding):
    problem = get_problem("kepler")
    settings = Settings(beta=0.5, num_steps=3, adjoint="reversible", state_dtype=torch.float64)
    seen = observe(Honest(), problem, settings, torch.float64, binding=binding)
    assert (len(seen.forward_states), len(seen.backward_states), seen.vjps) == (6, 6, 6)
    assert set(seen.gradients) == set(problem.leaves)
    assert all(gradient is not None for gradient in seen.gradients.values())
    assert seen.changed == ()
    assert torch.equal(seen.forward_states[0], torch.from_numpy(problem.z0))


def test_check_that_raises_becomes_a_failed_row(trial, monkeypatch):
    def explode(*arguments):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(trial.subject, "solve", explode)
    rows = measure("gradient", trial)
    assert [row.leaf for row in rows] == [*trial.problem.leaves] * 3
    for row in rows:
        assert row.status == "failed"
        assert row.reason.startswith("RuntimeError: no such luck (")
        assert judge_row(row, CRITERIA).passed is False


def test_random_directions_depend_on_the_case_alone(trial):
    again = Trial(trial.case, Honest(), trial.problem)
    assert trial.generator("v").random() == again.generator("v").random()
    assert trial.generator("v").random() != trial.generator("w").random()
