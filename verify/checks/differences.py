"""Claims that need no adjoint to check: differences of the forward pass agree with the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verify.criteria import LOGIC_POWER
from verify.reference import (
    TooFewPoints,
    default_direction,
    fitted_order,
    float64_finite_differences,
    taylor_remainders,
)
from verify.result import Measurement, Status
from verify.trial.ratio import rms
from verify.trial.trial import Trial, cost, to_numpy


VALUE_ROUNDOFF = 2.0**-50
"""Relative accuracy of the loss in float64: a sum over some tens of components, each a few roundings off."""

STEPS = tuple(2.0**-power for power in range(7, 23))


def check_finite_differences(trial: Trial) -> list[Measurement]:
    """Compare <g, d> with the high-precision difference of the N-step loss along d, N frozen.

        R = |<g, d> - D| / sqrt(sum over leaves of sig^2 ||d||^2)

    Returns:
        One row; "failed" where a leaf got no gradient.

    How this can fail: any error in the gradient that shows along a random direction; a reference whose adjoint is wrong
    in the same way as the subject's, which D does not share.

    References:
        Ridders, DOI 10.1016/S0141-1195(82)80057-0.
    """
    derivative = trial.references.finite_differences(trial.problem, trial.case.beta, trial.case.num_steps)
    slope = _slope(trial)
    if isinstance(slope, str):
        return [_failed(trial, "finite-differences", slope)]
    scale, power = direction_scale(trial)
    status: Status = "measured" if power <= LOGIC_POWER else "no-power"
    return [
        trial.row(
            "finite-differences",
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=slope,
            expected=float(derivative.value),
            measured=abs(slope - float(derivative.value)) / scale,
            unit="ratio R",
            scale=scale,
            power=power,
            uncertainty=derivative.error_estimate,
            status=status,
            reason="" if status == "measured" else f"rounding is {power:.2g} of the gradient",
            **cost(trial.observe("reversible")),
        )
    ]


def check_float64_differences(trial: Trial) -> list[Measurement]:
    """Compare <g, d> with the central difference of the subject's own loss in float64, the kind that users know.

        measured |<g, d> - D| / sqrt((error estimate of D)^2 + (rounding of <g, d>)^2)

    Returns:
        One row; "failed" where a leaf got no gradient.

    How this can fail: a gradient of something else than the forward pass; a step count that changes with the inputs.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002), section 25.6.
    """
    slope = _slope(trial)
    if isinstance(slope, str):
        return [_failed(trial, "float64-differences", slope)]
    loss = _loss_along(trial)
    derivative = float64_finite_differences(
        lambda h: loss(float(h[0])), np.zeros(1), np.ones(1), value_roundoff=VALUE_ROUNDOFF
    )
    # Near beta = 1 reversal costs the gradient more digits than the difference loses.
    scale = math.hypot(derivative.error_estimate, direction_scale(trial)[0])
    return [
        trial.row(
            "float64-differences",
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=slope,
            expected=derivative.value,
            measured=abs(slope - derivative.value) / scale,
            unit="error estimates",
            scale=scale,
            **cost(trial.observe("reversible")),
        )
    ]


def check_taylor_order(trial: Trial) -> list[Measurement]:
    """Fit the order of the first-order Taylor remainder with the subject's gradient.

        R1(h) = |L(x + h d) - L(x) - h <g, d>| = O(h^2),      measured |order - 2|

    Returns:
        One row; "failed" where a leaf got no gradient or too few remainders stand above round-off.

    How this can fail: a wrong gradient (order 1). A right one fails where the second derivative along d vanishes (order
    3) or where f has a kink near x.

    References:
        Farrell, Ham, Funke, Rognes, DOI 10.1137/120873558, section 4.1.
    """
    slope = _slope(trial)
    if isinstance(slope, str):
        return [_failed(trial, "taylor-order", slope)]
    loss = _loss_along(trial)
    table = taylor_remainders(loss, slope, STEPS)
    try:
        fit = fitted_order(table.h, table.r1, floor=VALUE_ROUNDOFF * abs(loss(0.0)))
    except TooFewPoints as error:
        return [_failed(trial, "taylor-order", str(error))]
    return [
        trial.row(
            "taylor-order",
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=fit.order,
            expected=2.0,
            measured=abs(fit.order - 2.0),
            unit="order",
            uncertainty=fit.uncertainty,
            **cost(trial.observe("reversible")),
        )
    ]


def direction_scale(trial: Trial) -> tuple[float, float]:
    """Rounding of <g, d> for the default direction d, absolute and relative to the size of <g, d> over the leaves."""
    direction = default_direction(trial.problem)
    expected = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps).gradient
    spread = trial.scale().gradient
    lengths = {leaf: float(np.linalg.norm(along)) for leaf, along in direction.items()}
    size = math.hypot(*(lengths[leaf] * rms(expected[leaf].astype(np.float64)) for leaf in direction))
    scale = math.hypot(*(lengths[leaf] * spread[leaf] for leaf in direction))
    scale = max(scale, trial.case.unit_roundoff * size)
    return scale, scale / size if size > 0 else math.inf


def _slope(trial: Trial) -> float | str:
    """<g, d> of the subject's gradient, or what is wrong with it."""
    gradients = trial.observe("reversible").gradients
    terms: list[float] = []
    for leaf, along in default_direction(trial.problem).items():
        got = gradients.get(leaf)
        if got is None:
            return f"{leaf} got no gradient"
        terms += list((to_numpy(got) * along).ravel())
    return math.fsum(terms)


def _loss_along(trial: Trial) -> Callable[[float], float]:
    """The subject's loss at x + h d as a function of h, summed without rounding."""
    case, problem = trial.case, trial.problem
    direction = default_direction(problem)
    cotangents = (problem.cotangent_z, problem.cotangent_y)

    def tensor(value: NDArray[np.float64]) -> Any:
        return torch.tensor(value, dtype=case.torch_dtype, device=case.device)

    def loss(h: float) -> float:
        z0 = tensor(problem.z0 + h * direction["z0"])
        args = {name: tensor(value + h * direction[f"args.{name}"]) for name, value in problem.args.items()}
        with torch.no_grad():
            solved = trial.subject.solve(problem.function, z0, args, trial.settings("reversible"))
        states = (to_numpy(solved.z1), to_numpy(solved.y1))
        return math.fsum(np.concatenate([(c * s).ravel() for c, s in zip(cotangents, states, strict=True)]))

    return loss


def _failed(trial: Trial, check: str, reason: str) -> Measurement:
    return trial.row(check, "reversible", leaf="all leaves", status="failed", reason=reason)
