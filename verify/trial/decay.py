"""How errors fall: the rate that theory predicts, the iterates of one solve, and fits to them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.reference import difference, jacobian
from verify.trial.observation import Calls, watched
from verify.trial.trial import Trial, to_numpy


FALLEN = (1e-4, 1e-11)
"""The window of relative errors in which a rate is fitted: past the start-up, above the round-off floor near 1e-15."""


LEAST_POINTS = 8


MOST_STEPS = 5_000


@dataclass(frozen=True)
class Decay:
    """Errors of the iterates of one run.

    Args:
        errors: ||z_n - z*|| for n = 0, ..., N - 1.
        scale: ||z*||.
        predicted: the spectral rate of one step.
    """

    errors: NDArray[np.float64]
    scale: float
    predicted: float

    def window(self) -> NDArray[np.intp]:
        """The steps n between the first error below the window's top and the first below its bottom."""
        first, last = (int(np.argmax(self.errors <= edge * self.scale)) for edge in FALLEN)
        return np.arange(first, last if last > first else first)


def step_rate(eigenvalues: NDArray[Any], beta: float) -> float:
    """Spectral radius of one reversible step, over the eigenvalues kappa of df/dz.

        [[a, beta kappa], [a beta kappa, a + beta^2 kappa^2]],      a = 1 - beta

    References:
        Young, Trans. AMS 76 (1954), DOI 10.1090/S0002-9947-1954-0059635-7; (T2).
    """
    a = 1.0 - beta
    steps = [
        np.array([[a, beta * kappa], [a * beta * kappa, a + (beta * kappa) ** 2]]) for kappa in np.unique(eigenvalues)
    ]
    return max(float(np.max(np.abs(np.linalg.eigvals(step)))) for step in steps)


def predicted_rate(trial: Trial) -> float:
    """Spectral rate of the case at its fixed point, from the known eigenvalues or from those of the Jacobian there."""
    eigenvalues = trial.problem.eigenvalues
    if eigenvalues is None:
        star = trial.references.fixed_point(trial.problem).z_star.astype(np.float64)
        eigenvalues = np.linalg.eigvals(jacobian(trial.problem, star, trial.problem.args))
    return step_rate(eigenvalues, trial.case.beta)


def steps_to_fall(rate: float, factor: float, otherwise: int) -> int:
    """Steps after which an error that falls by `rate` a step is `factor` of itself; `otherwise` if it never falls."""
    return math.ceil(math.log(factor) / math.log(rate)) if 0 < rate < 1 else otherwise


def decay(trial: Trial) -> Decay:
    """Iterate the subject as far as its errors fall, and measure them.

    Raises:
        ValueError: if the step does not contract, or needs too many steps to be seen.
    """
    problem = trial.problem
    predicted = predicted_rate(trial)
    needed = steps_to_fall(predicted, 1e-13, MOST_STEPS + 1) + LEAST_POINTS
    if needed > MOST_STEPS:
        raise ValueError(f"the predicted rate {predicted:.6g} of {problem.name} cannot be seen in {MOST_STEPS} steps.")
    star = trial.references.fixed_point(problem).z_star
    states = iterates(trial, needed)
    errors = np.array([np.linalg.norm(difference(to_numpy(state), star)) for state in states], dtype=np.float64)
    return Decay(errors, float(np.linalg.norm(star.astype(np.float64))), predicted)


def iterates(trial: Trial, num_steps: int, *, may_refuse: bool = False) -> list[Tensor]:
    """The states z_0, ..., z_{N-1} at which one solve of N steps evaluates f, without a backward pass.

    Args:
        trial: the case.
        num_steps: N.
        may_refuse: whether a subject that raises on the way (an iteration that diverges leaves the range of its
            dtype) ends the list at its last finite state.
    """
    case = trial.case
    calls = Calls()
    z0, args = trial.problem.inputs(case.torch_dtype, case.device)
    function = watched(trial.problem.function, calls)
    try:
        with torch.no_grad():
            trial.subject.solve(function, z0, args, trial.settings("reversible", num_steps))
    except (ArithmeticError, RuntimeError):
        if not may_refuse:
            raise
        return list(itertools.takewhile(lambda state: bool(torch.isfinite(state).all()), calls.states[::2]))
    return calls.states[::2]


def fit_rate_with_linear_factor(steps: NDArray[Any], values: NDArray[np.float64]) -> float:
    """ln(rho) of the least-squares fit of ln(value) = c + ln(1 + r n) + n ln(rho), r >= 0.

    Linear in c and ln(rho) for each r; r is scanned, from no factor at all to a purely linear one.
    """
    n = np.asarray(steps, dtype=np.float64)
    best, rate = math.inf, math.nan
    for ratio in (0.0, *np.logspace(-4, 4, 161)):
        target = np.log(values) - np.log1p(ratio * n)
        coefficients, residual, *_ = np.polyfit(n, target, 1, full=True)
        if residual.size and residual[0] < best:
            best, rate = float(residual[0]), float(coefficients[0])
    return rate
