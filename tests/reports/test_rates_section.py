"""The part on rates: what it says comes from the curves of the run, and where nothing was measured it says so."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reports.content import Drawing, Fold, Grid, Notice, Prose
from reports.figures.rates_lines import constant_of
from reports.merge import merge
from reports.sections.rates import TOLERANCE, rate_blocks
from verify.result import Curve


BETAS = (0.5, 0.8, 1.25)
RACE = {
    "reversible .5": (100.0, 40.0),
    "reversible .8": (50.0, 60.0),
    "reversible auto": (10.0, 8.0),
    "anderson": (6.0, math.nan),
}


def curve(name: str, problem: str, x, y, **fields: Any) -> Curve:
    labels: dict[str, Any] = {
        "solver": "reversible",
        "dtype": "float64",
        "state_dtype": "float64",
        "device": "cpu",
        **fields,
    }
    return Curve(name=name, problem=problem, x_name="x", y_name="y", x=tuple(x), y=tuple(y), **labels)


@pytest.fixture(scope="module")
def curves() -> tuple[Curve, ...]:
    found = [
        curve("rate-against-beta", f"{family} k=0.9", BETAS, (0.93, 0.86, math.nan), predicted=(0.93, 0.85, 1.4))
        for family in ("witness", "quarter-turn")
    ]
    found.append(curve("rate-against-beta", "trained-dense", BETAS, (0.7, 0.5, 0.6), predicted=(0.7, 0.5, 0.6)))
    found.append(curve("eigenvalues", "kepler", (-0.5, 0.5), (0.1, -0.1), solver=""))
    for solver, (evaluations, bits) in RACE.items():
        beta = 1.3 if solver.endswith("auto") else None
        found.append(
            curve("evaluations-to-tolerance", "kepler", (TOLERANCE,), (evaluations,), solver=solver, beta=beta)
        )
        if math.isfinite(bits):
            found.append(curve("bits-lost", "kepler", (TOLERANCE,), (bits,), solver=solver))
    found.append(curve("evaluations-of-estimate", "kepler", (TOLERANCE,), (15.0,), solver="reversible auto"))
    found.append(curve("evaluations-to-tolerance", "slow", (TOLERANCE,), (math.nan,), solver="reversible auto"))
    return tuple(found)


@pytest.fixture(scope="module")
def blocks(build_results, curves):
    return rate_blocks(merge([build_results(curves=curves)]))


def test_every_figure_of_the_part_is_drawn(blocks):
    assert [block.name for block in blocks if isinstance(block, Drawing)] == [
        "rate-against-beta",
        "rate-heat",
        "rate-regions",
        "rate-race",
    ]


def test_fits_count_what_was_not_fitted_and_the_worst_ratio(blocks):
    fits = next(block for block in blocks if isinstance(block, Grid) and block.columns[0] == "dtype")
    grid, trained = fits.rows
    assert grid[:5] == ("float64", "the grid of maps", "6", "4", "2")
    assert float(grid[5]) == pytest.approx(math.log(0.86 / 0.85), rel=1e-2)
    assert trained[2:5] == ("3", "3", "0")


def test_race_shows_evaluations_bits_and_what_was_not_reached(blocks):
    table = next(block for block in blocks if isinstance(block, Grid) and ".5" in block.columns)
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "equilibrium": "kepler",
        ".5": "100 (40)",
        ".8": "50 (60)",
        "auto": "10 (8)",
    }
    assert table.rows[1][-1] == "not reached"


def test_gain_of_auto_is_the_ratio_of_evaluations_and_a_refusal_is_said(blocks):
    gains = next(block for block in blocks if isinstance(block, Grid) and "beta of auto" in block.columns)
    assert gains.rows[0] == ("kepler", "1.3", "10", "15", "10.00", "5.00")
    assert gains.rows[1][1].startswith("refused")


def test_what_does_not_help_is_named(blocks):
    said = [block.text for block in blocks if isinstance(block, Prose) and block.text.startswith("Against beta .8")]
    assert said == ["Against beta .8, auto takes fewer evaluations on 1 of 1, up to 5.0 times."]


def test_solvers_without_reversed_steps_stand_apart(blocks):
    (fold,) = [block for block in blocks if isinstance(block, Fold)]
    (table,) = fold.blocks
    assert isinstance(table, Grid)
    assert table.columns == ("equilibrium", "anderson")


def test_a_run_without_rates_says_so(build_results, one_curve_of_each_kind):
    (notice,) = rate_blocks(merge([build_results(curves=one_curve_of_each_kind)]))
    assert isinstance(notice, Notice)
    assert "No rate" in notice.text


@pytest.mark.parametrize(("problem", "constant"), [("witness k=0.9", 0.9), ("trained-dense", None)])
def test_constant_is_read_from_the_name_of_a_map(problem, constant):
    assert constant_of(problem) == constant
