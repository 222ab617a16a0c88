"""The studies of a run: what it measures for the report beside the cases that the gate judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from verify.problems import problem_names
from verify.result import Curve, NotMeasured
from verify.studies.cost import cost_curves, plan_of
from verify.studies.rates.curves import study_curves
from verify.studies.rounding import roundoff_curves


@dataclass(frozen=True)
class Study:
    """One study; what it measures goes into the results as curves.

    Args:
        name: what it is, unique; the name of its task.
        names: of the curves that it gives, at least one of each.
        curves: profile ("quick", "full" or "nightly") -> its curves. It runs in a worker process, on one thread.
    """

    name: str
    names: tuple[str, ...]
    curves: Callable[[str], Iterable[Curve]]


def _convergence(profile: str) -> Iterable[Curve]:
    return study_curves(problem_names(profile))


def _cost(profile: str) -> Iterable[Curve]:
    return cost_curves(plan_of(profile))


STUDIES: tuple[Study, ...] = (
    Study(
        "convergence-study",
        ("eigenvalues", "rate-against-beta", "evaluations-to-tolerance", "evaluations-of-estimate", "bits-lost"),
        _convergence,
    ),
    Study(
        "round-off-study",
        (
            *("mode-gradient-error", "mode-reconstruction", "mode-bytes", "mode-peak", "mode-time"),
            *("envelope-predicted", "envelope-measured", "envelope-error"),
            *("census-forgotten", "census-lost", "census-bound", "census-returned"),
        ),
        roundoff_curves,
    ),
    Study(
        "cost-study",
        ("cost-evaluations", "cost-vjps", "cost-bytes", "cost-ratio", "cost-seconds"),
        _cost,
    ),
)
"""Every study, in the order of the results; a new one is a line here."""


def measure_study(name: str, profile: str, subject: str) -> list[Curve]:
    """Run one study, which is about this distribution and no other subject.

    Args:
        name: of one of `STUDIES`.
        profile: "quick", "full" or "nightly".
        subject: what the run verifies.

    Returns:
        Its curves; none for another subject, see `studies_left_out`.
    """
    (study,) = (study for study in STUDIES if study.name == name)
    return list(study.curves(profile)) if subject == "revdeq" else []


def studies_left_out(subject: str) -> tuple[NotMeasured, ...]:
    """What a run of another subject leaves out, in words.

    Args:
        subject: what the run verifies.
    """
    if subject == "revdeq":
        return ()
    names = ", ".join(study.name for study in STUDIES)
    return (NotMeasured(what=f"the studies ({names})", why="they compare solvers and modes of revdeq itself"),)
