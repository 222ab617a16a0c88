"""Tables behind the report's figures of convergence: curves, heat map, regions and schedules, each one row a point."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from revdeq.rates import (
    ellipse_points,
    gradient_growth,
    optimal_beta,
    optimal_rate,
    paper_bound,
    region_semi_axes,
    reverse_rate,
    worst_rate,
)
from revdeq.schedule import chebyshev_schedule, constant_schedule, schedule_errors
from verify.problems.families import FIXTURES
from verify.studies.rates.equilibria import Equilibrium
from verify.studies.rates.grid import Grid, measure_grid


def rate_against_beta(constants: Sequence[float] = (0.3, 0.6, 0.9), points: int = 40) -> pd.DataFrame:
    """Rate per step against beta for several k: theory as lines, measurement as points.

    Returns:
        The columns of `measure_grid` that belong to a rate, for float64 states, with rate_paper, reverse_rate and
        gradient_growth; rate_measured is NaN where it could not be fitted.
    """
    # Midpoints of equal cells of (0, 2): beta = 1 lies on an edge.
    even = 2 * (points // 2)
    betas = [2 * (i + 0.5) / even for i in range(even)]
    chosen = [fixture for fixture in FIXTURES if fixture.normal and fixture.linear]
    measured = measure_grid(Grid(chosen, tuple(constants), betas, (torch.float64,), (64,)))
    beta, rate = torch.tensor(measured.beta.to_numpy()), torch.tensor(measured.rate_predicted.to_numpy())
    k = torch.tensor(measured.k.to_numpy())
    return measured.drop(columns=["N", "error", "reconstruction", "reconstruction_estimate"]).assign(
        rate_paper=paper_bound(beta, k).numpy(),
        reverse_rate=reverse_rate(rate, beta).numpy(),
        gradient_growth=gradient_growth(rate, beta).numpy(),
    )


def heat_map(points: int = 80, largest_constant: float = 1.2) -> pd.DataFrame:
    """Worst rate over (beta, k), with the bits that a step's reversal costs; the boundary is rate 1, beta = 2/(1+k).

    Returns:
        Rows with beta, k, rate_worst, converges, boundary_beta (2/(1+k) for k < 1, else NaN) and bits_per_step, the
        log2 of the gradient's growth.
    """
    betas = torch.linspace(0, 2, 2 * (points // 2) + 1, dtype=torch.float64)
    betas = (betas[1:] + betas[:-1]) / 2
    beta, k = torch.meshgrid(betas, torch.linspace(0, largest_constant, points, dtype=torch.float64), indexing="ij")
    rate = worst_rate(beta, k)
    return pd.DataFrame(
        {
            "beta": beta.flatten().numpy(),
            "k": k.flatten().numpy(),
            "rate_worst": rate.flatten().numpy(),
            "converges": (rate < 1).flatten().numpy(),
            "boundary_beta": torch.where(k < 1, 2 / (1 + k), torch.nan).flatten().numpy(),
            "bits_per_step": torch.log2(gradient_growth(rate, beta)).flatten().numpy(),
        }
    )


def convergence_regions(
    of: Sequence[Equilibrium], betas: Sequence[float] = (0.25, 0.5, 0.8, 1.25, 1.6), points: int = 181
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Boundaries of the convergence regions in the plane of eigenvalues, and the eigenvalues of equilibria on them.

    Returns:
        Boundaries (beta, real, imaginary) and eigenvalues (problem, real, imaginary), those of df/dz near the fixed
        point.
    """
    angles = np.linspace(0, 2 * np.pi, points)
    boundaries = pd.concat(
        [
            pd.DataFrame({"beta": beta, "real": axes[0] * np.cos(angles), "imaginary": axes[1] * np.sin(angles)})
            for beta, axes in ((beta, region_semi_axes(beta)) for beta in betas)
        ],
        ignore_index=True,
    )
    rows = [pd.DataFrame({"problem": e.name, "real": e.eigenvalues.real, "imaginary": e.eigenvalues.imag}) for e in of]
    return boundaries, pd.concat(rows, ignore_index=True)


def schedule_gain(
    axes: Sequence[tuple[float, float]] = (
        (0.5, 0.0),
        (0.9, 0.0),
        (0.99, 0.0),
        (0.0, 0.9),
        (0.0, 2.0),
        (0.9, 0.3),
        (0.9, 0.8),
    ),
    steps: Sequence[int] = (2, 4, 6, 8, 12, 16, 24, 32),
) -> pd.DataFrame:
    """Error after N steps of the Chebyshev schedule against the optimal constant beta and against .5 and .8.

    Returns:
        Rows with real, imaginary (semi-axes), N, and for `chebyshev`, `constant`, `half` (.5) and `eight` (.8) the
        predicted error and, with the suffix `_rounding`, what its reversal costs in units roundoff.
    """
    rows: list[dict[str, float]] = []
    for p, q in axes:
        kappa = ellipse_points(p, q, 129)
        best = optimal_beta(spectrum="ellipse", real=p, imaginary=q)
        for n in steps:
            row: dict[str, float] = {
                "real": p,
                "imaginary": q,
                "N": n,
                "rate": optimal_rate(spectrum="ellipse", real=p, imaginary=q),
            }
            for label, schedule in (
                ("chebyshev", chebyshev_schedule(n, p, q)),
                ("constant", constant_schedule(best, n)),
                ("half", constant_schedule(0.5, n)),
                ("eight", constant_schedule(0.8, n)),
            ):
                errors = schedule_errors(schedule, kappa)
                row[label], row[f"{label}_rounding"] = errors.solution, errors.rounding
            rows.append(row)
    return pd.DataFrame(rows)
