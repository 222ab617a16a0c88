"""The pages about round-off say what the data say: pictures, tables and sentences, NaN shown, nothing said in words."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from reports.content import Drawing, Fold, Grid, Heading, Notice, Prose
from reports.figures.winners import ALIKE, changes
from reports.html import to_html
from reports.markdown import to_markdown
from reports.merge import merge
from reports.sections import SECTIONS, build_sections
from reports.sections.bits import bits_by_mode, bits_cell
from reports.sections.census import census_blocks, census_sentences
from reports.sections.conclusions import conclusions
from reports.sections.envelope import envelope_blocks, envelope_sentences
from reports.sections.modes import EXACT, mode_blocks, mode_cost_blocks, mode_sentences
from reports.sections.ratios import ratio_blocks, ratio_sentences
from reports.sections.trust import PAPER_SETTINGS
from reports.sections.winners import crossing, gain, winner_blocks
from reports.tables import curve_table
from verify.result import Curve
from verify.result_file import read_results, write_results
from verify.rounding.envelope import CAP
from verify.studies.rounding.cost import SAMPLES, WIDTH


STEPS = (1.0, 2.0, 4.0, 8.0, 16.0)


def curve(name, mode, y, *, x=STEPS, problem="dense-tanh", dtype="float32", state_dtype="", beta=0.8, **fields):
    return Curve(
        name=name, problem=problem, solver="reversible", adjoint=mode, beta=beta, dtype=dtype,
        state_dtype=state_dtype or dtype, device="cpu", x_name="number of steps N", y_name="error", x=x, y=y, **fields,
    )  # fmt: skip


def error(mode, y, **fields):
    return curve("mode-gradient-error", mode, y, target="n-step", **fields)


def study(**changed):
    """Curves of the modes in which float32 states lose a hundredth at 8 steps, and nothing else anything."""
    errors = {
        "floating": (1e-7, 1e-6, 1e-4, 1e-2, 1.0),
        "wide": (1e-7,) * 5,
        "bitwise": (1e-7,) * 5,
        "checkpointed": (1e-7,) * 5,
        "default": (1e-7,) * 5,
        "implicit": (1.0, 1e-1, 1e-2, 1e-3, 1e-4),
    } | changed
    curves = [error(mode, y, predicted=tuple(2 * value for value in y) if mode in EXACT else None)
              for mode, y in errors.items()]  # fmt: skip
    zero = (0.0,) * 5
    curves.append(curve("mode-reconstruction", "bitwise", zero))
    rebuilt = (1e-6, 1e-5, 1e-3, 1e-1, 1e3)
    curves.append(curve("mode-reconstruction", "floating", rebuilt, predicted=tuple(4 * value for value in rebuilt)))
    return curves


@pytest.fixture
def dossier_of(build_results):
    def build(*curves, **changes):
        return merge([build_results(curves=tuple(curves), **changes)])

    return build


def flat(blocks):
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from flat(block.blocks)


def grids(blocks):
    return [block for block in flat(blocks) if isinstance(block, Grid)]


def drawings(blocks):
    return [block for block in flat(blocks) if isinstance(block, Drawing)]


def words(blocks):
    return " ".join(block.text for block in flat(blocks) if isinstance(block, (Prose, Notice, Heading)))


def text_of(drawing):
    return re.sub("<[^>]+>", " ", drawing.svg)


def test_mode_figure_has_a_panel_for_each_dtype_and_beta_and_names_every_way(dossier_of):
    more = [replace(each, beta=0.5, dtype="bfloat16") for each in study()]
    blocks = mode_blocks(dossier_of(*study(), *more))
    for drawing in drawings(blocks):
        text = text_of(drawing)
        assert "float32 f, beta 0.8" in text
        assert "bfloat16 f, beta 0.5" in text
        assert "reversed, bitwise" in text
        assert "predicted by the model" in text
    assert "checkpointed" in text_of(drawings(blocks)[1])


def test_mode_captions_say_how_far_measurement_and_model_are_apart(dossier_of):
    rebuilt, gradients = drawings(mode_blocks(dossier_of(*study())))
    assert "0.25 to 0.25 times the prediction" in rebuilt.caption
    # One of the twenty is predicted to be beyond 1, where nothing is left.
    assert "Of 19 points where the model says that something is left, 19 lie on its safe side." in gradients.caption
    crossed = [replace(each, predicted=(*each.y[:2], each.y[2] / 5, *each.y[3:])) if each.adjoint == "wide" else each
               for each in study() if each.predicted]  # fmt: skip
    *_, gradients = drawings(mode_blocks(dossier_of(*crossed)))
    assert "5 times the predicted one (reversed, float64 states, float32 f, beta 0.8, N = 4)" in gradients.caption


def test_mode_table_has_the_first_step_count_that_is_too_wrong(dossier_of):
    (table, *_) = grids(mode_blocks(dossier_of(*study())))
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["reversed, states as narrow as f"] == "8"
    assert cells["reversed, bitwise"] == cells["checkpointed"] == "\u2013"
    spoiled = study(bitwise=(1e-7, math.nan, 1e-7, 1e-7, 1e-7))
    blocks = mode_blocks(dossier_of(*spoiled))
    assert {row[0]: row[1] for row in grids(blocks)[0].rows}["reversed, bitwise"] == "2"
    assert "NaN or infinite" in text_of(drawings(blocks)[1])


def test_mode_sentences_compare_with_stored_states_and_count_exact_returns(dossier_of):
    bitwise, default, _ = mode_sentences(dossier_of(*study(default=(1e-7, 1e-7, 3e-7, 1e-7, 1e-7))))
    assert "5 of 5 runs, up to N = 16" in bitwise
    assert "at most 3 times" in default
    assert "N = 4" in default
    worse = mode_sentences(dossier_of(*study(default=(1e-7, math.nan, 3e-7, 1e-7, 1e-7))))
    assert "at most NaN times" in worse[1]


def test_bits_are_those_of_the_worst_problem_with_what_was_promised(dossier_of):
    other = [replace(each, problem="kepler", y=(2.0**-10,) * 5) for each in study() if each.adjoint == "floating"]
    *_, table = bits_by_mode(dossier_of(*study(), *other), PAPER_SETTINGS)
    assert isinstance(table, Grid)
    rows = {row[0]: row for row in table.rows}
    floating = table.columns.index("reversed, states as narrow as f")
    assert rows["beta 0.8, 2 steps (single-scale vision)"][floating].startswith("10.0 (")
    assert rows["beta 0.8, 8 steps (vision, more steps)"][floating].startswith("6.6 (")
    broken = error("floating", (math.nan,) * 5)
    assert bits_cell([*study()[:1], broken], 2) == "NaN (18.9)"
    assert bits_cell([broken], 3) == "\u2013"


def envelope_study(measured=(10.0, 4.0), errors=(1e-4, 1e-4), steps=(8.0, 4.0, math.nan)):
    labels: dict[str, Any] = {"problem": "real k=0.9", "beta": None}
    return [
        curve("envelope-predicted", "reversible", steps, x=(0.5, 0.8, 1.5), **labels),
        curve("envelope-measured", "reversible", measured, x=(0.5, 0.8), predicted=steps[:2], **labels),
        curve("envelope-error", "reversible", errors, x=(0.5, 0.8), predicted=(5e-4,) * 2, band=(1e-3,) * 2, **labels),
    ]


def test_envelope_is_called_safe_only_where_every_measured_error_is_within_what_is_asked(dossier_of):
    ((safe, said),) = envelope_sentences(dossier_of(*envelope_study()))
    assert safe
    assert "safe in all 2 measured settings" in said
    assert "1.2 times at most (float32, real k=0.9, beta 0.5: 8 predicted, 10 found)" in said
    ((safe, said),) = envelope_sentences(dossier_of(*envelope_study(errors=(1e-4, 2e-3))))
    assert not safe
    assert "1 of 2 measured settings are more wrong than asked" in said
    assert "0.002 where 0.001 is asked (float32, real k=0.9, beta 0.8)" in said
    ((safe, said),) = envelope_sentences(dossier_of(*envelope_study(errors=(1e-4, math.nan))))
    assert not safe
    assert "NaN where 0.001 is asked" in said
    ((safe, _),) = envelope_sentences(dossier_of(envelope_study()[0]))
    assert not safe


def test_envelope_table_and_picture_show_divergence_the_cap_and_nan(dossier_of):
    blocks = envelope_blocks(dossier_of(*envelope_study((math.nan, 4.0), steps=(float(CAP), 4.0, math.nan))))
    (table,) = grids(blocks)
    assert table.rows == (("float32", "real", f"at least {CAP}", "4", "*"),)
    (picture,) = drawings(blocks)
    for part in ("float32: real", "the iteration diverges", "measured: NaN", "predicted, k = 0.9"):
        assert part in text_of(picture)


@pytest.mark.parametrize(
    ("exact", "implicit", "expected"),
    [
        (1e-3, 1e-1, 2.0),
        (1e-1, 1e-3, -2.0),
        (0.0, 0.0, 0.0),
        (0.0, 1e-9, math.inf),
        (1e-9, 0.0, -math.inf),
        (math.nan, 1.0, -math.inf),
        (1.0, math.nan, math.inf),
    ],
)
def test_gain_is_positive_where_the_exact_gradient_is_nearer(exact, implicit, expected):
    assert gain(exact, implicit) == pytest.approx(expected)
    assert math.isnan(gain(math.nan, math.nan))


def test_crossing_lies_where_the_lines_cross_and_draws_are_no_crossing():
    implicit = error("implicit", (1.0, 1e-1, 1e-2, 1e-3, 1e-4))
    # Both are a power of N between 4 and 8, and equal in the middle.
    assert crossing(error("floating", (1e-7, 1e-6, 1e-3, 1e-2, 1.0)), implicit) == pytest.approx(32**0.5)
    assert crossing(error("bitwise", (1e-7,) * 5), implicit) is None
    assert crossing(error("floating", (2.0,) * 5), implicit) == 1.0
    assert crossing(error("floating", (1e-7, 1e-7, 1e-7, 1e-3, math.nan)), implicit) == 16.0
    draw = error("bitwise", (1e-7, 1e-7, 1e-7, 1e-7, ALIKE * 0.9e-4))
    assert crossing(draw, implicit) is None


def test_bar_stands_where_another_gradient_is_nearer_and_not_at_a_draw():
    assert changes([3.0, 2.0, -1.0, -2.0]) == [1]
    assert changes([3.0, 0.1, -0.1, 2.0]) == []
    assert changes([3.0, None, math.nan, -2.0, math.inf]) == [2, 3]


def test_map_of_who_is_nearer_has_every_problem_and_counts_the_cells(dossier_of):
    curves = []
    for problem, errors in (("kepler", (1e-9, 1e-9, 1e-1)), ("riccati", (1e-9, 1e-2, math.nan))):
        for adjoint, y in (("reversible", errors), ("implicit", (1e-1, 1e-2, 1e-3))):
            curves.append(
                curve("error-vs-evaluations", adjoint, y, x=(2.0, 4.0, 8.0), problem=problem, target="n-step")
            )
    (drawing,) = drawings(winner_blocks(dossier_of(*curves), [0.8]))
    for part in ("kepler", "riccati", "float32, 0.8", "here the nearer one changes"):
        assert part in text_of(drawing)
    assert "float32, 0.8: 3 and 2 of 6" in drawing.caption
    assert "1000 times" in text_of(drawing)


def test_race_marks_and_lists_the_crossing(dossier_of):
    blocks = winner_blocks(dossier_of(*study()), [0.8])
    (drawing,) = drawings(blocks)
    assert "from here on the implicit one is nearer" in text_of(drawing)
    assert "Reversed, states as narrow as f is overtaken in 1 of 1 panels" in drawing.caption
    (table,) = grids(blocks)
    cells = {row[1]: row[2] for row in table.rows}
    assert 4 < float(cells["reversed, states as narrow as f"]) < 8
    assert cells["reversed, bitwise"] == "\u2013"


def test_extremes_of_the_ratio_are_named(build_results, synthetic_run):
    def spoil(row):
        if row.unit == "ratio R" and row.problem == "kepler" and row.leaf == "args.W" and row.num_steps == 8:
            return replace(row, measured=9.5 if row.dtype == "float32" else row.measured)
        return row

    dossier = merge([build_results(spoil, curves=())])
    (said,) = ratio_sentences(dossier)
    assert "the largest 9.5 (kepler args.W, " in said
    assert "float32, beta 0.8, N = 8)" in said
    assert "0 above the limit of 10" in said
    blocks = ratio_blocks(dossier)
    picture = drawings(blocks)[0]
    assert "limit, R = 10" in text_of(picture)
    assert "9.5: kepler args.W" in text_of(picture)
    assert grids(blocks)[0].rows[0][0] == "9.5"


def test_ratio_that_is_nan_comes_first_and_is_counted(build_results):
    spoiled = False

    def spoil(row):
        nonlocal spoiled
        if row.unit == "ratio R" and row.check == "gradient" and row.status == "measured" and not spoiled:
            spoiled = True
            return replace(row, measured=math.nan)
        return row

    dossier = merge([build_results(spoil, curves=())])
    assert "1 ratio of" in ratio_sentences(dossier)[0]
    table = grids(ratio_blocks(dossier))[0]
    assert table.rows[0][0] == "NaN"
    assert table.levels[0] == "bad"


def test_small_ratios_of_stored_states_are_no_extremes_of_a_reversal(build_results):
    def store(row):
        return replace(row, adjoint="default", measured=1e-9) if row.check == "gradient" else row

    dossier = merge([build_results(store, curves=())])
    blocks = ratio_blocks(dossier)
    assert "of the default adjoint lie below 0.001" in drawings(blocks)[0].caption
    assert all("default" not in row[2] for row in grids(blocks)[0].rows[-3:])


def census_study(bound=0.9, returned=1.0, forgotten=3.0):
    labels: dict[str, Any] = {"x": (0.5, 0.8), "problem": "f = 0.7", "dtype": "float16", "beta": None}
    return [
        curve("census-forgotten", "floating", (forgotten, 4.0), predicted=(2.5, 4.25), **labels),
        curve("census-lost", "floating", (2.0, 3.0), predicted=(4.0, 5.0), **labels),
        curve("census-bound", "floating", (0.5, bound), **labels),
        curve("census-returned", "floating", (0.5, 0.4), **labels),
        curve("census-returned", "bitwise", (1.0, returned), **labels),
    ]


def test_census_says_bound_prediction_and_returns(dossier_of):
    said = census_sentences(dossier_of(*census_study()))
    assert all(good for good, _ in said)
    assert "crossed in 0 of 2 settings" in said[0][1]
    assert "0.9 of it" in said[0][1]
    assert "within 0.5" in said[1][1]
    assert "every state comes back to the bit (2 settings)" in said[2][1]
    blocks = census_blocks(dossier_of(*census_study()))
    assert "float16: bits wrong after the inverse" in text_of(drawings(blocks)[0])
    (table,) = grids(blocks)
    assert ("float16", "floating", "0.8", "4", "4.25", "3", "5", "0.9", "0.4") in table.rows


@pytest.mark.parametrize("changed", [{"bound": 1.5}, {"bound": math.nan}, {"returned": 0.9}, {"forgotten": math.nan}])
def test_census_that_breaks_a_claim_is_marked(dossier_of, changed):
    dossier = dossier_of(*census_study(**changed))
    assert not all(good for good, _ in census_sentences(dossier))
    assert [block.level for block in flat(census_blocks(dossier)) if isinstance(block, Notice)] == ["bad"]


def test_cost_of_modes_counts_bits_per_component_and_half_step(dossier_of):
    per_step = 2 * SAMPLES * WIDTH / 8
    curves = [
        curve("mode-bytes", "bitwise", tuple(1000.0 + per_step * n for n in STEPS)),
        curve("mode-peak", "bitwise", (4096.0,) * 5),
        curve("mode-time", "bitwise", (2.0,) * 5),
    ]
    blocks = mode_cost_blocks(dossier_of(*curves))
    (table,) = grids(blocks)
    assert table.rows[0][1:] == ("reversed, bitwise", "8.977 KiB", "4 KiB", "1", "2")
    assert "kept between passes, bytes" in text_of(drawings(blocks)[0])
    curves[2] = replace(curves[2], y=(2.0, 2.0, 3.0, math.nan, math.nan))
    assert grids(mode_cost_blocks(dossier_of(*curves)))[0].rows[0][-1] == "NaN; 3 at N = 4"


def test_run_without_the_study_says_so_on_every_page(build_results, one_curve_of_each_kind):
    dossier = merge([build_results(curves=one_curve_of_each_kind)])
    page = to_html("t", "s", build_sections(dossier, [s for s in SECTIONS if s.identifier in ("trust", "roundoff")]))
    for said in (
        "No gradient was measured by mode",
        "No validity envelope was computed",
        "No error was measured by mode",
        "No bytes and no times were measured by mode",
        "No census of half steps was taken",
    ):
        assert said in page
    assert "No exact and implicit gradients were measured side by side" in words(winner_blocks(dossier, []))
    assert [title for title, _ in conclusions(dossier)] == ["Round-off"]


def test_curve_of_an_unknown_name_is_carried_along_and_not_drawn(build_results, one_curve_of_each_kind, tmp_path):
    strange = curve("of-a-later-version", "floating", (1.0,) * 5)
    write_results(build_results(curves=(*one_curve_of_each_kind, strange)), tmp_path / "results.json")
    dossier = merge([read_results(tmp_path / "results.json")])
    assert strange in dossier.curves
    assert "of-a-later-version" in set(curve_table(dossier).name)
    sections = build_sections(dossier, [s for s in SECTIONS if s.identifier in ("gradients", "roundoff")])
    assert "of-a-later-version" not in to_html("t", "s", sections)


def test_markdown_has_what_the_sections_conclude(dossier_of):
    dossier = dossier_of(*study(), *envelope_study(), *census_study())
    text = to_markdown(dossier, conclusions(dossier))
    for part in (
        "### What can be trusted",
        "- The envelope is safe in all 2 measured settings.",
        "| beta 0.8, 8 steps (vision, more steps) | float32 | 6.6 (5.6) |",
        "### Exact against implicit gradients",
        "is overtaken in 1 of 1 settings",
        "### Round-off",
        "- In integers every state comes back to the bit (2 settings).",
    ):
        assert part in text
    assert "### Round-off" not in to_markdown(dossier)


def test_bitwise_rows_are_a_precision_of_their_own(build_results):
    def integers(row):
        if row.check == "gradient" and row.dtype == "float32":
            return replace(row, solver="reversible-bitwise", measured=None if row.measured is None else 5.0)
        return row

    dossier = merge([build_results(integers, curves=())])
    assert "float32 f, bitwise state" in text_of(drawings(ratio_blocks(dossier))[0])
    assert "float32 f, bitwise state, beta" in ratio_sentences(dossier)[0]
