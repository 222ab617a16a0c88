"""One solve of the subject for a whole batch of maps at once, one map a sample, and the rate of each.

The batch holds every family of `verify.problems.families` at every contraction constant. The subject's evaluations of f
show the states after each of its steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from revdeq.rates import forward_majorant
from verify.case import Case
from verify.claims import claims_of
from verify.plan import CurveKey, PlannedCurve
from verify.problems.families import FIXTURES, Batch, Fixture, batch_of
from verify.regression import RateFit, fit_rates
from verify.result import Curve
from verify.rounding.floor import forward_floor, local_error
from verify.subject import Settings, Subject
from verify.trial.bench import Bench
from verify.trial.observation import Calls, watched


Floats = npt.NDArray[np.float64]

GRID = "rate-grid"
"""Stands in the place of a problem's name in the cases of the grid."""

CONSTANTS = (0.1, 0.3, 0.5, 0.7, 0.9)
BETAS = (0.25, 0.3, 0.5, 0.75, 0.8, 0.95, 1.05, 1.2, 1.25, 1.5, 1.75, 1.9)
PRECISIONS = ("float64", "float32", "bfloat16")
"""Of f and of the states alike, so that the round-off floor is seen."""

STEPS = (1, 2, 4, 8, 16, 32, 64)
RATE_AXES = ("relaxation parameter beta", "rate per step")
LARGEST = 1e30
"""Growth from which on a diverging linear map is left out: float32 and bfloat16 end at 3e38."""

SHARP = 0.02
"""Largest uncertainty of ln(rate) at which a fitted rate says something (A7)."""


def grid_cases(device: str) -> tuple[Case, ...]:
    """One case for each beta and dtype; each holds every map, and every step count of `STEPS`."""
    return tuple(Case(GRID, beta, STEPS[-1], dtype, dtype, device) for beta in BETAS for dtype in PRECISIONS)


@dataclass(frozen=True)
class Sweep:
    """What one solve of the whole batch showed; arrays have one entry (or row) a map.

    Args:
        case: beta, steps, dtype and device.
        batch: the maps.
        errors: |z_n - z*| for n = 0, ..., N, shape (C, N + 1); NaN for maps that were left out.
        bound: what the majorant of the contraction constant and rounding allow of it, NaN where it does not converge.
        predicted: spectral rate of a step.
        growth: what the majorant grows by in a step, |1 - beta| + beta k; it bounds something below 1.
        fit: rates fitted to the component of the error along the slowest mode, above the round-off floor.
    """

    case: Case
    batch: Batch
    errors: Floats
    bound: Floats
    growth: Floats
    predicted: Floats
    fit: RateFit

    @property
    def apart(self) -> Floats:
        """|ln(fitted / predicted)|, NaN where there is no fit."""
        return np.abs(np.log(self.fit.rate / self.predicted))

    def sharp(self, fixture: Fixture) -> npt.NDArray[np.bool_]:
        """Which of the fixture's maps have a rate that can be compared.

        A tanh map whose fixed point repels saturates and stays bounded: there is no rate to compare.
        """
        of_fixture = np.array([name == fixture.name for name in self.batch.names])
        return of_fixture & (self.fit.log_uncertainty <= SHARP) & (fixture.linear | (self.predicted < 1))


@dataclass
class GridBench(Bench):
    """What a check of the grid is given.

    Args:
        case: as in `Bench`; so are subject and options.
        constants: contraction constants of the maps.
    """

    constants: tuple[float, ...] = CONSTANTS

    @cached_property
    def sweep(self) -> Sweep:
        """The solve of all maps, made once.

        Raises:
            Exception: whatever the subject raises.
        """
        return sweep(self.subject, self.case, self.constants)

    @property
    def made(self) -> Sweep | None:
        """The solve, None where none was asked for, or it raised."""
        return self.__dict__.get("sweep")


@cache
def families() -> Mapping[str, tuple[Fixture, ...]]:
    """The fixtures by spectrum, whether W is normal, and whether the map is linear."""
    found: dict[str, tuple[Fixture, ...]] = {}
    for fixture in FIXTURES:
        label = fixture.spectrum + ("" if fixture.normal else ", not normal") + ("" if fixture.linear else ", tanh")
        found[label] = (*found.get(label, ()), fixture)
    return MappingProxyType(found)


@cache
def _batch(constants: tuple[float, ...]) -> Batch:
    return batch_of(FIXTURES, constants)


