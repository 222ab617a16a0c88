"""Claim: no rounding error crosses its proved bound."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import referred
from verify.criteria import SELDOM, Criterion
from verify.plan import Place
from verify.problems import get_problem
from verify.reading import BOUND
from verify.reference import difference
from verify.reference.arithmetic.protocol import Array
from verify.result import Measurement
from verify.rounding.bounds import BOUNDED_LEAVES, bounded, error_bounds
from verify.trial.rebuilt import not_reversed, state_name
from verify.trial.trial import Trial, cost, to_numpy


def applies(case: Case) -> bool:
    """Where references judge a problem that has bounds."""
    return referred(case) and bounded(get_problem(case.problem))


def places(case: Case) -> Iterator[Place]:
    """A row per state, for the rebuilt start, and per leaf of the gradient that has a bound."""
    del case
    for leaf in ("z1", "y1", state_name(0), *BOUNDED_LEAVES):
        yield Place(adjoint="reversible", leaf=leaf)


def check_rounding_bound(trial: Trial) -> list[Measurement]:
    """Compare the errors of z1, y1, the rebuilt start and the gradient with bounds that are theorems.

        measured = ||got - exact||_2 / bound

    Returns:
        A row per result; it has power where the bound is below the norm of the exact one, so that it says something.

    How this can fail: a format narrower than asked for anywhere; a term lost or doubled. There is no slack: a row above
    1 disproves an assumption on the arithmetic, or the bound.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), sections 3.1 and 3.5; (T7,
        A6).
    """
    case, problem = trial.case, trial.problem
    bounds = error_bounds(
        problem,
        case.beta,
        case.num_steps,
        unit_roundoff_state=case.state_unit_roundoff,
        unit_roundoff_function=case.unit_roundoff,
        arithmetic=case.arithmetic,
    )
    seen = trial.observe("reversible")
    exact = trial.references.n_step(problem, case.beta, case.num_steps)
    # What a solve returns is rounded once more, to z0's dtype; so is the state at which f is evaluated.
    rounded = 1.04 * case.unit_roundoff
    found: dict[str, tuple[Tensor | None, Array, float, float]] = {
        "z1": (seen.z1, exact.z, bounds.forward_z, rounded),
        "y1": (seen.y1, exact.y, bounds.forward_y, rounded),
    }
    if len(seen.backward_states) == 2 * case.num_steps:
        found[state_name(0)] = (seen.backward_states[-1], exact.trajectory[0][1], bounds.rebuilt_z[0], rounded)
    for leaf, bound in bounds.gradient.items():
        found[leaf] = (seen.gradients.get(leaf), exact.gradient[leaf], bound, 0.0)
    rows: list[Measurement] = []
    if state_name(0) not in found:
        rows.append(not_reversed(trial, 0))
    for leaf, (got, expected, bound, cast) in found.items():
        size = float(np.linalg.norm(expected.astype(np.float64)))
        if got is None or tuple(got.shape) != expected.shape:
            reason = f"the subject returned no {leaf} of shape {expected.shape}"
            rows.append(trial.row("reversible", leaf=leaf, status="failed", reason=reason, **cost(seen)))
            continue
        allowed = bound + cast * (size + bound)
        power = allowed / size if allowed > 0 and size > 0 else math.inf
        error = float(np.linalg.norm(difference(to_numpy(got), expected)))
        rows.append(
            trial.row(
                "reversible",
                leaf=leaf,
                got=error,
                expected=allowed,
                measured=error / allowed if allowed > 0 else math.nan,
                size=size,
                power=power,
                status="measured" if power <= 1 else "no-power",
                reason="" if power <= 1 else f"the bound is {power:.2g} times what it bounds",
                **cost(seen),
            )
        )
    return rows


CHECK = Check(
    name="rounding-bound",
    topic="states",
    criterion=Criterion(
        claim="no error of a state, of its reversal or of a gradient crosses the bound that is proved for it",
        comparison="<=",
        threshold=1.0,
        why="A6: the bounds are theorems about rounding to nearest, so there is no slack",
        unit="relative",
        reading=BOUND,
        power=1.0,
        effective=SELDOM,
        observed="args",
    ),
    kills=("float32-accumulators", "coupling-dropped", "one-step-too-few"),
    applies=applies,
    places=places,
    rows=check_rounding_bound,
    reverses=True,
)
