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
    assert (2 * evaluations["reversible optimal"].to_numpy() <= eight).all()
    automatic = table[table.solver == "reversible auto"].set_index("problem").loc[evaluations.index]
    assert (automatic.estimate_evaluations > 0).all()
    # Its own evaluations included, it is nowhere more than a fifth slower, and far faster where that can be seen.
    own = automatic.estimate_evaluations.to_numpy() + evaluations["reversible auto"].to_numpy()
    assert (own <= 1.2 * eight).all()
    assert (3 * own <= eight).any()
    assert table[table.solver == "anderson"].bits_lost.isna().all()


def test_problem_without_any_beta_has_an_averaged_map_that_converges():
    table = steps_to_tolerance(equilibria(["affine-expanding"]), (1e-3,))
    automatic = table[table.solver == "reversible auto"]
    assert automatic.evaluations.isna().all()
    assert "reversible optimal" not in set(table.solver)
    # What f itself does at no beta, its averaged map does.
    assert table[table.solver == "reversible averaged"].evaluations.notna().all()
