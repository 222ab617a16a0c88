"""Claim: what is kept between the passes does not grow with N."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe_at_half
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import KEPT
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.counted import STEPS, kept_bytes
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", leaf="per step", expected=0.0)


def check_saved_bytes(trial: Trial) -> list[Measurement]:
    """Measure what is kept between forward and backward at two step counts.

        slope = (bytes(16) - bytes(4)) / 12      bytes per step

    Counted is every storage that an operation of the solve allocated and that something still holds.

    Returns:
        One row; "failed" where the unrolled adjoint, which must grow, is not seen to grow.

    How this can fail: states stored in the graph, on the context object, in a closure or in a module. A copy in memory
    that torch did not allocate is not seen.

    References:
        McCallum, Arora, Foster, arXiv 2509.12917: memory constant in the number of steps; (A9).
    """
    slopes = {adjoint: _slope(trial, adjoint) for adjoint in ("reversible", "unrolled")}
    common = {"leaf": "per step", "expected": 0.0}
    if not slopes["unrolled"][0] > 0:
        reason = f"the unrolled adjoint keeps {slopes['unrolled'][0]:g} bytes per step: the measurement sees nothing"
        return CHECK.failed(trial, reason)
    slope, saved = slopes["reversible"]
    return [trial.row("reversible", got=slope, measured=abs(slope), saved_bytes=saved, **common)]


def _slope(trial: Trial, adjoint: Adjoint) -> tuple[float, int]:
    few, many = (kept_bytes(trial, trial.settings(adjoint, num_steps=steps)) for steps in STEPS)
    return (many - few) / (STEPS[1] - STEPS[0]), many


CHECK = Check(
    name="saved-bytes",
    topic="cost",
    criterion=Criterion(
        claim="what is kept between forward and backward does not grow with N",
        comparison="==",
        threshold=0.0,
        why="the reversible adjoint keeps the last states only; bytes are integers",
        unit="bytes per step",
        reading=KEPT,
    ),
    kills=("states-stored",),
    applies=probe_at_half,
    places=places,
    rows=check_saved_bytes,
    reverses=True,
)
