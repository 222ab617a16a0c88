"""Claim: a cotangent means the same in every layout."""

from __future__ import annotations

import math
from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import RATIO_LIMIT, Criterion
from verify.plan import Place
from verify.reading import ERROR
from verify.result import Measurement
from verify.trial.pulled import pull
from verify.trial.ratio import rms
from verify.trial.trial import Trial, to_numpy


def places(case: Case) -> Iterator[Place]:
    """A row per layout."""
    del case
    for leaf in ("expanded", "transposed"):
        yield Place(adjoint="reversible", leaf=leaf)


def check_cotangent_layout(trial: Trial) -> list[Measurement]:
    """Cotangents that are expanded or stored transposed give the gradients of their contiguous copies.

        R = max over leaves of RMS(g_odd - g_contiguous) / sig(leaf)

    Returns:
        A row each. Not to the bit: torch's vectorised functions round otherwise on other strides.

    How this can fail: a kernel or a view that assumes contiguous memory.

    References:
        torch.autograd.gradcheck warns of inputs with overlapping memory for the same reason.
    """
    cotangent, _ = trial.problem.cotangents(trial.case.torch_dtype, trial.case.device)
    expanded = cotangent[:1].clone().expand_as(cotangent)
    transposed = cotangent.transpose(0, -1).contiguous().transpose(0, -1)
    spread = trial.scale().gradient
    rows: list[Measurement] = []
    for layout, odd in (("expanded", expanded), ("transposed", transposed)):
        (from_odd,) = pull(trial, [1.0], cotangents=odd)
        (from_plain,) = pull(trial, [1.0], cotangents=odd.contiguous())
        errors = [
            (math.nan if one is None or other is None else rms(to_numpy(one) - to_numpy(other)), spread[leaf] or 1.0)
            for leaf, one, other in zip(trial.problem.leaves, from_odd, from_plain, strict=True)
        ]
        error, scale = max(errors, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0] / pair[1])
        rows.append(trial.row("reversible", leaf=layout, error=error, measured=error / scale, scale=scale))
    return rows


CHECK = Check(
    name="cotangent-layout",
    topic="bits",
    criterion=Criterion(
        claim="expanded and transposed cotangents mean the same as contiguous ones",
        comparison="<=",
        threshold=RATIO_LIMIT,
        why="only the order of roundings may differ, and that is what R counts",
        unit="ratio R",
        reading=ERROR,
    ),
    kills=("cotangent-layout-misread",),
    applies=probe,
    places=places,
    rows=check_cotangent_layout,
)
