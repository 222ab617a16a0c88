"""A gradient along a direction: its slope, the loss there, and what rounding does to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verify.reference import default_direction
from verify.trial.ratio import rms
from verify.trial.trial import Trial, to_numpy


VALUE_ROUNDOFF = 2.0**-50
"""Relative accuracy of the loss in float64: a sum over some tens of components, each a few roundings off."""


def direction_scale(trial: Trial) -> tuple[float, float]:
    """Rounding of <g, d> for the default direction d, and the size of <g, d> over the leaves."""
    direction = default_direction(trial.problem)
    expected = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps).gradient
    spread = trial.scale().gradient
    lengths = {leaf: float(np.linalg.norm(along)) for leaf, along in direction.items()}
    size = math.hypot(*(lengths[leaf] * rms(expected[leaf].astype(np.float64)) for leaf in direction))
    scale = math.hypot(*(lengths[leaf] * spread[leaf] for leaf in direction))
    scale = max(scale, trial.case.unit_roundoff * size)
    return scale, size


def slope_along(trial: Trial) -> float | str:
    """<g, d> of the subject's gradient, or what is wrong with it."""
    gradients = trial.observe("reversible").gradients
    terms: list[float] = []
    for leaf, along in default_direction(trial.problem).items():
        got = gradients.get(leaf)
        if got is None:
            return f"{leaf} got no gradient"
        terms += list((to_numpy(got) * along).ravel())
    return math.fsum(terms)


def loss_along(trial: Trial) -> Callable[[float], float]:
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
