"""The study of convergence as curves of a results file, so that the report draws nothing but what a run measured."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from revdeq import Reversible, UnrolledAdjoint, solve
from revdeq.rates import step_eigenvalues
from verify.regression import fit_rates
from verify.result import Curve
from verify.studies.rates.equilibria import TRAINED, Equilibrium, equilibria, jacobian, settled
from verify.studies.rates.race import steps_to_tolerance


Floats = npt.NDArray[np.float64]

TOLERANCES = (1e-9, 1e-6, 1e-3)
BETAS = (0.25, 0.3, 0.5, 0.75, 0.8, 0.95, 1.05, 1.2, 1.25, 1.5, 1.75, 1.9)
STEPS = 64
SHARP = 0.02
"""Largest uncertainty of ln(rate) at which a fitted rate is shown."""


def study_curves(problems: Sequence[str]) -> Iterator[Curve]:
    """Compare solvers on problems of the zoo and on trained cells.

    Args:
        problems: names of problems.

    Yields:
        "eigenvalues", imaginary against real parts; "rate-against-beta" of the trained cells;
        "evaluations-to-tolerance", "evaluations-of-estimate" and "bits-lost" against the tolerance, one curve for each
        equilibrium and solver, NaN where it did not get there.
    """
    of = equilibria([*problems, *TRAINED])
    yield from map(_eigenvalues, of)
    yield from (rate_against_beta_of(each) for each in of if each.name in TRAINED)
    table = steps_to_tolerance(of, TOLERANCES)
    for _, rows in table.groupby(["problem", "solver"], sort=False):
        yield from _of_solver(rows)


def _eigenvalues(of: Equilibrium) -> Curve:
    ordered = np.sort_complex(of.eigenvalues)
    return Curve(
        name="eigenvalues",
        problem=of.name,
        solver="",
        dtype="float64",
        state_dtype="float64",
        device="cpu",
        x_name="real part of the eigenvalues of df/dz at the fixed point",
        y_name="imaginary part",
        x=tuple(ordered.real.tolist()),
        y=tuple(ordered.imag.tolist()),
    )


def rate_against_beta_of(of: Equilibrium) -> Curve:
    """Fit the rate of the error's component along the slowest mode, near the fixed point, for several beta.

    NaN stands where the iteration diverges or the fit is not sharp.

    Args:
        of: an equilibrium small enough for its Jacobian.

    References:
        (T2).
    """
    z_star = settled(of.function, of.z0, of.args)
    kappas, left = torch.linalg.eig(jacobian(of.function, z_star, of.args).T)
    predicted, fitted, doubt = [], [], []
    for beta in BETAS:
        larger, _ = step_eigenvalues(kappas, beta)
        slowest = int(larger.abs().argmax())
        rate, kappa, row = larger[slowest], kappas[slowest], left[:, slowest]
        row = row * row[row.abs().argmax()].conj() / row.abs().max()
        predicted.append(float(rate.abs()))
        states = _states(of, z_star, row.real.view_as(z_star), beta)
        factor = (1 - beta) * beta * kappa / (rate - (1 - beta))
        component = torch.stack([factor * (row @ (y + 0j)) + row @ (z + 0j) for y, z in states]).abs()
        # What rounding leaves: 2^10 units roundoff of the state, seen through the same functional.
        floor = 2.0**-43 * float(z_star.norm() * torch.hypot((factor * row).norm(), row.norm()))
        fit = fit_rates(component.numpy()[None, :], np.array([floor]))
        sharp = predicted[-1] < 1 and fit.log_uncertainty[0] <= SHARP
        fitted.append(float(fit.rate[0]) if sharp else float("nan"))
        doubt.append(float(fit.rate[0] * fit.log_uncertainty[0]) if sharp else float("nan"))
    return Curve(
        name="rate-against-beta",
        problem=of.name,
        solver="reversible",
        dtype="float64",
        state_dtype="float64",
        device="cpu",
        x_name="relaxation parameter beta",
        y_name="rate per step",
        x=BETAS,
        y=tuple(fitted),
        predicted=tuple(predicted),
        band=tuple(doubt),
    )


def _states(
    of: Equilibrium, z_star: torch.Tensor, direction: torch.Tensor, beta: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return y_n - z* and z_n - z*, flattened, from a start so near that curvature stays below half of the digits."""
    seen: list[torch.Tensor] = []

    def watched(z: torch.Tensor, args: object) -> torch.Tensor:
        seen.append(z.detach())
        return of.function(z, args)

    start = z_star + 2.0**-14 * float(z_star.norm() / direction.norm()) * direction
    with torch.no_grad():
        solver, adjoint = Reversible(beta), UnrolledAdjoint()
        solve(watched, start, of.args, solver=solver, adjoint=adjoint, max_steps=STEPS, throw=False)
    ys, zs = [start, *seen[1::2]], seen[::2]
    return [((y - z_star).flatten(), (z - z_star).flatten()) for y, z in zip(ys, zs, strict=False)]


def _of_solver(rows: pd.DataFrame) -> Iterator[Curve]:
    rows = rows.sort_values("tolerance")
    first: dict[str, Any] = rows.iloc[0].to_dict()
    x = np.asarray(rows["tolerance"], dtype=np.float64)
    columns = {
        "evaluations-to-tolerance": ("evaluations", "evaluations of f (count)"),
        "bits-lost": ("bits_lost", "bits of the gradient that reversing these steps costs"),
    }
    for name, (column, y_name) in columns.items():
        values = np.asarray(rows[column], dtype=np.float64)
        if name == "bits-lost" and bool(np.isnan(values).all()):
            continue
        yield _race_curve(name, first, y_name, x, values)
    spent = float(first["estimate_evaluations"] + first["estimate_products"])
    if spent > 0:
        y_name = "evaluations of f and products with its Jacobian before the first step (count)"
        yield _race_curve("evaluations-of-estimate", first, y_name, x, np.full_like(x, spent))


def _race_curve(name: str, labels: dict[str, Any], y_name: str, x: Floats, y: Floats) -> Curve:
    return Curve(
        name=name,
        problem=str(labels["problem"]),
        solver=str(labels["solver"]),
        beta=None if np.isnan(labels["beta"]) else float(labels["beta"]),
        dtype="float64",
        state_dtype="float64",
        device="cpu",
        x_name="tolerance, residual relative to that at z0",
        y_name=y_name,
        x=tuple(x.tolist()),
        y=tuple(y.tolist()),
    )