def sweep(subject: Subject, case: Case, constants: tuple[float, ...] = CONSTANTS) -> Sweep:
    """Solve for all maps at once and fit a rate to each.

    The start y_0 = z_0 is z* plus a vector that has a component along the slowest mode. That component, which a left
    eigenvector of the step takes out of the error, falls by the rate at every step, without a transient. Maps that
    would leave the range of float32 are left out, since one of them would fail the solve of all.

    Args:
        subject: what is verified.
        case: beta, steps, dtype and device.
        constants: contraction constants of the maps.

    Raises:
        ValueError: the case has another number of steps than the last of `STEPS`, or the subject did not evaluate f
            twice a step.
    """
    if case.num_steps != STEPS[-1]:
        raise ValueError(f"num_steps is {case.num_steps}; a case of the grid has {STEPS[-1]}, which holds the others.")
    batch = _batch(constants)
    dtype = case.torch_state_dtype
    slowest, of_y, of_z = batch.slowest_component(case.beta)
    predicted = slowest.numpy()
    length = batch.displacement(dtype)
    held = ~batch.linear.numpy() | (case.num_steps * np.log(np.maximum(predicted, 1.0)) < np.log(LARGEST))
    start = batch.fixed_point + torch.where(torch.tensor(held), length, 0.0)[:, None] * of_z.real
    ys, zs = (states - batch.fixed_point for states in _iterates(subject, case, batch, start, held))
    component = torch.einsum("cd,ncd->cn", of_y, ys + 0j) + torch.einsum("cd,ncd->cn", of_z, zs + 0j)
    weight = torch.hypot(of_y.norm(dim=1), of_z.norm(dim=1)).numpy()
    errors = np.where(held[:, None], zs.norm(dim=2).numpy().T, np.nan)
    size = (batch.fixed_point.norm(dim=1) + length).numpy()
    typical, most = (local_error(batch, case.beta, dtype, size, typical=typical) for typical in (True, False))
    floor = weight * forward_floor(case.beta, batch.lipschitz, predicted, typical)
    fit = fit_rates(np.where(held[:, None], component.abs().numpy(), np.nan), floor)
    # The spectral norms that stand for k are themselves rounded.
    lipschitz = batch.lipschitz * (1 + 2.0**-40)
    growth = abs(1 - case.beta) + case.beta * lipschitz
    floor = forward_floor(case.beta, batch.lipschitz, predicted, most)
    bound = np.where(growth[:, None] < 1, _bound(case, lipschitz, errors[:, 0], floor), np.nan)
    return Sweep(case, batch, errors, bound, growth, predicted, fit)


def _iterates(
    subject: Subject, case: Case, batch: Batch, start: Tensor, held: npt.NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """y_n and z_n for n = 0, ..., N, each (N + 1, C, d) in float64 on the CPU; those not held stay at their start."""
    calls = Calls()
    function = batch.function(case.torch_dtype, case.device)
    moving = torch.tensor(held, device=case.device)[:, None]
    z0 = start.to(case.device, case.torch_dtype)
    settings = Settings(
        beta=case.beta,
        num_steps=case.num_steps,
        adjoint=claims_of(subject).stand_in("reversible"),
        state_dtype=case.torch_state_dtype,
    )

    def masked(z: Tensor, args: Any) -> Tensor:
        del args
        return torch.where(moving, function(z), z0)

    with torch.no_grad():
        solved = subject.solve(watched(masked, calls), z0, (), settings)
    if len(calls.states) != 2 * case.num_steps:
        raise ValueError(f"{case.num_steps} steps evaluated f {len(calls.states)} times, not {2 * case.num_steps}.")
    ys, zs = [z0, *calls.states[1::2]], [*calls.states[::2], solved.z1]
    first, second = (torch.stack([x.detach().to("cpu", torch.float64) for x in states]) for states in (ys, zs))
    return first, second


def _bound(case: Case, lipschitz: Floats, start: Floats, floor: Floats) -> Floats:
    majorant = forward_majorant(case.beta, torch.tensor(lipschitz)).numpy()
    pair = np.stack([start, start], axis=1)
    bounds = [start + floor]
    for _ in range(case.num_steps):
        pair = (majorant @ pair[:, :, None])[:, :, 0]
        bounds.append(pair[:, 1] + floor)
    return np.stack(bounds, axis=1)


def grid_curves(sweeps: Sequence[Sweep]) -> Iterator[Curve]:
    """For each map and dtype its fitted rate against beta; NaN where the fit is not sharp."""
    by_name = {fixture.name: fixture for fixture in FIXTURES}
    for dtype in PRECISIONS:
        own = [found for found in sweeps if found.case.dtype == dtype]
        for place, name in enumerate(own[0].batch.names if own else ()):
            sharp = [bool(found.sharp(by_name[name])[place]) for found in own]
            fits = [(float(f.fit.rate[place]), float(f.fit.log_uncertainty[place])) for f in own]
            yield Curve(
                name="rate-against-beta",
                problem=f"{name} k={own[0].batch.constants[place]:g}",
                solver="reversible",
                dtype=dtype,
                state_dtype=dtype,
                device=own[0].case.device,
                x_name=RATE_AXES[0],
                y_name=RATE_AXES[1],
                x=tuple(found.case.beta for found in own),
                y=tuple(rate if good else np.nan for (rate, _), good in zip(fits, sharp, strict=True)),
                predicted=tuple(float(found.predicted[place]) for found in own),
                band=tuple(r * u if good else np.nan for (r, u), good in zip(fits, sharp, strict=True)),
            )


def planned_grid_curves(device: str) -> Iterator[tuple[CurveKey, PlannedCurve]]:
    """The curves of the grid; see `grid_curves`."""
    batch = _batch(CONSTANTS)
    for dtype in PRECISIONS:
        for name, constant in zip(batch.names, batch.constants, strict=True):
            problem = f"{name} k={constant:g}"
            key = ("rate-against-beta", problem, "reversible", "", "", None, dtype, dtype, device)
            yield key, PlannedCurve(RATE_AXES, BETAS, True)
