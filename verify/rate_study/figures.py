"""Tables behind the report's figures of convergence: curves, heat map, regions and steps, each one row a point."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from revdeq import Anderson, Broyden, Relaxed, Reversible, Solver, UnrolledAdjoint, solve
from revdeq.estimate import EstimateError, automatic_beta
from revdeq.rates import (
    ellipse_points,
    gradient_growth,
    optimal_beta,
    optimal_rate,
    paper_bound,
    region_semi_axes,
    reverse_rate,
    spectral_rate,
    worst_rate,
)
from revdeq.schedule import chebyshev_schedule, constant_schedule, schedule_errors
from verify.problems import get_problem
from verify.rate_study.fixtures import FIXTURES
from verify.rate_study.grid import Grid, measure_grid
from verify.spectrum import spectrum_of


Eigenvalues = npt.NDArray[np.complex128]


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
    problems: Sequence[str], betas: Sequence[float] = (0.25, 0.5, 0.8, 1.25, 1.6), points: int = 181
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Boundaries of the convergence regions in the plane of eigenvalues, and the eigenvalues of problems on them.

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
    eigenvalues = [(name, problem_eigenvalues(name)) for name in problems]
    rows = [pd.DataFrame({"problem": name, "real": e.real, "imaginary": e.imag}) for name, e in eigenvalues]
    return boundaries, pd.concat(rows, ignore_index=True)


def problem_eigenvalues(name: str) -> Eigenvalues:
    """Return the eigenvalues of df/dz of a problem of the zoo: exact where stated, else at a state near z*."""
    problem = get_problem(name)
    if problem.eigenvalues is not None:
        return problem.eigenvalues.astype(np.complex128)
    z0, args = problem.inputs(torch.float64)
    # A hundred damped steps bring every problem that converges at all to where its Jacobian no longer changes.
    solution = solve(
        problem.function, z0, args, solver=Relaxed(0.5), adjoint=UnrolledAdjoint(), max_steps=100, throw=False
    )
    return spectrum_of(problem.function, solution.z1, args).eigenvalues


def customary_solvers(eigenvalues: Eigenvalues) -> dict[str, Solver]:
    """Return the solvers of the comparison; the optimal beta is that of the ellipse round the eigenvalues, if any.

    The ellipse has the largest real and imaginary parts as semi-axes; where it is a disc, or its real semi-axis is not
    below 1, no optimal reversible beta exists and none is listed.
    """
    solvers: dict[str, Solver] = {
        "reversible .5": Reversible(0.5),
        "reversible .8": Reversible(0.8),
        "relaxed .5": Relaxed(0.5),
        "picard": Relaxed(1.0),
        "anderson": Anderson(),
        "broyden": Broyden(),
    }
    real, imaginary = float(np.abs(eigenvalues.real).max()), float(np.abs(eigenvalues.imag).max())
    if real < 1 and real != imaginary:
        solvers["reversible optimal"] = Reversible(optimal_beta(spectrum="ellipse", real=real, imaginary=imaginary))
    return solvers


def steps_to_tolerance(
    problems: Sequence[str],
    tolerances: Sequence[float] = (1e-3, 1e-6, 1e-9),
    *,
    max_evaluations: int = 400,
    num_steps: int = 8,
    solvers: Callable[[Eigenvalues], Mapping[str, Solver]] = customary_solvers,
) -> pd.DataFrame:
    """Evaluations of f until ||f(z) - z|| <= tol ||f(z0) - z0|| on problems of the zoo, for each solver, in float64.

    Beside the solvers named, `reversible auto` takes its beta from `automatic_beta` for num_steps steps; what the
    estimate costs is a column of its own.

    Returns:
        Rows with problem, solver, beta (NaN where it has none), tolerance, evaluations (NaN where the budget did not
        do), estimate_evaluations, bits_per_step, the log2 of the reversed gradient's growth (NaN where the solver is
        not reversible), and reason, why there is no beta (else empty).
    """
    rows: list[dict[str, Any]] = []
    for name in problems:
        problem = get_problem(name)
        z0, args = problem.inputs(torch.float64)
        eigenvalues = problem_eigenvalues(name)
        chosen: dict[str, Solver | None] = dict(solvers(eigenvalues))
        spent, reason = 0, ""
        try:
            automatic = automatic_beta(problem.function, z0, args, num_steps=num_steps, max_products=200)
            chosen["reversible auto"], spent = Reversible(automatic.beta), automatic.evaluations
        except EstimateError as refusal:
            chosen["reversible auto"], reason = None, str(refusal)
        for label, solver in chosen.items():
            beta, bits = float(getattr(solver, "beta", np.nan)), np.nan
            if isinstance(solver, Reversible):
                rate = float(spectral_rate(torch.tensor(eigenvalues), beta).max())
                bits = float(np.log2(gradient_growth(rate, beta)))
            if solver is None:
                reached = dict.fromkeys(tolerances, float("nan"))
            else:
                reached = _evaluations(problem.function, z0, args, solver, tolerances, max_evaluations)
            rows += [
                {
                    "problem": name,
                    "solver": label,
                    "beta": beta,
                    "tolerance": tolerance,
                    "evaluations": evaluations,
                    "estimate_evaluations": spent if label == "reversible auto" else 0,
                    "bits_per_step": bits,
                    "reason": reason if label == "reversible auto" else "",
                }
                for tolerance, evaluations in reached.items()
            ]
    return pd.DataFrame(rows)


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


def _evaluations(
    function: Callable[..., torch.Tensor],
    z0: torch.Tensor,
    args: Any,
    solver: Solver,
    tolerances: Sequence[float],
    max_evaluations: int,
) -> dict[float, float]:
    """Run once and return, for each tolerance, the evaluations after which the residual first met it, else NaN."""

    def f(leaves: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (function(leaves[0], args),)

    reached = dict.fromkeys(tolerances, float("nan"))
    with torch.no_grad():
        state = solver.init((z0,))
        initial = float("nan")
        for n in range(max_evaluations // solver.evaluations_per_step + 1):
            z = solver.estimate(state)
            value = f(z)
            residual = float((value[0] - z[0]).norm())
            initial = residual if n == 0 else initial
            for tolerance in tolerances:
                if np.isnan(reached[tolerance]) and residual <= tolerance * initial:
                    reached[tolerance] = float(n * solver.evaluations_per_step)
            if not np.isfinite(residual) or not any(np.isnan(value) for value in reached.values()):
                break
            state = solver.step(f, state, value, n)
    return reached
