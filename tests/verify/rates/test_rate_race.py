"""The race of solvers to a tolerance, and the equilibria that it is run on."""

import numpy as np
import pytest

from verify.studies.rates import equilibria, equilibrium, steps_to_tolerance


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
