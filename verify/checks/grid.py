"""Claims about rates over a whole grid of maps, betas, contraction constants, dtypes and step counts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from verify.case import Case
from verify.checks.grid_sweep import (
    CONSTANTS as CONSTANTS,
    GRID as GRID,
    PRECISIONS,
    SHARP,
    STEPS as STEPS,
    Sweep,
    grid_cases as grid_cases,
    sweep as sweep,
)
from verify.rate_study.fixtures import FIXTURES, Fixture
from verify.rate_study.regression import MINIMUM_POINTS
from verify.result import Curve, Measurement
from verify.subject import Subject


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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever a subject raises is a finding, SystemExit too)
        return f"{type(error).__name__}: {error}"


def _rows(found: Sweep | str, case: Case) -> list[Measurement]:
    if isinstance(found, Sweep):
        return [*check_rate_grid(found), *check_rate_bound(found)]
    return [_row(case, check, leaf="all", status="failed", reason=found) for check in ("rate-grid", "rate-bound")]


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
