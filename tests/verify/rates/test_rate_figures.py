"""The tables behind the report's figures of convergence."""

import numpy as np
import pytest
import torch

from revdeq.rates import in_convergence_region, worst_rate
from verify.studies.rates import (
    convergence_regions,
    equilibria,
    equilibrium,
    heat_map,
    rate_against_beta,
    schedule_gain,
    steps_to_tolerance,
)


def test_rate_against_beta_has_theory_and_measurement_side_by_side():
    table = rate_against_beta((0.5, 0.9), points=12)
    assert set(table.k) == {0.5, 0.9}
    assert table.beta.nunique() == 12
    assert not (table.beta == 1).any()
    sure = table[table.log_uncertainty <= 0.02]
    assert len(sure) >= len(table) // 2
    assert (np.abs(np.log(sure.rate_measured / sure.rate_predicted)) <= 0.02 + sure.log_uncertainty).all()
    assert (table.rate_predicted <= table.rate_worst * (1 + 1e-9)).all()
    assert (table.gradient_growth >= 1 - 1e-9).all()


def test_heat_map_is_divided_by_its_boundary():
    table = heat_map(points=30)
    assert (table.converges == (table.rate_worst < 1)).all()
    contraction = table[table.k < 1]
    assert (contraction.converges == (contraction.beta < contraction.boundary_beta)).all()
    assert not table[table.k >= 1].converges.any()
    assert table.bits_per_step.notna().all()


def test_regions_hold_the_eigenvalues_that_converge():
    boundaries, eigenvalues = convergence_regions(equilibria(["affine-rotation", "riccati"]), betas=(0.5, 1.25))
    inner = torch.complex(torch.tensor(boundaries.real.to_numpy()), torch.tensor(boundaries.imaginary.to_numpy()))
    beta = torch.tensor(boundaries.beta.to_numpy())
    assert bool(in_convergence_region(0.999 * inner, beta).all())
    assert not bool(in_convergence_region(1.001 * inner, beta).any())
    assert set(eigenvalues.problem) == {"affine-rotation", "riccati"}
    rotation = 1.25
    assert bool(in_convergence_region(torch.tensor(1j * rotation), 0.5))
    assert not bool(in_convergence_region(torch.tensor(1j * rotation), 1.25))


def test_stated_eigenvalues_are_those_of_the_jacobian():
    assert np.abs(equilibrium("affine-rotation").eigenvalues).max() == pytest.approx(1.25)


def test_optimal_and_automatic_beta_need_fewer_evaluations_than_the_customary_ones():
    table = steps_to_tolerance(equilibria(["affine-real", "bellman", "kepler"]), (1e-6,))
    evaluations = table.pivot(index="problem", columns="solver", values="evaluations")
    half, eight = (evaluations[label].to_numpy() for label in ("reversible .5", "reversible .8"))
    assert (eight <= half).all()
    for label in ("reversible optimal", "reversible auto"):
        assert (2 * evaluations[label].to_numpy() <= eight).all()
    assert (table[table.solver == "reversible auto"].estimate_evaluations > 0).all()
    assert table[table.solver == "anderson"].bits_lost.isna().all()


def test_problem_without_any_beta_says_why():
    table = steps_to_tolerance(equilibria(["affine-expanding"]), (1e-3,))
    automatic = table[table.solver == "reversible auto"]
    assert automatic.evaluations.isna().all()
    assert automatic.reason.str.contains("averaged map").all()
    assert "reversible optimal" not in set(table.solver)
    # What f itself does at no beta, its averaged map does.
    assert table[table.solver == "reversible averaged"].evaluations.notna().all()


def test_schedule_gain_shrinks_to_nothing_for_a_disc_and_never_turns_into_a_loss_when_steps_are_few():
    table = schedule_gain(((0.9, 0.0), (0.9, 0.89)), (4, 8))
    gain = table.constant / table.chebyshev
    assert (gain[table.imaginary == 0] > 5).all()
    assert ((gain[table.imaginary > 0] > 0.95) & (gain[table.imaginary > 0] < 1.1)).all()


def test_worst_rate_of_the_heat_map_is_the_theorem():
    row = heat_map(points=10).iloc[37]
    assert row.rate_worst == worst_rate(float(row.beta), float(row.k))
