"""The ratio R over cells and dtypes, the twin's constant, and the verdicts on power and on what is too good."""

import math

import pandas as pd
import pytest

from verify.case import Case
from verify.criteria import RATIO_LIMIT
from verify.studies.rounding.ratios import CELLS, power, predicted_growth, ratio_frame, study_cases, summary, too_good


DTYPES = [("float64", "float64"), ("float32", "float32"), ("float32", "float64"), ("bfloat16", "bfloat16")]


@pytest.mark.parametrize(("dtype", "state_dtype"), DTYPES)
def test_ratios_are_of_order_one_in_every_dtype(dtype, state_dtype):
    frame = ratio_frame([Case("dense-tanh", 0.5, 4, dtype, state_dtype), Case("attention", 0.8, 2, dtype, state_dtype)])
    counted = frame[frame.power != "none"]
    assert len(counted) > 0
    assert bool((counted.ratio <= RATIO_LIMIT).all())
    assert bool(counted.ratio.median() > 0.05)


@pytest.mark.nightly
def test_the_measured_constants_hold_over_the_whole_study():
    frame = ratio_frame(study_cases())
    counted = frame.query("power != 'none' and ratio > 0")
    assert set(counted.problem) == set(CELLS)
    assert bool((counted.ratio <= RATIO_LIMIT).all())
    assert bool((counted.query("check != 'reconstruction' or dtype == state_dtype").ratio >= 1e-3).all())
    sums = counted.query("leaf != 'z0' and problem != 'affine-defective' and dtype == state_dtype and constant > 0")
    assert len(sums) > 300
    assert bool((sums.constant <= 4).all())
    assert bool(summary(frame).within.all())


@pytest.mark.parametrize(
    ("scale", "size", "seen"),
    [
        (2.0**-20, 1.0, "logic"),
        (2.0**-19, 1.0, "precision"),
        (2.0**-3, 1.0, "precision"),
        (0.2, 1.0, "none"),
        (0.1, 0.0, "none"),
        (math.inf, 1.0, "none"),
        (math.nan, 1.0, "none"),
    ],
)
def test_power_says_what_a_row_can_see(scale, size, seen):
    assert power(scale, size) == seen


@pytest.mark.parametrize(
    ("ratio", "amplification", "verdict"),
    [(1e-4, 1e4, True), (1e-4, 1e2, False), (1e-2, 1e4, False), (1.0, 1e9, False)],
)
def test_too_good_needs_a_reversal_that_loses_digits(ratio, amplification, verdict):
    assert too_good(ratio, amplification) is verdict


def test_growth_counts_one_rounding_for_one_step_and_grows_with_steps():
    growths = [predicted_growth("affine-general", 0.8, n) for n in (1, 2, 4, 8)]
    assert growths[0] == pytest.approx(1.0)
    assert growths == sorted(growths)


def test_a_summary_of_rows_without_power_is_refused():
    with pytest.raises(ValueError, match="no row of the frame has power"):
        summary(pd.DataFrame({"power": ["none"], "ratio": [1.0]}))
