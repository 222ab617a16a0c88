"""The envelope: measured errors on its safe side, and not far inside."""

import numpy as np
import pytest

from verify.rounding.envelope import (
    BITWISE,
    BITWISE_PRECISIONS,
    CAP,
    PRECISIONS,
    TOLERANCES,
    eigenvalues,
    envelope_frame,
    measured_error,
    predicted_errors,
    predicted_steps,
)


FARTHEST_INSIDE = 20


@pytest.mark.parametrize("kind", ["real", "imaginary", "complex"])
def test_the_fixtures_spectrum_has_the_contraction_constant(kind):
    values = eigenvalues(kind, 0.9)
    assert np.abs(values).max() == pytest.approx(0.9)
    assert np.isin(np.round(values.conj(), 12), np.round(values, 12)).all()


@pytest.mark.parametrize(
    ("dtype", "state_dtype"), [("float64", "float64"), ("float32", "float64"), ("bfloat16", "float32")]
)
def test_predicted_errors_grow_with_the_steps(dtype, state_dtype):
    errors = predicted_errors(0.8, eigenvalues("real", 0.9), dtype, state_dtype)
    assert errors.shape == (CAP + 1,)
    assert bool((np.diff(errors[np.isfinite(errors)]) >= 0).all())


def test_a_wider_state_reaches_farther():
    spectrum = eigenvalues("complex", 0.9)
    reach = [predicted_steps(0.8, spectrum, "bfloat16", state) for state in ("bfloat16", "float32", "float64")]
    assert reach == sorted(reach)
    assert reach[0] < reach[-1]


def test_a_balanced_setting_reaches_the_cap():
    # beta below the optimum for an imaginary spectrum: G = 1, no blow-up (T6).
    assert predicted_steps(0.5, eigenvalues("imaginary", 0.9), "float64", "float64") == CAP


def confirmed_rows(**chosen):
    frame = envelope_frame(precisions=(*PRECISIONS, *BITWISE_PRECISIONS), **chosen)
    confirmed = frame[frame.measured.notna()].astype({"inside": float, "safe": bool})
    assert bool(frame[frame.num_steps.isna()].measured.isna().all())
    return confirmed


def test_measured_points_are_on_the_safe_side_and_not_far_inside():
    confirmed = confirmed_rows(betas=(0.8, 1.2), constants=(0.9,), kinds=("real", "imaginary"), seeds=1)
    assert len(confirmed) >= 20
    assert bool(confirmed.safe.all())
    assert float(confirmed.inside.max()) <= FARTHEST_INSIDE
    assert float(confirmed.inside.quantile(0.9)) <= 4


def test_integer_states_reach_the_cap_wherever_f_allows():
    assert predicted_steps(0.8, eigenvalues("real", 0.9), "float32", BITWISE) == CAP
    assert measured_error("real", 0.9, 0.8, CAP, "float32", BITWISE, 0) < 1e-5
    assert predicted_steps(0.8, eigenvalues("real", 0.9), "float32", "float64") < CAP


def test_beyond_the_envelope_the_tolerance_is_crossed():
    # The control: the measurement does find errors above the tolerance where the prediction says so.
    reach = predicted_steps(0.8, eigenvalues("real", 0.9), "float64", "float64")
    assert measured_error("real", 0.9, 0.8, 2 * reach, "float64", "float64", 0) > TOLERANCES["float64"]


@pytest.mark.nightly
def test_the_whole_envelope_is_safe():
    confirmed = confirmed_rows()
    assert len(confirmed) > 500
    assert bool(confirmed.safe.all())
    assert float(confirmed.inside.max()) <= FARTHEST_INSIDE
