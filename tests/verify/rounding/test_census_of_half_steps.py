"""The scalar census: all 16-bit states through a half step and back, against the prediction and the bound."""

import math

import pytest
import torch

from revdeq.arithmetic import half_step, undo_half_step
from verify.rounding.census import (
    CENSUS_BETAS,
    CENSUS_VALUES,
    all_states,
    bound,
    census,
    census_frame,
    ordinal,
    spacing,
)


DTYPES = [torch.bfloat16, torch.float16]
# How far the mean of the forgotten bits may be from the prediction: rounding a s first, which the interval leaves out,
# moves a state by half a spacing, so it changes the count by one at each end of intervals that hold few.
FORGOTTEN = 0.125


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_states_are_every_finite_number_once(dtype):
    states = all_states(dtype)
    info = torch.finfo(dtype)
    exponents = {torch.bfloat16: 2**8 - 1, torch.float16: 2**5 - 1}[dtype]
    assert states.numel() == 2 * exponents * round(1 / info.eps) - 1
    assert states.unique().numel() == states.numel()
    assert bool(torch.isfinite(states).all())


def test_a_dtype_of_other_than_16_bits_is_refused():
    with pytest.raises(ValueError, match="16 bits"):
        all_states(torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ordinals_count_the_numbers_of_the_dtype(dtype):
    states = all_states(dtype).to(torch.float64).sort().values
    counted = torch.arange(states.numel(), dtype=torch.float64) - (states.numel() - 1) / 2
    assert torch.equal(ordinal(states, dtype), counted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_spacings_are_the_distances_between_neighbours(dtype):
    states = all_states(dtype).to(torch.float64).sort().values
    above = states[states >= 0]
    assert torch.equal(spacing(above[:-1], dtype), above.diff())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.3, 0.5, 0.8, 1.25, 1.9])
@pytest.mark.parametrize("value", [0.0, 0.7, -100.0])
def test_no_state_of_all_crosses_the_bound_and_as_many_bits_are_forgotten_as_predicted(dtype, beta, value):
    row = census(dtype, beta, value)
    assert row.states > 60_000
    assert row.bound_ratio <= 1
    assert abs(row.bits_forgotten - row.bits_forgotten_predicted) <= FORGOTTEN
    # The bound is not vacuous: somewhere it is reached within a factor of four.
    assert row.bound_ratio >= 0.25


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.5, 0.8, 4 / 3])
def test_integer_half_steps_return_all_states(dtype, beta):
    row = census(dtype, beta, 0.7, "bitwise")
    assert row.returned == row.states == all_states(dtype).numel()
    assert row.bits_lost == 0.0
    assert census(dtype, beta, 0.7).returned < row.states


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_inverse_with_a_beta_that_is_off_crosses_the_bound(dtype):
    # The control: an inverse whose beta is one unit in the last place away from the forward one.
    beta, states = 0.8, all_states(dtype)
    values = torch.full_like(states, 0.7)
    image = half_step(states, values, beta)
    rebuilt = undo_half_step(image, values, beta + 4 * torch.finfo(dtype).eps)
    finite = torch.isfinite(image) & torch.isfinite(rebuilt)
    error = (rebuilt.to(torch.float64) - states.to(torch.float64)).abs()
    allowed = bound(states, image, rebuilt, beta, float(values[0]))
    assert float((error / allowed)[finite].max()) > 1


@pytest.mark.parametrize(
    ("beta", "value", "said"),
    [(1.0, 0.0, "beta is 1"), (2.0, 0.0, "beta is 2"), (math.nan, 0.0, "beta is nan"), (0.5, 1e6, "overflows")],
)
def test_a_census_refuses_what_it_cannot_count(beta, value, said):
    with pytest.raises(ValueError, match=said):
        census(torch.float16, beta, value)


@pytest.mark.nightly
def test_the_whole_census_holds():
    frame = census_frame()
    floating = frame[frame.arithmetic == "floating"]
    assert len(floating) == 2 * len(CENSUS_BETAS) * len(CENSUS_VALUES)
    assert bool((floating.bound_ratio <= 1).all())
    assert bool(((floating.bits_forgotten - floating.bits_forgotten_predicted).abs() <= FORGOTTEN).all())
    bitwise = frame[frame.arithmetic == "bitwise"]
    assert len(bitwise) > 0
    assert bool((bitwise.returned == bitwise.states).all())
