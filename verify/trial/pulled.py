"""Several backward passes from one solve, and the bits in which their gradients differ."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.result import Measurement
from verify.trial.observation import bind, same_bits
from verify.trial.trial import Trial


def pull(
    trial: Trial, factors: list[float], *, same_graph: bool = False, cotangents: Tensor | None = None
) -> list[list[Tensor | None]]:
    """Gradients of every leaf for each multiple of the cotangents, from one solve."""
    case = trial.case
    function, z0, args, leaves = bind(trial.problem, "args", case.torch_dtype, case.device)
    cotangent_z, cotangent_y = trial.problem.cotangents(case.torch_dtype, case.device)
    solved = trial.subject.solve(function, z0, args, trial.settings("reversible"))
    found: list[list[Tensor | None]] = []
    for factor in factors:
        pair = [factor * cotangent_z, factor * cotangent_y] if cotangents is None else [cotangents, cotangents]
        found.append(
            list(
                torch.autograd.grad(
                    [solved.z1, solved.y1], list(leaves.values()), pair, retain_graph=same_graph, allow_unused=True
                )
            )
        )
    return found


def differing(left: list[Tensor | None], right: list[Tensor | None]) -> float:
    """Number of components that differ in any bit; a lost leaf counts as one, nothing at all as NaN."""
    if not left:
        return float("nan")
    count = 0
    for one, other in zip(left, right, strict=True):
        if one is None or other is None or one.shape != other.shape:
            count += 1
        elif not same_bits(one, other):
            count += int(((one != other) & ~(one.isnan() & other.isnan())).sum())
    return float(count)


def differing_row(trial: Trial, leaf: str, count: float) -> Measurement:
    """A row whose `measured` is the number of components that differ."""
    return trial.row("reversible", leaf=leaf, got=count, expected=0.0, measured=count)
