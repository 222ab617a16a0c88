"""The study of convergence: solvers raced to tolerances on equilibria of the zoo and on trained cells."""

from verify.studies.rates.curves import study_curves as study_curves
from verify.studies.rates.equilibria import (
    TRAINED as TRAINED,
    Equilibrium as Equilibrium,
    equilibria as equilibria,
    equilibrium as equilibrium,
)
from verify.studies.rates.race import entrants as entrants, steps_to_tolerance as steps_to_tolerance
