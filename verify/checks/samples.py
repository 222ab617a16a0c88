"""Claim: samples do not mix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe, state_shape
from verify.criteria import Criterion
from verify.plan import Place
from verify.problems.problem import to_bfloat16
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.observation import observe
from verify.trial.pulled import differing, differing_row
from verify.trial.trial import Trial


def applies(case: Case) -> bool:
    """The probes of a batch of more than one."""
    return probe(case) and state_shape(case)[0] > 1


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", leaf="other samples", expected=0.0)


def check_samples(trial: Trial) -> list[Measurement]:
    """Change the first sample's start; no bit of the other samples' states and gradients may change.

    Returns:
        One row; `measured` is the number of components of other samples that changed.

    How this can fail: a norm, a stop or a statistic taken over the batch. Blind for a batch of one, which fails.

    References:
        (A11): a batch is a loop over its samples.
    """
    case, problem = trial.case, trial.problem
    start = problem.z0.copy()
    start[0] = to_bfloat16(0.5 * start[0] + 0.25)
    settings = trial.settings("reversible")
    moved = observe(trial.subject, replace(problem, z0=start), settings, case.torch_dtype, case.device)
    seen = trial.observe("reversible")
    pairs = [(seen.z1, moved.z1), (seen.y1, moved.y1), (seen.gradients["z0"], moved.gradients["z0"])]
    others = [(left[1:], right[1:]) for left, right in pairs if left is not None and right is not None]
    if len(others) < len(pairs) or others[0][0].numel() == 0:
        reason = "z0 got no gradient, or there is no second sample"
        return [trial.row("reversible", leaf="other samples", status="failed", reason=reason)]
    return [differing_row(trial, "other samples", differing(*map(list, zip(*others, strict=True))))]


CHECK = Check(
    name="samples",
    topic="bits",
    criterion=Criterion(
        claim="one sample's start changes no bit of another sample's state or gradient",
        comparison="==",
        threshold=0.0,
        why="the fixtures' samples do not interact, so neither may the solver make them",
        unit="count",
        reading=DIFFERENCE,
    ),
    kills=("one-sample-changes-another",),
    applies=applies,
    places=places,
    rows=check_samples,
)
