"""For a model too large for enclosures: one directional derivative by high-precision differences, beside torch's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verify.certificate.answers import Answer, Finding
from verify.certificate.confirmation import difference_quotient, direction_of, n_step_loss
from verify.certificate.settings import Settings
from verify.certificate.source import Source
from verify.certificate.torch_run import TorchRunError, run_in_torch
from verify.reference.graph import Traced


DIGITS = 30
"""Of the arithmetic: the difference then has some 20, more than float64 shows."""


@dataclass(frozen=True)
class Direction:
    """A derivative along one direction, and how near torch's gradient comes to it.

    Attributes:
        finding: undecided always: a difference is an estimate, not an enclosure; the sentence says what agrees.
        row: {"claim", "by_differences", "certified", "digits", "error_estimate"}, for the page.
        not_run: results that could not be had.
    """

    finding: Finding
    row: dict[str, Any]
    not_run: list[dict[str, str]]


def certify_direction(
    source: Source,
    traced: Traced,
    settings: Settings,
    cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    flat: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Direction:
    """Difference the N-step loss along a seeded direction in mpmath, and compare float64's gradient with it.

    Args:
        source: the problem for torch.
        traced: the same, recorded.
        settings: beta and N.
        cotangents: by state leaf.
        flat: the same, flat.
    """
    loss = n_step_loss(traced, settings.beta, settings.num_steps, *flat)
    value, error = difference_quotient(traced, loss, traced.leaves, DIGITS)
    not_run: list[dict[str, str]] = []
    row: dict[str, Any] = {
        "claim": "N-step directional derivative",
        "by_differences": str(value),
        "certified": "none: the model is too large for enclosures",
        "digits": 0.0,
        "error_estimate": error,
    }
    try:
        run = run_in_torch(
            source, traced, torch.float64, "cpu", settings.beta, settings.num_steps, cotangents, "reversible"
        )
    except TorchRunError as failure:
        not_run.append({"what": "float64 reversible on cpu", "why": str(failure)})
        sentence = "the directional derivative was found by differences, but torch could not be run"
        return Direction(Finding("N-step directional derivative", Answer.UNDECIDED, sentence), row, not_run)
    ways = direction_of(traced, traced.leaves)
    got = math.fsum(float(part) for name in traced.leaves for part in (run.gradient[name] * ways[name]).ravel())
    wanted = float(value)
    distance = abs(got - wanted) / abs(wanted) if wanted else abs(got)
    row["digits"] = -math.log10(distance) if distance > 0 else math.inf
    row["certified"] = f"torch, float64: {got!r}"
    sentence = (
        f"along one random direction torch's float64 N-step gradient agrees with differences to "
        f"{row['digits']:.1f} digits; "
        "an estimate, no proof: give fewer samples or a smaller state for a certificate"
    )
    return Direction(Finding("N-step directional derivative", Answer.UNDECIDED, sentence), row, not_run)
