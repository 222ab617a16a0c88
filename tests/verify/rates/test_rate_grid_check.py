"""The checks over the grid of maps: the product and the control pass, wrong iterations do not, failures are rows."""

import numpy as np
import pytest
import torch

from revdeq.rates import spectral_rate
from verify.case import Case
from verify.checks import CRITERIA
from verify.gate import judge_row
from verify.planted.algebra import JacobiUpdate
from verify.planted.base import Honest
from verify.problems.families import FIXTURES
from verify.studies.rates import entrants, equilibrium
from verify.studies.rates.curves import SHARP, rate_against_beta_of
from verify.studies.rates.race import enclosing_ellipse, fastest_beta, steps_to_tolerance
from verify.subject import RevdeqSubject
from verify.sweep import run
from verify.tasks import GridTask, measure_case
from verify.trial.grid import CONSTANTS, GRID, STEPS, GridBench, grid_cases, sweep


CASE = Case(GRID, 0.8, 64)


def measured_by(subject, constants=CONSTANTS):
    return measure_case(GridBench(CASE, subject, constants))


@pytest.fixture(scope="module")
def measured():
    part = GridTask("cpu").measure("revdeq")
    return part.measurements, part.curves


def test_every_row_of_the_grid_passes_and_two_thirds_have_power(measured):
    rows, _ = measured
    verdicts = [judge_row(row, CRITERIA).passed for row in rows]
    assert False not in verdicts
    assert sum(v is True for v in verdicts) >= 2 * len(verdicts) / 3
    assert len({(row.check, row.case, row.leaf) for row in rows}) == len(rows)


def test_float64_rates_of_normal_linear_maps_are_within_two_percent_without_slack(measured):
    rows = [
        r
        for r in measured[0]
        if r.check == "rate-grid" and r.dtype == "float64" and r.leaf in ("real", "imaginary", "general")
    ]
    assert len(rows) == 36
    assert max(row.measured for row in rows) <= 0.02
    assert all(abs(np.log(row.got / row.expected)) == pytest.approx(row.measured, abs=1e-12) for row in rows)


def test_grid_has_at_least_two_thousand_cells(measured):
    _, curves = measured
    assert len(curves) == len(FIXTURES) * len(CONSTANTS) * 3
    assert sum(len(curve.x) for curve in curves) * len(STEPS) >= 2000
    fitted = [curve for curve in curves if curve.dtype == "float64"]
    assert np.mean([np.isfinite(curve.y).mean() for curve in fitted]) >= 0.9


def test_control_passes_the_grid_like_the_product():
    rows = measured_by(Honest())
    assert {judge_row(row, CRITERIA).passed for row in rows} == {True}


def test_jacobi_update_is_slower_than_the_rate_and_above_the_bound():
    rows = measured_by(JacobiUpdate(), (0.5, 0.9))
    failed = {row.check for row in rows if judge_row(row, CRITERIA).passed is False}
    assert failed == {"rate-grid", "rate-bound"}


def test_another_beta_than_asked_for_is_seen():
    class Damped(Honest):
        def half(self, state, value, beta):
            return super().half(state, value, 0.97 * beta)

    failed = {row.check for row in measured_by(Damped()) if judge_row(row, CRITERIA).passed is False}
    assert "rate-grid" in failed


def test_a_subject_that_raises_or_skips_evaluations_fails_every_row():
    class Raises(Honest):
        def half(self, state, value, beta):
            raise ArithmeticError("no half step today")

    class Idle(Honest):
        def num_steps(self, settings):
            return 1

    for subject, said in ((Raises(), "no half step today"), (Idle(), "64 steps evaluated f 2 times")):
        rows = measured_by(subject)
        assert {row.check for row in rows} == {"rate-grid", "rate-bound"}
        assert all(judge_row(row, CRITERIA).passed is False and said in row.reason for row in rows)


def test_maps_that_would_overflow_are_left_out_and_the_others_measured():
    found = sweep(RevdeqSubject(), Case(GRID, 1.9, 64, "float32", "float32"))
    left_out = np.isnan(found.errors[:, 0])
    assert 0 < left_out.sum() < len(left_out) / 4
    assert np.isnan(found.fit.rate[left_out]).all()
    assert np.isfinite(found.errors[~left_out]).all()


def test_a_case_of_the_grid_can_be_measured_again_from_its_id(tmp_path):
    case = grid_cases("cpu")[0]
    results = run(only=case.id, out=tmp_path)
    assert {row.check for row in results.measurements} == {"rate-grid", "rate-bound"}
    assert {row.case for row in results.measurements} == {case.id}


def test_a_trained_cell_converges_at_the_rate_of_its_own_jacobian():
    curve = rate_against_beta_of(equilibrium("trained-dense"))
    shown = np.isfinite(curve.y)
    assert shown.sum() >= 8
    assert (np.array(curve.predicted)[shown] < 1).all()
    assert np.abs(np.log(np.array(curve.y)[shown] / np.array(curve.predicted)[shown])).max() <= SHARP


def test_trained_cells_are_the_same_every_time():
    first = equilibrium("trained-dense")
    assert first is equilibrium("trained-dense")
    assert 0.3 < np.abs(first.eigenvalues).max() < 1


def test_the_fastest_beta_beats_its_neighbours_and_the_ellipse_holds_the_eigenvalues():
    kappa = torch.tensor(equilibrium("affine-general").eigenvalues)
    best = fastest_beta(kappa)
    rates = [float(spectral_rate(kappa, beta).max()) for beta in (best - 0.01, best, best + 0.01)]
    assert rates[1] == min(rates)
    real, imaginary = enclosing_ellipse(kappa)
    assert float(((kappa.real / real) ** 2 + (kappa.imag / imaginary) ** 2).max()) <= 1 + 1e-9


def test_splittings_enter_the_race_where_a_splitting_is_offered():
    of = equilibrium("trained-monotone")
    labels = {entrant.label for entrant in entrants(of, 100)}
    assert {"peaceman-rachford", "forward-backward", "reversible averaged"} <= labels
    assert not {"peaceman-rachford", "forward-backward"} & {e.label for e in entrants(equilibrium("kepler"), 100)}
    table = steps_to_tolerance([of], (1e-3,))
    assert table[table.solver == "peaceman-rachford"].evaluations.notna().all()
