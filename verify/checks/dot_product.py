"""Claim: forward-mode and reverse-mode derivatives are transposes of one another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import LOGIC_POWER, RATIO_LIMIT, RATIO_WHY, Criterion
from verify.plan import Place
from verify.reading import POWERED_DIFFERENCE
from verify.result import Measurement, Status
from verify.trial.ratio import rms
from verify.trial.trial import Trial, to_numpy


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", target="n-step", leaf="all leaves")


def check_dot_product(trial: Trial) -> list[Measurement]:
    """Compare <J v, w> with <v, J^T w> for random signs v on every leaf and the cotangents w with random signs.

    J v comes from forward-mode differentiation of a plain loop over problem.function, J^T w from the subject. The
    difference is measured in the rounding that the leaves' gradients may carry:

        R = |<J v, w> - <v, J^T w>| / sqrt(sum over leaves of n sig^2),      |v| = 1 in every component

    Returns:
        One row; "failed" where a leaf got no gradient.

    How this can fail: any error in J^T w that a fixed cotangent hides. Torch's own forward-mode formulas are trusted.

    References:
        J. Claerbout, Earth Soundings Analysis (1992), chapter 5: the dot-product test.
    """
    case = trial.case
    random = trial.generator("dot-product")
    z0, args = trial.problem.inputs(case.torch_dtype, case.device, requires_grad=True)
    leaves = {"z0": z0} | {f"args.{name}": value for name, value in args.items()}
    cotangents = [_signed(random, c) for c in trial.problem.cotangents(case.torch_dtype, case.device)]
    directions = {leaf: _signed(random, torch.ones_like(value)) for leaf, value in leaves.items()}
    solved = trial.subject.solve(trial.problem.function, z0, args, trial.settings("reversible"))
    gradients = cast(
        "tuple[Tensor | None, ...]",
        torch.autograd.grad([solved.z1, solved.y1], list(leaves.values()), cotangents, allow_unused=True),
    )
    common = {"leaf": "all leaves", "target": "n-step"}
    found = {leaf: value for leaf, value in zip(leaves, gradients, strict=True) if value is not None}
    if len(found) < len(leaves):
        reason = f"no gradient for {', '.join(leaf for leaf in leaves if leaf not in found)}"
        return CHECK.failed(trial, reason)
    tangents = _push(trial, leaves, directions)
    terms = [_inner(tangent, cotangent) for tangent, cotangent in zip(tangents, cotangents, strict=True)]
    pulled = [_inner(gradient, directions[leaf]) for leaf, gradient in found.items()]
    spread = trial.scale().gradient
    scale = math.sqrt(sum(gradient.numel() * spread[leaf] ** 2 for leaf, gradient in found.items()))
    size = math.sqrt(sum(gradient.numel() * rms(to_numpy(gradient)) ** 2 for gradient in found.values()))
    scale = max(scale, case.unit_roundoff * size)
    power = scale / size if size > 0 else math.inf
    status: Status = "measured" if power <= LOGIC_POWER else "no-power"
    return [
        trial.row(
            "reversible",
            got=sum(pulled),
            expected=sum(terms),
            measured=abs(sum(terms) - sum(pulled)) / scale,
            scale=scale,
            size=size,
            power=power,
            status=status,
            reason="" if status == "measured" else f"rounding is {power:.2g} of the gradient",
            **common,
        )
    ]


def _push(trial: Trial, leaves: dict[str, Tensor], directions: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Tangents of (z_N, y_N) along the directions, by forward mode."""
    case, beta = trial.case, trial.case.beta
    names = [leaf for leaf in leaves if leaf != "z0"]

    def run(z0: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        args = {name.removeprefix("args."): value for name, value in zip(names, values, strict=True)}
        y = z = z0.to(case.torch_state_dtype)
        for _ in range(case.num_steps):
            y = (1 - beta) * y + beta * trial.problem.function(z.to(z0.dtype), args)
            z = (1 - beta) * z + beta * trial.problem.function(y.to(z0.dtype), args)
        return z, y

    order = ["z0", *names]
    points = tuple(leaves[leaf].detach() for leaf in order)
    with warnings.catch_warnings():
        # torch's first forward-mode call compiles formulas of its own by what torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
        _, tangents = cast("tuple[Any, Any]", torch.func.jvp(run, points, tuple(directions[leaf] for leaf in order)))
    return tangents


def _signed(random: np.random.Generator, value: Tensor) -> Tensor:
    signs = torch.tensor(random.choice([-1.0, 1.0], size=tuple(value.shape)), dtype=value.dtype, device=value.device)
    return value.detach() * signs


def _inner(left: Tensor, right: Tensor) -> float:
    return math.fsum((to_numpy(left) * to_numpy(right)).ravel())


CHECK = Check(
    name="dot-product",
    topic="gradients",
    criterion=Criterion(
        claim="<J v, w> = <v, J^T w> for forward-mode J and the subject's J^T",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why=RATIO_WHY,
        unit="ratio R",
        reading=POWERED_DIFFERENCE,
        power=LOGIC_POWER,
        logic=True,
    ),
    kills=("jacobian-not-transposed", "relative-error-1e-9"),
    applies=probe,
    places=places,
    rows=check_dot_product,
)
