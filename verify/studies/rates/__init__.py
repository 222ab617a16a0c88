"""Measurements of convergence over grids of (problem, beta, k, dtype, N), as tables for the report and the gate."""

from verify.problems.families import FIXTURES as FIXTURES, Batch as Batch, Fixture as Fixture, batch_of as batch_of
from verify.regression import RateFit as RateFit, fit_rates as fit_rates
from verify.studies.rates.curves import study_curves as study_curves
from verify.studies.rates.equilibria import (
    TRAINED as TRAINED,
    Equilibrium as Equilibrium,
    equilibria as equilibria,
    equilibrium as equilibrium,
)
from verify.studies.rates.figures import (
    convergence_regions as convergence_regions,
    heat_map as heat_map,
    rate_against_beta as rate_against_beta,
    schedule_gain as schedule_gain,
)
from verify.studies.rates.grid import Grid as Grid, measure_grid as measure_grid
from verify.studies.rates.race import entrants as entrants, steps_to_tolerance as steps_to_tolerance
