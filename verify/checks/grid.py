"""Claims about rates over a whole grid of maps, betas, contraction constants, dtypes and step counts.

One solve of the subject takes a batch of maps at once, one map a sample: every family of `verify.rate_study.FIXTURES`
at every contraction constant. Its evaluations of f show the states after each of its steps.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from revdeq.rates import forward_majorant
from verify.case import Case
from verify.checks.observation import Calls, watched
from verify.rate_study.fixtures import FIXTURES, Batch, Fixture, batch_of
from verify.rate_study.regression import MINIMUM_POINTS, RateFit, fit_rates
from verify.rate_study.rounding import forward_floor, local_error
from verify.result import Curve, Measurement
from verify.subject import Settings, Subject


Floats = npt.NDArray[np.float64]

GRID = "rate-grid"
"""Stands in the place of a problem's name in the cases of the grid."""

CONSTANTS = (0.1, 0.3, 0.5, 0.7, 0.9)
BETAS = (0.25, 0.3, 0.5, 0.75, 0.8, 0.95, 1.05, 1.2, 1.25, 1.5, 1.75, 1.9)
PRECISIONS = ("float64", "float32", "bfloat16")
"""Of f and of the states alike, so that the round-off floor is seen."""

STEPS = (1, 2, 4, 8, 16, 32, 64)
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
        fit: rates fitted to the component of the error along the slowest mode, above the round-off floor.
    """

    case: Case
    batch: Batch
    errors: Floats
    bound: Floats
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
    bound = _bound(case, batch, errors[:, 0], forward_floor(case.beta, batch.lipschitz, predicted, most))
    return Sweep(case, batch, errors, bound, predicted, fit)


def check_rate_grid(sweep: Sweep) -> list[Measurement]:
    """Compare the fitted rate of every map with the spectral rate of a step at its fixed point.

        measured = max over maps of |ln(fitted / predicted)|, less the fit's uncertainty unless float64, linear, normal

    bfloat16 has no rows for tanh maps.

    Returns:
        One row for each family of maps; "no-power" where none of its fits is sharper than `SHARP`.

    How this can fail: another order of the half steps, another beta, a damped or repeated update, states kept in a
    narrower dtype than they should (the floor is met early and the window is short).

    References:
        Young, Trans. AMS 76 (1954), DOI 10.1090/S0002-9947-1954-0059635-7; (THEORY T2, A7).
    """
    rows: list[Measurement] = []
    for label, fixtures in _families():
        if sweep.case.dtype == "bfloat16" and not all(fixture.linear for fixture in fixtures):
            # From a displacement of u^(1/4) = 1/4 the floor is four halvings away: no window, whatever the solver.
            continue
        sharp = np.logical_or.reduce([sweep.sharp(fixture) for fixture in fixtures])
        common: dict[str, Any] = {"leaf": label, "unit": "log ratio"}
        if not sharp.any():
            reason = f"no fit has {MINIMUM_POINTS} points above its floor and an uncertainty of at most {SHARP:g}"
            rows.append(_row(sweep.case, "rate-grid", status="no-power", reason=reason, **common))
            continue
        hard = sweep.case.dtype == "float64" and all(fixture.normal and fixture.linear for fixture in fixtures)
        doubt = sweep.fit.log_uncertainty
        excess = np.where(sharp, sweep.apart if hard else np.maximum(sweep.apart - doubt, 0.0), -np.inf)
        worst = int(np.argmax(excess))
        rows.append(
            _row(
                sweep.case,
                "rate-grid",
                got=float(sweep.fit.rate[worst]),
                expected=float(sweep.predicted[worst]),
                measured=float(excess[worst]),
                power=float(doubt[sharp].max()),
                **common,
            )
        )
    return rows


def check_rate_bound(sweep: Sweep) -> list[Measurement]:
    """Compare the error after every step with what the contraction constant alone allows.

        |z_n - z*| <= (F^n (e, e) + (I - F)^-1 (l, (1 + c) l))_z,     F = [[|a|, c], [c |a|, |a| + c^2]],   c = beta k

    with e the error at the start and l the most that rounding adds in a half step.

    Returns:
        One row for each family of maps that converges at this beta for some constant.

    How this can fail: any step that is not the one of the method, or that rounds more than it should.

    References:
        (THEORY T3, A6): the majorant of the two coupled errors holds for every map with this Lipschitz constant.
    """
    rows: list[Measurement] = []
    for label, fixtures in _families():
        names = {fixture.name for fixture in fixtures}
        chosen = np.array([name in names for name in sweep.batch.names]) & np.isfinite(sweep.bound).all(axis=1)
        if not chosen.any():
            continue
        errors, bound = sweep.errors[:, STEPS], sweep.bound[:, STEPS]
        ratio = np.where(chosen[:, None], errors / bound, -np.inf)
        # A NaN error must not hide behind the maximum.
        place = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), ratio.shape)
        rows.append(
            _row(
                sweep.case,
                "rate-bound",
                leaf=label,
                unit="relative",
                got=float(errors[place]),
                expected=float(bound[place]),
                measured=float(ratio[place]),
            )
        )
    return rows


def measure_grid_case(
    subject: Subject, case: Case, constants: tuple[float, ...] = CONSTANTS, options: Sequence[str] = ()
) -> list[Measurement]:
    """The rows of both checks for one case; an exception becomes rows that say so and fail.

    Args:
        subject: what is verified.
        case: beta, steps, dtype and device.
        constants: contraction constants of the maps.
        options: what the command that measures a case again needs besides the case.
    """
    return _replayed(_rows(_tried(subject, case, constants), case), options)


def measure_grid(subject: Subject, device: str, options: Sequence[str] = ()) -> tuple[list[Measurement], list[Curve]]:
    """The rows of all cases, and for each map and dtype the fitted rates against beta; see `measure_grid_case`."""
    rows: list[Measurement] = []
    sweeps: list[Sweep] = []
    for case in grid_cases(device):
        found = _tried(subject, case, CONSTANTS)
        rows += _rows(found, case)
        if isinstance(found, Sweep):
            sweeps.append(found)
    return _replayed(rows, options), list(_curves(sweeps))


def _replayed(rows: list[Measurement], options: Sequence[str]) -> list[Measurement]:
    return [
        replace(
            row,
            replay=" ".join(
                ["revdeq verify --only", shlex.quote(row.case), *map(shlex.quote, options), "--out replay"]
            ),
        )
        for row in rows
    ]


def _tried(subject: Subject, case: Case, constants: tuple[float, ...]) -> Sweep | str:
    try:
        return sweep(subject, case, constants)
    except Exception as error:  # noqa: BLE001  (whatever a subject raises is a finding, and the other cases go on)
        return f"{type(error).__name__}: {error}"


def _rows(found: Sweep | str, case: Case) -> list[Measurement]:
    if isinstance(found, Sweep):
        return [*check_rate_grid(found), *check_rate_bound(found)]
    return [_row(case, check, leaf="all", status="failed", reason=found) for check in ("rate-grid", "rate-bound")]


def _iterates(
    subject: Subject, case: Case, batch: Batch, start: Tensor, held: npt.NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """y_n and z_n for n = 0, ..., N, each (N + 1, C, d) in float64 on the CPU; those not held stay at their start."""
    calls = Calls()
    function = batch.function(case.torch_dtype, case.device)
    moving = torch.tensor(held, device=case.device)[:, None]
    z0 = start.to(case.device, case.torch_dtype)
    settings = Settings(
        beta=case.beta, num_steps=case.num_steps, adjoint="reversible", state_dtype=case.torch_state_dtype
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


def _bound(case: Case, batch: Batch, start: Floats, floor: Floats) -> Floats:
    # The spectral norms that stand for k are themselves rounded.
    lipschitz = batch.lipschitz * (1 + 2.0**-40)
    majorant = forward_majorant(case.beta, torch.tensor(lipschitz)).numpy()
    pair = np.stack([start, start], axis=1)
    bounds = [start + floor]
    for _ in range(case.num_steps):
        pair = (majorant @ pair[:, :, None])[:, :, 0]
        bounds.append(pair[:, 1] + floor)
    converges = abs(1 - case.beta) + case.beta * lipschitz < 1
    return np.where(converges[:, None], np.stack(bounds, axis=1), np.nan)


def _families() -> Iterator[tuple[str, Sequence[Fixture]]]:
    """The fixtures by spectrum, whether W is normal, and whether the map is linear."""
    families: dict[str, list[Fixture]] = {}
    for fixture in FIXTURES:
        label = fixture.spectrum + ("" if fixture.normal else ", not normal") + ("" if fixture.linear else ", tanh")
        families.setdefault(label, []).append(fixture)
    yield from families.items()


def _curves(sweeps: Sequence[Sweep]) -> Iterator[Curve]:
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
                x_name="relaxation parameter beta",
                y_name="rate per step",
                x=tuple(found.case.beta for found in own),
                y=tuple(rate if good else np.nan for (rate, _), good in zip(fits, sharp, strict=True)),
                predicted=tuple(float(found.predicted[place]) for found in own),
                band=tuple(r * u if good else np.nan for (r, u), good in zip(fits, sharp, strict=True)),
            )


def _row(case: Case, check: str, **fields: Any) -> Measurement:
    return Measurement(
        check=check,
        case=case.id,
        problem=case.problem,
        solver=case.solver,
        beta=case.beta,
        num_steps=case.num_steps,
        dtype=case.dtype,
        state_dtype=case.state_dtype,
        device=case.device,
        **fields,
    )
