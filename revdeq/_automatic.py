"""The beta that "auto" takes: .8, unless a short trial of the iteration itself shows that another does better.

NOTE [What auto promises]
Of the betas in use, .8 is the fastest on nearly every map whose eigenvalues lie in the unit disc, also where df/dz is
far from normal and Ritz values say nothing. It loses in two cases, and only these are looked for:

    beta below .8    eigenvalues far out along the imaginary axis, beyond 1.1 i or so (T5)
    beta above 1     a nearly real spectrum, where Young's beta is many times faster (T4)

Four steps with beta .8, eight evaluations of f, give a `ReducedModel`, on which every beta is tried. The first case is
believed where the Ritz value that is worst for .8 is imaginary and resolved. The second is believed where the model,
with every Ritz value widened by its residual, promises half of the steps; then the beta is run from the same start,
and taken only if its residual falls as promised, within a budget that leaves the whole at most a fifth above .8.
All of it is estimated from one start; what the solve itself does is in its residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq._estimate import EstimateError, SpectrumEstimate
from revdeq._reduced import ReducedModel, steps_until
from revdeq._tree import Tree, flatten
from revdeq._trial import Run, on_vectors
from revdeq.rates import optimal_averaging, spectral_rate


USUAL, CAREFUL = 0.8, 0.5
TRIAL_STEPS = 4
"""Steps of the trial; fewer where the solve takes fewer than twenty, so that the trial is a fifth of them."""

_LOW = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
# At least .1 away from 1: nearer, a step keeps so little that reversing it is dear.
_HIGH = tuple(1.1 + 0.025 * i for i in range(33))
_BETAS = torch.tensor([*_LOW, USUAL, *_HIGH], dtype=torch.float64)
_AT_USUAL = len(_LOW)
# Residuals relative to the first: an early goal and the one by which betas are compared.
_EARLY, _GOAL = 1e-3, 1e-6
# Steps over which the model is run; curves go on as they end.
_HORIZON = 80
# Another beta must promise so many times fewer steps, below .8 and above 1.
_LOW_GAIN, _HIGH_GAIN = 1.2, 2.0
# An eigenvalue that is a reason to refuse, and a symmetry, are believed if they hold to ten bits.
_CERTAIN = 2.0**-10
# All own evaluations and the solve's together may be so many times those of beta .8, where these are more than _SHORT.
_DEARER, _SHORT = 1.2, 40
# Twice so far above its promise, and a beta is given up.
_OFF = 3.0
_PATIENCE = 12, 64
"""Least and most steps that beta .5 is given before auto refuses."""


@dataclass(frozen=True)
class AutomaticBeta:
    """The beta that a short trial asks for, and what it cost.

    Attributes:
        beta: relaxation parameter for `Reversible`.
        spectrum: Ritz values of the trial, estimates of the outer eigenvalues of df/dz.
        evaluations: evaluations of f spent.
        reason: in words, why this beta.
    """

    beta: float
    spectrum: SpectrumEstimate
    evaluations: int
    reason: str


def automatic_beta(
    function: Callable[[Tree, Tree], Tree], z0: Tree, args: Tree = (), *, num_steps: int, rtol: float = 0.25
) -> AutomaticBeta:
    """Choose a beta for `Reversible` by a short trial; see NOTE [What auto promises].

    Where .8 is as good as any the trial costs 8 evaluations of f, 2 to 6 where fewer than 20 steps are asked for; where
    another beta takes half of the steps or less, more, within a fifth of what .8 takes in all.

    Args:
        function: callable of (z, args) that returns the structure of z.
        z0: start state, a tensor or pytree of tensors.
        args: any pytree.
        num_steps: steps that the solve will take, or the greatest number of them.
        rtol: residual of a Ritz value, relative to it, up to which it is believed; .4 to .9 was measured where the map
            is far from normal and no eigenvalue is near, .05 to .2 at the ends of imaginary spectra.

    Raises:
        EstimateError: f(z0) is not finite; or an eigenvalue that the trial resolves lies where no beta converges, and
            the residual of beta .5 still grows after a dozen steps or more.
        ValueError: num_steps < 1, or rtol outside (0, 1).
    """
    if not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol!r}; it must be between 0 and 1")
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    roundoff = max(torch.finfo(leaf.dtype).eps / 2 for leaf in flatten(z0)[0])
    with on_vectors(function, z0, args) as (f, start):
        return _choose(f, start, num_steps, roundoff, rtol)


def _choose(f: Callable[[Tensor], Tensor], z0: Tensor, num_steps: int, roundoff: float, rtol: float) -> AutomaticBeta:
    trial = Run(f, z0, USUAL)
    for _ in range(min(TRIAL_STEPS, max(1, num_steps // 5))):
        trial.step()
    first, last = trial.residuals[0], trial.residuals[-1]
    if not math.isfinite(first):
        raise EstimateError("function(z, args) is not finite at z0: start at a state where it is")
    if len(trial.points) < 2 or first == 0:
        # What overflows with .8 may not with less; a start that is a fixed point shows nothing of f.
        beta = USUAL if first == 0 else CAREFUL
        return AutomaticBeta(beta, _spectrum(None), trial.evaluations, "the trial with beta 0.8 showed nothing")
    model = ReducedModel.of(trial.points, trial.values, roundoff)
    if not len(model.start):
        return AutomaticBeta(USUAL, _spectrum(None), trial.evaluations, "the first residual is lost in rounding")
    spectrum = _spectrum(model)

    def chosen(beta: float, reason: str, more: int = 0) -> AutomaticBeta:
        return AutomaticBeta(beta, spectrum, trial.evaluations + more, reason)

    if not math.isfinite(last):
        return chosen(CAREFUL, "beta 0.8 overflows")
    curves = model.residuals(_BETAS, _HORIZON)
    low = _below(model, curves, rtol)
    if low is not None:
        return chosen(low, "eigenvalues far out along the imaginary axis, estimated")
    if not bool((steps_until(curves, _GOAL) < torch.inf).any()):
        spent = _refuse(f, z0, num_steps, model, trial)
        return chosen(USUAL, "no beta is estimated to converge, and the residual is not refuted", spent)
    beta, more = _above(f, z0, model, curves, trial)
    if beta is None:
        return chosen(USUAL, "no other beta is estimated to take half of the steps", more)
    return chosen(beta, "a nearly real spectrum, estimated, and a trial that confirms it", more)


def _spectrum(model: ReducedModel | None) -> SpectrumEstimate:
    if model is None:
        return SpectrumEstimate(torch.zeros(1, dtype=torch.complex128), math.inf, 0)
    values, residuals = model.ritz()
    outer = {int(values.real.argmax()), int(values.real.argmin()), int(values.imag.argmax())}
    worst = max(float(residuals[i]) for i in outer | {int(values.abs().argmax())})
    radius = float(values.abs().max())
    return SpectrumEstimate(values, worst / radius if radius else 0.0, 0)


def _below(model: ReducedModel, curves: Tensor, rtol: float) -> float | None:
    """Return a beta below .8 where the Ritz value that is worst for .8 is imaginary and resolved."""
    values, residuals = model.ritz()
    worst = int(spectral_rate(values, USUAL).argmax())
    value, residual = values[worst], residuals[worst]
    if not (abs(value.imag) > abs(value.real) and residual <= rtol * value.abs()):
        return None
    # The spectrum may reach further out by the residual. A smaller beta converges wherever a greater one does.
    reach = torch.complex(value.real.abs(), value.imag.abs() + residual)
    steps = torch.maximum(steps_until(curves, _GOAL), _asymptotic_steps(spectral_rate(reach, _BETAS)))
    low = int(steps[:_AT_USUAL].argmin())
    if _LOW_GAIN * float(steps[low]) < float(steps_until(curves, _GOAL)[_AT_USUAL]):
        return _LOW[low]
    return None


def _above(
    f: Callable[[Tensor], Tensor], z0: Tensor, model: ReducedModel, curves: Tensor, trial: Run
) -> tuple[float | None, int]:
    """Return a beta above 1 that was tried and takes half of the steps or less, or None, and the evaluations spent."""
    early, goal = (float(steps_until(curves, tolerance)[_AT_USUAL]) for tolerance in (_EARLY, _GOAL))
    spent = trial.evaluations
    steps = torch.maximum(steps_until(curves, _GOAL), _asymptotic_steps(_widened_rates(model)))
    best = _AT_USUAL + 1 + int(steps[_AT_USUAL + 1 :].argmin())
    promised = float(steps[best])
    if not (_HIGH_GAIN * promised <= goal < math.inf and 2 * goal >= _SHORT):
        return None, 0
    budget = _DEARER * 2 * goal - 2 * promised - spent
    if 2 * early > _SHORT:
        # If the trial fails, .8 still has to take all of its own.
        lost = max(2.0 * TRIAL_STEPS, (_DEARER - 1) * 2 * _continued(trial.residuals, _EARLY, early) - spent)
        budget = min(budget, _DEARER * 2 * early - 2 * float(steps_until(curves, _EARLY)[best]) - spent, lost)
    run, off = Run(f, z0, float(_BETAS[best])), 0
    if budget < 2 * TRIAL_STEPS:
        return None, 0
    while run.evaluations + 2 <= budget:
        run.step(keep=False)
        n, residual = len(run.residuals) - 1, run.residuals[-1] / run.residuals[0]
        if residual <= _EARLY:
            return run.beta, run.evaluations
        if not residual <= _OFF * float(curves[min(n, _HORIZON), best]):
            off += 1
        if off == 2:
            return None, run.evaluations
    return (None if off else run.beta), run.evaluations


def _continued(residuals: list[float], tolerance: float, most: float) -> float:
    """Return the steps to a tolerance if the last ratio of residuals goes on, at most `most`."""
    if not (len(residuals) > 1 and 0 < residuals[-1] < residuals[-2]):
        return most
    left = math.log(tolerance * residuals[0] / residuals[-1]) / math.log(residuals[-1] / residuals[-2])
    return min(most, max(0.0, left) + len(residuals) - 1)


def _asymptotic_steps(rates: Tensor) -> Tensor:
    return torch.where(rates < 1, math.log(_GOAL) / rates.log(), torch.inf)


def _widened_rates(model: ReducedModel) -> Tensor:
    """Return the rate of each beta over the Ritz values and all that lies within their residuals along both axes.

    A symmetric df/dz makes a symmetric model, and has nothing off the real axis.
    """
    values, residuals = model.ritz()
    # A real part is widened by half of the way to the edge of the strip at most: beyond it nothing converges.
    outer = torch.maximum((values.real.abs() + 1) / 2, values.real.abs())
    real = torch.minimum(values.real.abs() + residuals, outer)
    symmetric = bool((model.matrix - model.matrix.mT).norm() <= _CERTAIN * model.matrix.norm())
    imaginary = values.imag.abs() + (0.0 if symmetric else 1.0) * residuals
    points = torch.cat([values, torch.complex(real, values.imag), torch.complex(values.real, imaginary)])
    return spectral_rate(points[:, None], _BETAS).amax(dim=0)


def _refuse(f: Callable[[Tensor], Tensor], z0: Tensor, num_steps: int, model: ReducedModel, trial: Run) -> int:
    """Raise if an eigenvalue outside the strip is certain and beta .5 shows it; else return the evaluations spent."""
    values, residuals = model.ritz()
    furthest = int(values.real.abs().argmax())
    real = float(values[furthest].real)
    if not (abs(real) >= 1 and float(residuals[furthest]) <= _CERTAIN * float(values[furthest].abs())):
        return 0
    if len(trial.residuals) > 1 and trial.residuals[-1] < trial.residuals[-2]:
        return 0
    run = Run(f, z0, CAREFUL)
    while len(run.residuals) <= max(_PATIENCE[0], min(num_steps, _PATIENCE[1])):
        run.step(keep=False)
        # A residual that falls refutes the estimate; components that converge may take some of it away at first.
        if run.residuals[-1] < max(run.residuals) / 2:
            return run.evaluations
    if run.residuals[-1] < run.residuals[-2]:
        return run.evaluations
    seen = f"with beta 0.5 the residual still grows after {len(run.residuals) - 1} steps"
    if real >= 1:
        raise EstimateError(
            f"df/dz has an eigenvalue with real part {real:.4g}, estimated, and {seen}: no fixed-point iteration "
            "converges from 1 on; reduce the gain of f"
        )
    greatest = float(values.real.max())
    averaged = optimal_averaging(real, min(greatest, 0.99), float(values.imag.abs().max()))
    raise EstimateError(
        f"df/dz has an eigenvalue with real part {real:.4g}, estimated, and {seen}: no beta converges from -1 "
        f"down; iterate the averaged map (1 - alpha) z + alpha f(z), alpha = {averaged.alpha:.2g} or a little less"
    )
