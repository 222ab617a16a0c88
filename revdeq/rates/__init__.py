"""Rates of convergence and of forgetting of the reversible iteration, and of the methods that it competes with."""

from revdeq.rates.majorant import (
    error_floor as error_floor,
    forward_majorant as forward_majorant,
    reverse_majorant as reverse_majorant,
    step_matrix as step_matrix,
)
from revdeq.rates.methods import (
    forward_backward_rate as forward_backward_rate,
    monotone_constants as monotone_constants,
    peaceman_rachford_rate as peaceman_rachford_rate,
    picard_rate as picard_rate,
    relaxed_rate as relaxed_rate,
)
from revdeq.rates.optimal import (
    SPECTRA as SPECTRA,
    AveragedOptimum as AveragedOptimum,
    Spectrum as Spectrum,
    averaged_eigenvalue as averaged_eigenvalue,
    averaging_limit as averaging_limit,
    balanced_beta as balanced_beta,
    minimising_beta as minimising_beta,
    optimal_averaging as optimal_averaging,
    optimal_beta as optimal_beta,
    optimal_rate as optimal_rate,
    semi_axes as semi_axes,
)
from revdeq.rates.reverse import (
    ErrorGrowth as ErrorGrowth,
    ellipse_points as ellipse_points,
    error_growth as error_growth,
    gradient_growth as gradient_growth,
    reverse_rate as reverse_rate,
)
from revdeq.rates.spectral import (
    ellipse_rate as ellipse_rate,
    in_convergence_region as in_convergence_region,
    paper_bound as paper_bound,
    region_semi_axes as region_semi_axes,
    spectral_rate as spectral_rate,
    step_eigenvalues as step_eigenvalues,
    worst_rate as worst_rate,
)


__all__ = [
    "SPECTRA",
    "AveragedOptimum",
    "ErrorGrowth",
    "Spectrum",
    "averaged_eigenvalue",
    "averaging_limit",
    "balanced_beta",
    "ellipse_points",
    "ellipse_rate",
    "error_floor",
    "error_growth",
    "forward_backward_rate",
    "forward_majorant",
    "gradient_growth",
    "in_convergence_region",
    "minimising_beta",
    "monotone_constants",
    "optimal_averaging",
    "optimal_beta",
    "optimal_rate",
    "paper_bound",
    "peaceman_rachford_rate",
    "picard_rate",
    "region_semi_axes",
    "relaxed_rate",
    "reverse_majorant",
    "reverse_rate",
    "semi_axes",
    "spectral_rate",
    "step_eigenvalues",
    "step_matrix",
    "worst_rate",
]
