"""The race to a tolerance: every solver on the same equilibria, in evaluations of f, with what reversal costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from revdeq import (
    Anderson,
    Averaged,
    Broyden,
    ForwardBackward,
    PeacemanRachford,
    Relaxed,
    Reversible,
    Solver,
    chebyshev_schedule,
)
from revdeq._estimate import EstimateError
from revdeq._schedule import Schedule, constant_schedule, schedule_errors
from revdeq.function import Function
from revdeq.nn import Monotone
from revdeq.rates import minimising_beta, monotone_constants, optimal_averaging, optimal_rate, spectral_rate
from revdeq.solver import Iteration
from revdeq.solver.reversible import ReversibleIteration
from verify.studies.rates.equilibria import Eigenvalues, Equilibrium


@dataclass(frozen=True)
class Entrant:
    """A solver in the race.

    Attributes:
        label: how the report names it.
        solver: the iteration.
        alpha: weight of the averaged map that it iterates; 1 for f itself.
    """

    label: str
    solver: Solver
    alpha: float = 1.0


def entrants(equilibrium: Equilibrium, max_steps: int) -> list[Entrant]:
    """Return the solvers that apply: those that need a spectrum in the strip or a splitting, where there is one.

    The optimal beta is the one of least rate for the eigenvalues themselves, the Chebyshev schedule that of the best
    ellipse round them; the averaged map has its spectrum centred on 0 and then its own optimal beta.

    Args:
        equilibrium: what is solved.
        max_steps: length of the schedule, and the number of steps that "auto" plans for.
    """
    kappa = torch.tensor(equilibrium.eigenvalues)
    lowest, highest = float(kappa.real.min()), float(kappa.real.max())
    found = [
        Entrant("reversible .5", Reversible(0.5)),
        Entrant("reversible .8", Reversible(0.8)),
        Entrant("reversible auto", Reversible("auto")),
        Entrant("reversible adaptive", Reversible("adaptive")),
        Entrant("relaxed .5", Relaxed(0.5)),
        Entrant("picard", Relaxed(1.0)),
        Entrant("anderson", Anderson()),
        Entrant("broyden", Broyden()),
    ]
    if lowest > -1 and highest < 1:
        found.append(Entrant("reversible optimal", Reversible(fastest_beta(kappa))))
        real, imaginary = enclosing_ellipse(kappa)
        if real != imaginary:
            found.append(Entrant("reversible chebyshev", Reversible(chebyshev_schedule(max_steps, real, imaginary))))
    if highest < 1:
        alpha = optimal_averaging(lowest, highest).alpha
        found.append(Entrant("reversible averaged", Reversible(fastest_beta(1 - alpha + alpha * kappa)), alpha))
    if isinstance(equilibrium.function, Monotone):
        m, bound = monotone_constants(_weight(equilibrium.function))
        found.append(Entrant("forward-backward", ForwardBackward(m / bound**2)))
        found.append(Entrant("peaceman-rachford", PeacemanRachford(1 / bound)))
    return found


def fastest_beta(kappa: torch.Tensor) -> float:
    """Return the beta whose step has the least spectral rate over these eigenvalues; never 1."""
    return minimising_beta(lambda betas: spectral_rate(kappa[:, None], betas).amax(dim=0))


def enclosing_ellipse(kappa: torch.Tensor) -> tuple[float, float]:
    """Return the semi-axes of the ellipse round 0 that holds the eigenvalues and has the least optimal rate.

    Args:
        kappa: complex128, real parts between -1 and 1.
    """
    largest = float(kappa.real.abs().max())
    # From the largest real part, where only real eigenvalues may lie on the rim, up to the edge of the strip.
    candidates = largest + (1 - largest) * torch.linspace(0, 1, 102, dtype=torch.float64)[:-1] ** 2
    best = (float("inf"), largest, largest)
    for p in candidates.tolist():
        width = (1 - (kappa.real / p if p else kappa.real) ** 2).clamp(min=0.0).sqrt()
        heights = torch.where(kappa.imag == 0, 0.0, kappa.imag.abs() / width)
        q = float(heights.max())
        if math.isfinite(q):
            best = min(best, (optimal_rate(spectrum="ellipse", real=p, imaginary=q), p, q))
    return best[1:]


def steps_to_tolerance(
    of: Sequence[Equilibrium],
    tolerances: Sequence[float] = (1e-3, 1e-6, 1e-9),
    *,
    max_evaluations: int = 400,
    num_steps: int = 16,
) -> pd.DataFrame:
    """Evaluations of f until ||f(z) - z|| <= tol ||f(z0) - z0||, in float64, and what reversing the run would cost.

    A step of `PeacemanRachford` solves a linear system besides its evaluation, which is not counted.

    Args:
        of: what is solved.
        tolerances: of the residual, relative to that at z0, over all samples together.
        max_evaluations: budget of a run.
        num_steps: steps for which "auto" balances speed against the bits that reversal costs.

    Returns:
        Rows with problem, solver, beta (the one used; NaN where it has none or several), alpha, tolerance, evaluations
        (NaN where the budget did not do), estimate_evaluations and estimate_products, what "auto" spent before it
        began, bits_lost, log2 of the relative error in units roundoff that reversing these steps gives the gradient
        where df/dz is normal (NaN where the solver is not reversible), and reason, why "auto" refused (else empty).
    """
    rows: list[dict[str, Any]] = []
    for equilibrium in of:
        for entrant in entrants(equilibrium, max_evaluations // 2):
            shared: dict[str, Any] = {"problem": equilibrium.name, "solver": entrant.label, "alpha": entrant.alpha}
            try:
                run = _run(equilibrium, entrant, tolerances, max_evaluations, num_steps)
            except EstimateError as refusal:
                nothing = dict.fromkeys(("beta", "evaluations", "bits_lost"), np.nan)
                spent = {"estimate_evaluations": 0, "estimate_products": 0, "reason": str(refusal)}
                rows += [{**shared, "tolerance": tolerance, **nothing, **spent} for tolerance in tolerances]
                continue
            rows += [{**shared, "tolerance": tolerance, **run.at(tolerance), "reason": ""} for tolerance in tolerances]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Run:
    """One run of one solver: steps to each tolerance (None beyond the budget), the betas taken, and the spectrum."""

    iteration: Iteration
    steps: Mapping[float, int | None]
    schedule: Schedule | None
    kappa: Eigenvalues

    def at(self, tolerance: float) -> dict[str, Any]:
        steps, estimated = self.steps[tolerance], self.iteration.estimated
        beta = getattr(getattr(self.iteration, "betas", self.iteration), "beta", None)
        return {
            "beta": beta if isinstance(beta, float) else np.nan,
            "evaluations": np.nan if steps is None else float(steps * self.iteration.evaluations_per_step),
            "estimate_evaluations": 0 if estimated is None else estimated.evaluations,
            "estimate_products": 0 if estimated is None else estimated.spectrum.products,
            "bits_lost": np.nan if steps is None or self.schedule is None else self._bits(self.schedule[:steps]),
        }

    def _bits(self, schedule: Schedule) -> float:
        rounding = schedule_errors(schedule, torch.tensor(self.kappa)).rounding
        return float(np.log2(max(rounding, 1.0)))


def _run(
    equilibrium: Equilibrium, entrant: Entrant, tolerances: Sequence[float], max_evaluations: int, num_steps: int
) -> _Run:
    averaged = entrant.alpha != 1
    function = Averaged(equilibrium.function, entrant.alpha) if averaged else equilibrium.function
    bound = Function(function, equilibrium.z0, equilibrium.args)
    max_steps = max_evaluations // entrant.solver.evaluations_per_step
    # "auto" plans for the steps of a training run; an adaptive run records as many as it may take.
    auto = isinstance(entrant.solver, Reversible) and entrant.solver.beta == "auto"
    solver = entrant.solver.bound_to(bound, num_steps if auto else max_steps)
    reached: dict[float, int | None] = dict.fromkeys(tolerances)
    with torch.no_grad():
        state = solver.init(bound.z0)
        initial = float("nan")
        for n in range(max_steps + 1):
            (z,) = solver.estimate(state)
            value = bound((z,))
            residual = float((value[0] - z).norm())
            initial = residual if n == 0 else initial
            for tolerance in tolerances:
                if reached[tolerance] is None and residual <= tolerance * initial:
                    reached[tolerance] = n
            if not np.isfinite(residual) or None not in reached.values() or n == max_steps:
                break
            state = solver.step(bound, state, value, n)
    taken = max((n for n in reached.values() if n is not None), default=0)
    kappa = 1 - entrant.alpha + entrant.alpha * equilibrium.eigenvalues
    return _Run(solver, reached, _schedule(solver, state, taken), kappa)


def _schedule(solver: Iteration, state: Any, steps: int) -> Schedule | None:
    """The betas of the steps taken, None for a solver that is not reversible; of samples that differ, the last's."""
    if not isinstance(solver, ReversibleIteration):
        return None
    betas = solver.relaxation(state)
    if isinstance(betas, torch.Tensor):
        last = betas.reshape(-1, betas.shape[-1])[-1, :steps].tolist()
        return tuple((beta, beta) for beta in last)
    return betas if isinstance(betas, tuple) else constant_schedule(float(betas or 0.0), steps)


def _weight(cell: Monotone) -> torch.Tensor:
    """W of a monotone cell: what it does to the unit vectors before its ReLU, less what it does to 0."""
    a, b = cell.A.detach(), cell.B.detach()
    return (1 - cell.margin) * torch.eye(cell.width, dtype=a.dtype) - a.mT @ a + b - b.mT
