"""Figures show zeros and NaN, cut what says nothing, and are the same text in every run."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from reports.figures import convergence, gradient_error, memory, reconstruction
from reports.figures.convergence import until_flat
from reports.figures.modes import mode_errors
from reports.figures.panels import Limits, log_limits
from reports.figures.style import beta_appearance, method_appearance
from reports.figures.svg import figure_name
from reports.text import precision


def lines_named(synthetic_run, name):
    return [curve for curve in synthetic_run.curves if curve.name == name and curve.beta == 0.5]


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (gradient_error, "error-vs-evaluations"),
        (convergence, "convergence"),
        (reconstruction, "reconstruction"),
        (memory, "memory"),
    ],
)
def test_figure_is_one_svg_with_labelled_axes_and_legend(synthetic_run, draw, name):
    curves = [curve for curve in lines_named(synthetic_run, name) if curve.target != "fixed-point"]
    first = draw(curves, name="a", caption="c")
    assert first.svg.startswith('<svg role="img"')
    assert first.svg.endswith("</svg>")
    text = re.sub("<[^>]+>", " ", first.svg)
    for problem in ("affine-real", "kepler", "tanh", "attention"):
        assert problem in text
    assert curves[0].x_name in text
    assert "error" in text or curves[0].y_name in text
    assert first.svg == draw(curves, name="a", caption="c").svg
    assert "id=" not in re.sub(r'id="[a-zA-Z][0-9a-f_]+"', "", first.svg)


def test_figure_says_its_fonts_once_and_no_coordinate_to_more_than_two_decimals(synthetic_run):
    svg = convergence(lines_named(synthetic_run, "convergence"), name="a", caption="c").svg
    assert svg.count("font-family") == 1
    assert not re.search(r' (?:d|x|y|transform)="[^"]*\d\.\d{3}', svg)
    # Numbers that are read are left alone.
    curve = replace(lines_named(synthetic_run, "convergence")[0], problem="0.12345")
    assert "0.12345" in convergence([curve], name="a", caption="c").svg


def test_figure_says_that_there_is_a_nan(synthetic_run):
    curves = lines_named(synthetic_run, "convergence")
    assert "NaN or infinite" not in convergence(curves, name="a", caption="c").svg
    spoiled = [replace(curves[0], y=(math.nan, *curves[0].y[1:])), *curves[1:]]
    assert "NaN or infinite" in convergence(spoiled, name="a", caption="c").svg


def test_caption_says_how_uncertain_the_references_are_where_no_band_can_be_drawn(synthetic_run):
    curves = [replace(curve, band=(1e-50,) * len(curve.x)) for curve in lines_named(synthetic_run, "convergence")]
    assert "uncertain by at most 1.0e-50" in convergence(curves, name="a", caption="c").caption
    wide = [replace(curve, band=(1e-1,) * len(curve.x)) for curve in curves]
    assert convergence(wide, name="a", caption="c").caption == "c"


def test_caption_of_memory_says_what_a_step_more_keeps(synthetic_run):
    curves = lines_named(synthetic_run, "memory")
    assert (
        "exact (reversible adjoint) 0 B, exact (unrolled adjoint) 4 KiB."
        in memory(curves, name="a", caption="c").caption
    )
    broken = [replace(curves[0], y=(*curves[0].y[:-1], math.nan)), *curves[1:]]
    assert "exact (reversible adjoint) NaN" in memory(broken, name="a", caption="c").caption


def test_panel_is_a_setting_where_one_is_asked_for_and_its_predictions_have_their_own_colour(synthetic_run):
    curves = [c for c in synthetic_run.curves if c.name == "reconstruction" and c.problem == "tanh" and c.beta != 0.25]
    drawing = mode_errors(
        curves,
        name="a",
        caption="c",
        floor=1e-18,
        ceiling=1e4,
        marks={"float32 f, beta 0.8": [(4.0, "#123456")]},
        mark="here",
    )
    text = re.sub("<[^>]+>", " ", drawing.svg)
    for panel in (
        "float64 f, beta 0.5",
        "float32 f, beta 0.8",
        "bfloat16 f, beta 0.8",
        "here",
        "predicted by the model",
    ):
        assert panel in text
    assert text.index("float64 f") < text.index("float32 f") < text.index("bfloat16 f")
    assert "#123456" in drawing.svg


def test_curve_is_cut_soon_after_it_is_flat(synthetic_run):
    curve = lines_named(synthetic_run, "convergence")[0]
    x = tuple(float(n) for n in range(100))
    y = tuple(max(0.5**n, 1e-6) for n in range(100))
    cut = until_flat(replace(curve, x=x, y=y, predicted=y, band=y))
    assert min(cut.y) == 1e-6
    assert 19 <= len(cut.x) <= 26
    assert len(cut.x) == len(cut.y) == len(cut.predicted or ()) == len(cut.band or ())


def test_curve_without_a_number_is_left_as_it_is(synthetic_run):
    curve = lines_named(synthetic_run, "convergence")[0]
    broken = replace(curve, y=(math.nan,) * len(curve.x))
    assert until_flat(broken) is broken


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([1e-3, 2.0], Limits(1e-3, 10.0)),
        ([0.0, 1e-3, 2.0], Limits(1e-4, 10.0)),
        ([math.nan, 1e-3, 2.0], Limits(1e-3, 100.0)),
        ([1.0], Limits(1.0, 10.0)),
        ([], Limits(0.1, 10.0)),
        ([0.0, math.nan], Limits(0.1, 10.0)),
    ],
)
def test_limits_leave_room_for_zeros_and_nan(values, limits):
    found = log_limits(values)
    assert found.low == pytest.approx(limits.low)
    assert found.high == pytest.approx(limits.high)


def test_methods_differ_in_colour_and_in_marker():
    looks = [method_appearance(name) for name in ("reversible", "unrolled", "implicit", "default", "")]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(looks)
    assert method_appearance("ReversibleAdjoint()") == method_appearance("reversible")


def test_betas_differ_in_colour_and_in_marker():
    betas = [0.3, 0.5, 0.75, 0.8, 0.95, 1.2, 1.25]
    looks = [beta_appearance(beta, betas) for beta in betas]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(betas)


def test_names_of_figures_can_stand_in_an_identifier():
    assert figure_name("gradient-error", "cuda:0", "beta 0.5", precision("float32", "float64")) == (
        "gradient_error-cuda_0-beta_0_5-float32_f_float64_state"
    )
