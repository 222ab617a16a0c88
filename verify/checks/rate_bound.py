"""Claim: no error of the grid is larger than the contraction constant allows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verify.case import Case
from verify.checks._check import Check
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import MAJORANT
from verify.result import Measurement
from verify.trial.grid import GRID, STEPS, GridBench, families


def applies(case: Case) -> bool:
    """The cases of the grid."""
    return case.problem == GRID


def places(case: Case) -> Iterator[Place]:
    """A row for each family of maps."""
    del case
    for label in families():
        yield Place(leaf=label)


def check_rate_bound(bench: GridBench) -> list[Measurement]:
    """Compare the error after every step with what the contraction constant alone allows.

        |z_n - z*| <= (F^n (e, e) + (I - F)^-1 (l, (1 + c) l))_z,     F = [[|a|, c], [c |a|, |a| + c^2]],   c = beta k

    with e the error at the start and l the most that rounding adds in a half step.

    Returns:
        One row for each family of maps; it has power where some of them converge at this beta by their constant alone.

    How this can fail: any step that is not the one of the method, or that rounds more than it should.

    References:
        (T3, A6): the majorant of the two coupled errors holds for every map with this Lipschitz constant.
    """
    sweep = bench.sweep
    rows: list[Measurement] = []
    for label, fixtures in families().items():
        names = {fixture.name for fixture in fixtures}
        family = np.array([name in names for name in sweep.batch.names])
        chosen = family & np.isfinite(sweep.bound).all(axis=1)
        growth = float(sweep.growth[family].min())
        if not chosen.any():
            reason = f"the majorant grows by {growth:.3g} a step: it bounds nothing"
            rows.append(bench.row(leaf=label, power=growth, status="no-power", reason=reason))
            continue
        errors, bound = sweep.errors[:, STEPS], sweep.bound[:, STEPS]
        ratio = np.where(chosen[:, None], errors / bound, -np.inf)
        # A NaN error must not hide behind the maximum.
        place = np.unravel_index(np.argmax(np.where(np.isnan(ratio), np.inf, ratio)), ratio.shape)
        rows.append(
            bench.row(
                leaf=label,
                got=float(errors[place]),
                expected=float(bound[place]),
                measured=float(ratio[place]),
                power=growth,
            )
        )
    return rows


CHECK = Check(
    name="rate-bound",
    topic="rates",
    criterion=Criterion(
        claim="no error of the grid is larger after N steps than the contraction constant and rounding allow",
        comparison="<=",
        threshold=1.0,
        why="A6: the majorant of T3 is proved for every map with that constant, so there is no slack",
        unit="relative",
        reading=MAJORANT,
        power=1.0,
    ),
    kills=("jacobi-update", "one-step-too-few"),
    applies=applies,
    places=places,
    rows=check_rate_bound,
)
