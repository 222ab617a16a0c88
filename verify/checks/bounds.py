"""Claim: no rounding error crosses its proved bound."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from verify.error_bounds import bounded, error_bounds
from verify.reference import difference
from verify.reference.arithmetic.protocol import Array
from verify.result import Measurement
from verify.trial.trial import Trial, cost, to_numpy


def check_rounding_bound(trial: Trial) -> list[Measurement]:
    """Compare the errors of z1, y1, the rebuilt start and the gradient with bounds that are theorems.

        measured = ||got - exact||_2 / bound

    Returns:
        A row per result whose bound is below the norm of the exact one, so that it says something; none for problems
        without bounds (`verify.error_bounds.bounded`).

    How this can fail: a format narrower than asked for anywhere; a term lost or doubled. There is no slack: a row above
    1 disproves an assumption on the arithmetic, or the bound.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), sections 3.1 and 3.5; (THEORY T7,
        A6).
    """
    case, problem = trial.case, trial.problem
    if not bounded(problem):
        return []
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
        found["z at step 0"] = (seen.backward_states[-1], exact.trajectory[0][1], bounds.rebuilt_z[0], rounded)
    for leaf, bound in bounds.gradient.items():
        found[leaf] = (seen.gradients.get(leaf), exact.gradient[leaf], bound, 0.0)
    rows: list[Measurement] = []
    for leaf, (got, expected, bound, cast) in found.items():
        size = float(np.linalg.norm(expected.astype(np.float64)))
        if got is None or tuple(got.shape) != expected.shape:
            reason = f"the subject returned no {leaf} of shape {expected.shape}"
            rows.append(trial.row("rounding-bound", "reversible", leaf=leaf, status="failed", reason=reason))
            continue
        allowed = bound + cast * (size + bound)
        if not 0 < allowed <= size:
            continue
        error = float(np.linalg.norm(difference(to_numpy(got), expected)))
        rows.append(
            trial.row(
                "rounding-bound",
                "reversible",
                leaf=leaf,
                got=error,
                expected=allowed,
                measured=error / allowed,
                unit="relative",
                **cost(seen),
            )
        )
    return rows
