"""Claim: over a grid of maps the error falls by the rate of theory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import LOG_RATIO_LESS_DOUBT
from verify.regression import MINIMUM_POINTS
from verify.result import Measurement
from verify.trial.grid import GRID, SHARP, GridBench, families


def applies(case: Case) -> bool:
    """The cases of the grid."""
    return case.problem == GRID


def places(case: Case) -> Iterator[Place]:
    """A row for each family of maps."""
    for label in _families(case):
        yield Place(leaf=label)


def check_rate_grid(bench: GridBench) -> list[Measurement]:
    """Compare the fitted rate of every map with the spectral rate of a step at its fixed point.

        measured = max over maps of |ln(fitted / predicted)|, less the fit's uncertainty unless float64, linear, normal

    Returns:
        One row for each family of maps; "no-power" where none of its fits is sharper than `SHARP`.

    How this can fail: another order of the half steps, another beta, a damped or repeated update, states kept in a
    narrower dtype than they should (the floor is met early and the window is short).

    References:
        Young, Trans. AMS 76 (1954), DOI 10.1090/S0002-9947-1954-0059635-7; (T2, A7).
    """
    sweep = bench.sweep
    rows: list[Measurement] = []
    for label in _families(bench.case):
        fixtures = families()[label]
        sharp = np.logical_or.reduce([sweep.sharp(fixture) for fixture in fixtures])
        if not sharp.any():
            reason = f"no fit has {MINIMUM_POINTS} points above its floor and an uncertainty of at most {SHARP:g}"
            rows.append(bench.row(leaf=label, power=math.inf, status="no-power", reason=reason))
            continue
        hard = sweep.case.dtype == "float64" and all(fixture.normal and fixture.linear for fixture in fixtures)
        doubt = sweep.fit.log_uncertainty
        allowed = np.zeros_like(doubt) if hard else doubt
        excess = np.where(sharp, np.maximum(sweep.apart - allowed, 0.0), -np.inf)
        worst = int(np.argmax(excess))
        rows.append(
            bench.row(
                leaf=label,
                got=float(sweep.fit.rate[worst]),
                expected=float(sweep.predicted[worst]),
                measured=float(excess[worst]),
                power=float(doubt[sharp].max()),
                uncertainty=float(allowed[worst]),
            )
        )
    return rows


def _families(case: Case) -> list[str]:
    """The families that have a window: bfloat16 has none for tanh maps, whatever the solver.

    From a displacement of u^(1/4) = 1/4 their floor is four halvings away.
    """
    return [label for label, of in families().items() if case.dtype != "bfloat16" or all(f.linear for f in of)]


CHECK = Check(
    name="rate-grid",
    topic="rates",
    criterion=Criterion(
        claim="over a grid of maps, betas and dtypes the slowest component of the error falls by the rate of T2",
        comparison="<=",
        threshold=0.02,
        why="A7: |ln(observed / predicted)|; beyond float64, normal, linear maps less the fit's own uncertainty",
        unit="log ratio",
        reading=LOG_RATIO_LESS_DOUBT,
        power=0.02,
    ),
    kills=("jacobi-update", "slower-than-asked"),
    applies=applies,
    places=places,
    rows=check_rate_grid,
)
