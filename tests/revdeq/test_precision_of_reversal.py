"""The prediction of how right a reversed gradient is: its limits, its order, and what it refuses."""

import math

import pytest
import torch

from revdeq._precision import (
    FUNCTION_CONSTANT,
    FUNCTION_GROWTH,
    STATE_CONSTANT,
    function_error,
    greatest_steps,
    reversal_error,
    unit_roundoff,
)
from revdeq.rates import ellipse_points


DISC = ellipse_points(0.9, 0.9, 9)
SEGMENT = ellipse_points(0.9, 0.0, 9)


def test_without_coupling_the_error_is_that_of_dividing_by_one_minus_beta():
    # kappa = 0: cotangents shrink by a, variances grow by 1/a^2 plus (u/a)^2 at every half step, by hand.
    a, u = 0.5, 2.0**-53
    error = reversal_error(0.5, 0.0, 2, torch.float64, torch.float64)
    first = 1.0 * u / a  # q meets d_z after one half step; p_z met d_y = 0
    grown = math.sqrt(u**2 / a**2 / a**2 + u**2 / a**2)
    second = a * (u / a) + a * grown
    stored = function_error(0.5, 0.0, 2, torch.float64)
    for n, reversal in ((1, first), (2, first + second)):
        assert float(error[n]) == pytest.approx(math.hypot(float(stored[n]), STATE_CONSTANT * reversal), rel=1e-12)


@pytest.mark.parametrize("beta", [0.3, 0.8, 1.2])
@pytest.mark.parametrize("formats", [("float64", "float64"), ("float32", "float64"), ("bfloat16", "float32")])
def test_the_error_is_zero_without_steps_and_grows_with_them(beta, formats):
    dtype, state_dtype = (getattr(torch, name) for name in formats)
    error = reversal_error(beta, DISC, 200, dtype, state_dtype)
    assert float(error[0]) == 0.0
    assert not bool(torch.isnan(error).any())
    assert bool((error[1:] >= error[:-1]).all())
    assert bool((error >= function_error(beta, DISC, 200, dtype)).all())


def test_many_betas_at_once_are_the_single_ones():
    betas = torch.tensor([0.4, 0.9, 1.3], dtype=torch.float64)
    together = reversal_error(betas, SEGMENT, 20, torch.float32, torch.float64)
    alone = [reversal_error(float(beta), SEGMENT, 20, torch.float32, torch.float64) for beta in betas]
    assert torch.allclose(together, torch.stack(alone, dim=1), rtol=1e-12)


def test_the_boundary_of_a_disc_is_its_worst_place():
    inside = torch.cat([DISC, 0.5 * DISC, torch.zeros(1, dtype=DISC.dtype)])
    for state_dtype in (torch.float32, torch.float64):
        whole = reversal_error(0.8, inside, 12, torch.float32, state_dtype)
        assert torch.allclose(whole, reversal_error(0.8, DISC, 12, torch.float32, state_dtype), rtol=1e-12)


def test_more_components_slip_sooner():
    few, many = (
        greatest_steps(0.5, DISC, 1e-5, torch.float32, torch.float64, max_steps=64, components=count)
        for count in (2**4, 2**24)
    )
    assert many < few < 64


def test_balance_keeps_the_error_of_states_that_are_lost():
    # Beta below the optimum of an imaginary spectrum: G = 1 (T6), while the start is rebuilt with no digit right.
    error = reversal_error(0.5, ellipse_points(0.0, 0.9, 9), 100, torch.float64, torch.float64)
    assert float(error[-1]) < 1e-10


def test_states_beyond_the_range_of_f_end_every_envelope():
    error = reversal_error(0.95, ellipse_points(0.0, 0.5, 9), 128, torch.float32, torch.float32)
    assert math.isinf(float(error[-1]))


def test_stored_states_suffer_from_f_as_long_as_the_iteration_remembers():
    error = function_error(0.5, 0.0, 400, torch.bfloat16)
    last = unit_roundoff(torch.bfloat16) * math.hypot(FUNCTION_CONSTANT, FUNCTION_GROWTH / (1 - 0.5))
    assert float(error[-1]) == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize(("wished", "expected"), [(1e-20, 0), (1.0, 40)])
def test_the_greatest_number_of_steps_is_within_what_was_asked(wished, expected):
    assert greatest_steps(0.3, 0.5, wished, torch.float64, torch.float64, max_steps=40) == expected


def test_no_step_is_a_prediction_of_no_error():
    assert reversal_error(0.5, 0.5, 0, torch.float32, torch.float64).tolist() == [0.0]
    assert function_error(0.5, 0.5, 0, torch.float32).tolist() == [0.0]
    assert greatest_steps(0.5, 0.5, 1.0, torch.float32, torch.float64, max_steps=0) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_step_of_states_as_narrow_as_f_makes_one_rounding(dtype):
    # kappa = 0.5, by hand: d_z = u / a after a half step meets q = p_y + w p_z; d_y = 0 met p_z; nothing else rounds.
    a, w, u = 0.5, 0.25, unit_roundoff(dtype)
    error = float(reversal_error(0.5, 0.5, 1, dtype, dtype)[1])
    stored = float(function_error(0.5, 0.5, 1, dtype)[1])
    assert error == pytest.approx(math.hypot(stored, STATE_CONSTANT * math.hypot(1, w) * u / a), rel=1e-12)


def test_what_cannot_be_predicted_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        reversal_error(0.5, 0.5, -1, torch.float32, torch.float64)
    with pytest.raises(ValueError, match="narrower than dtype"):
        reversal_error(0.5, 0.5, 1, torch.float64, torch.float32)
    with pytest.raises(ValueError, match="different from 1"):
        function_error(1.0, 0.5, 1, torch.float64)
