"""The study of round-off measures what each mode loses and keeps, and says what it did not measure."""

import math

import numpy as np
import pytest
import torch

from verify.problems import get_problem
from verify.profiles import PAPER
from verify.rounding.census import CENSUS_VALUES
from verify.rounding.envelope import CAP, envelope_frame
from verify.studies.registry import STUDIES, Study, measure_study, studies_left_out
from verify.studies.rounding.cost import SAMPLES, WIDTH, cost_curves
from verify.studies.rounding.errors import BETAS, FUNCTION_DTYPES, STUDIED, error_curves, norm
from verify.studies.rounding.frames import census_curves, envelope_curves
from verify.studies.rounding.modes import MODES, rebuilt_error
from verify.studies.rounding.study import FULL, QUICK


@pytest.fixture(scope="module")
def errors():
    curves = list(error_curves(["affine-real"], (1, 4, 16)))
    return {(c.name, c.adjoint, c.target, c.beta, c.dtype): c for c in curves}


def test_every_mode_is_measured_at_every_beta_and_dtype(errors):
    for beta in BETAS:
        for dtype in FUNCTION_DTYPES:
            for mode in STUDIED:
                for target in ("n-step", "fixed-point"):
                    expected = not (mode == "wide" and dtype == "float64")
                    assert (("mode-gradient-error", mode, target, beta, dtype) in errors) is expected


def test_bitwise_rebuilds_the_start_to_the_bit(errors):
    for beta in BETAS:
        for dtype in FUNCTION_DTYPES:
            assert errors["mode-reconstruction", "bitwise", "", beta, dtype].y == (0.0, 0.0, 0.0)


def test_modes_that_keep_their_states_lose_what_f_rounds_and_no_more(errors):
    for beta in BETAS:
        for dtype in FUNCTION_DTYPES:
            for mode in ("bitwise", "checkpointed"):
                curve = errors["mode-gradient-error", mode, "n-step", beta, dtype]
                assert all(y <= p for y, p in zip(curve.y, curve.predicted or (), strict=True))
            # Of float64 the default lets reversal take 29 bits before it stores states instead.
            kept = errors["mode-gradient-error", "bitwise", "n-step", beta, dtype].predicted
            for y, predicted in zip(
                errors["mode-gradient-error", "default", "n-step", beta, dtype].y, kept, strict=True
            ):
                assert y <= (2.0**-24 if dtype == "float64" else predicted)


def test_prediction_is_on_the_safe_side_of_what_reversal_loses(errors):
    compared = 0
    for (name, mode, target, _, _), curve in errors.items():
        if name == "mode-gradient-error" and mode in ("floating", "wide") and target == "n-step":
            for y, predicted in zip(curve.y, curve.predicted or (), strict=True):
                if math.isfinite(predicted):
                    compared += 1
                    assert y <= predicted
    assert compared >= 20


def test_rebuilt_start_is_as_wrong_as_predicted_after_many_steps(errors):
    for beta in BETAS:
        curve = errors["mode-reconstruction", "floating", "", beta, "float64"]
        predicted = curve.predicted
        assert predicted is not None
        assert all(y <= p for y, p in zip(curve.y, predicted, strict=True))
        assert curve.y[-1] >= predicted[-1] / 1000


def test_gradient_that_backward_refuses_is_nan(monkeypatch):
    place = "verify.studies.rounding.errors"
    monkeypatch.setattr(f"{place}.BETAS", (0.8,))
    monkeypatch.setattr(f"{place}.FUNCTION_DTYPES", ("float32",))
    monkeypatch.setattr(f"{place}.STUDIED", ("floating", "bitwise", "default"))
    found = {c.adjoint: c.y for c in error_curves(["affine-real"], (64,)) if c.target == "n-step"}
    assert math.isnan(found["floating"][0])
    assert math.isfinite(found["default"][0])
    assert math.isfinite(found["bitwise"][0])


def test_mode_that_stores_its_states_rebuilds_none():
    problem = get_problem("kepler")
    with pytest.raises(ValueError, match="rebuilds no state"):
        rebuilt_error(MODES["checkpointed"], 0.5, 2, problem.function, *problem.inputs(torch.float64))


def test_bytes_are_flat_where_steps_are_reversed_and_grow_where_states_are_stored():
    steps = (1, 8, 32)
    curves = {(c.name, c.adjoint): c.y for c in cost_curves((0.5,), steps, 1)}
    for mode in ("floating", "wide"):
        assert len(set(curves["mode-bytes", mode])) == 1
    kept = curves["mode-bytes", "unrolled"]
    assert (kept[2] - kept[1]) / 24 == (kept[1] - kept[0]) / 7 > 0
    bitwise = curves["mode-bytes", "bitwise"]
    bits = 8 * (bitwise[2] - bitwise[0]) / (2 * (32 - 1) * SAMPLES * WIDTH)
    assert 0 <= bits <= 1  # log2 m, m = 2
    assert curves["mode-bytes", "checkpointed"][2] < kept[2] / 4
    for mode in ("floating", "wide", "bitwise", "checkpointed", "unrolled"):
        assert all(p >= k for p, k in zip(curves["mode-peak", mode], curves["mode-bytes", mode], strict=True))
        assert all(ratio > 0 for ratio in curves["mode-time", mode])
    assert curves["mode-time", "floating"] == (1.0, 1.0, 1.0)


def test_cost_of_a_backward_that_refuses_is_nan(monkeypatch):
    monkeypatch.setattr("verify.studies.rounding.cost.COMPARED", ("floating", "bitwise"))
    curves = {(c.name, c.adjoint): c.y for c in cost_curves((0.8,), (1, 64), 1)}
    assert all(map(math.isfinite, curves["mode-bytes", "floating"]))
    assert [math.isnan(peak) for peak in curves["mode-peak", "floating"]] == [False, True]
    assert all(map(math.isfinite, curves["mode-peak", "bitwise"]))
    assert [math.isnan(ratio) for ratio in curves["mode-time", "bitwise"]] == [False, True]


def test_envelope_is_predicted_everywhere_and_measured_where_a_step_is_allowed():
    of = (("float64", "float64"), ("float32", "float64"), ("bfloat16", "bfloat16"))
    curves = list(envelope_curves((0.5,), 1, (0.9,), of, predicted_betas=(0.3, 0.5, 1.2)))
    predicted = [c for c in curves if c.name == "envelope-predicted"]
    measured = {(c.problem, c.dtype, c.state_dtype): c for c in curves if c.name == "envelope-measured"}
    errors = {(c.problem, c.dtype, c.state_dtype): c for c in curves if c.name == "envelope-error"}
    assert any(math.isnan(y) for c in predicted if c.problem == "imaginary k=0.99" for y in c.y)
    assert all(math.isfinite(y) for c in predicted if c.problem == "real k=0.9" for y in c.y)
    # .3 has no bitwise form, and where there is one, the states set no limit.
    assert {c.x for c in predicted if c.state_dtype == "bitwise"} == {(0.5, 1.2)}
    steps = {c.dtype: c.y for c in predicted if c.state_dtype == "bitwise" and c.problem == "real k=0.9"}
    assert steps["float64"] == steps["float32"] == (CAP, CAP)
    frame = envelope_frame(betas=(0.3, 0.5, 1.2), constants=(0.9,), kinds=("real",), seeds=0)
    curves_of = {(c.dtype, c.state_dtype): c for c in predicted if c.problem == "real k=0.9"}
    for row in frame.to_dict("records"):
        curve = curves_of[row["dtype"], row["state_dtype"]]
        assert curve.y[curve.x.index(row["beta"])] == row["num_steps"]
    assert {problem for problem, _, _ in measured} == {"real k=0.9", "imaginary k=0.9", "complex k=0.9"}
    assert set(measured) == set(errors)
    for key, curve in errors.items():
        assert curve.x == measured[key].x == (0.5,)
        assert all(y <= band for y, band in zip(curve.y, curve.band or (), strict=True))
        assert all(y >= p >= 1 for y, p in zip(measured[key].y, measured[key].predicted or (), strict=True))


def test_census_counts_all_states_of_both_dtypes():
    curves = {(c.name, c.dtype, c.adjoint): c for c in census_curves((0.7,), (0.3, 0.5, 0.8))}
    for dtype in ("bfloat16", "float16"):
        assert all(ratio <= 1 for ratio in curves["census-bound", dtype, "floating"].y)
        assert curves["census-bound", dtype, "floating"].x == (0.3, 0.5, 0.8)
        # .3 has no bitwise form.
        assert curves["census-returned", dtype, "bitwise"].x == (0.5, 0.8)
        assert curves["census-returned", dtype, "bitwise"].y == (1.0, 1.0)
        forgotten = curves["census-forgotten", dtype, "floating"]
        assert np.abs(np.subtract(forgotten.y, forgotten.predicted or ())).max() <= 0.2


@pytest.mark.parametrize("extent", [QUICK, FULL])
def test_every_extent_has_the_papers_settings(extent):
    assert {steps for _, steps in PAPER} <= set(extent.steps)
    assert {beta for beta, _ in PAPER} <= set(BETAS)
    assert {beta for beta, _ in PAPER} <= set(extent.envelope_betas) | set(BETAS)


def test_studies_have_names_of_their_own_and_are_about_revdeq_alone(monkeypatch):
    assert len({study.name for study in STUDIES}) == len(STUDIES)
    (curve,) = (c for c in census_curves((0.7,), (0.3,)) if c.name == "census-lost" and c.dtype == "float16")
    asked = []

    def curves(profile):
        asked.append(profile)
        return [curve]

    monkeypatch.setattr(
        "verify.studies.registry.STUDIES", (Study("one", ("a",), lambda _: []), Study("two", ("b",), curves))
    )
    assert measure_study("two", "quick", "revdeq") == [curve]
    assert asked == ["quick"]
    assert measure_study("one", "quick", "another:subject") == []
    assert studies_left_out("revdeq") == ()
    (left,) = studies_left_out("another:subject")
    assert left.what == "the studies (one, two)"


def test_norm_of_an_overflowed_gradient_is_still_a_number():
    assert norm(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert norm(np.zeros(2)) == 0.0
    assert math.isnan(norm(np.array([1.0, math.nan])))


def test_values_of_the_census_have_names_of_their_own():
    names = {c.problem for c in census_curves((*CENSUS_VALUES, 0.7), (0.5,)) if c.dtype == "float16"}
    assert names == {"f = 0", "f = 1", "f = -1", "f = 0.7", "f = 3", "f = -100", "f = 0.00098"}
