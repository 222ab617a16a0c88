"""What each profile measures: which problems, betas, step counts and precisions, and the plan that the gate holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from verify.checks._where import BETAS
from verify.methods import METHODS
from verify.problems import get_problem, problem_names
from verify.result import NotMeasured
from verify.studies.registry import STUDIES
from verify.tasks import EnvelopeTask, GridTask, MethodTask, ProblemTask, SelftestTask, StudyTask, Task


PAPER = ((0.5, 4), (0.8, 2), (0.8, 8))
"""Beta and steps of the published experiments; every profile measures them on every problem and in every precision."""

CURVE_STEPS = (1, 2, 3, 4, 6, 8, 12, 16)
LONG_CURVE_STEPS = (*CURVE_STEPS, 24, 32)

ALL_BETAS = (0.25, 0.3, 0.5, 0.75, 0.8, 0.95, 1.2, 1.25, 1.5, 1.9)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much a run measures.

    Args:
        name: what the command line and results call it.
        wide: whether every problem is measured at `ALL_BETAS`, or those of the quick scope at `BETAS` and their own.
        curve_steps: step counts at which curves have points.
    """

    name: str
    wide: bool
    curve_steps: tuple[int, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """The names of the problems on which it runs the reversible iteration."""
        return problem_names("full" if self.wide else "quick")

    def betas(self, problem: str) -> tuple[float, ...]:
        """The betas at which it measures a problem."""
        scope = get_problem(problem).scope
        if self.wide:
            return tuple(beta for beta in ALL_BETAS if beta not in scope.outside)
        return tuple(sorted((*BETAS, *scope.betas)))

    def tasks(self, devices: tuple[str, ...]) -> tuple[Task, ...]:
        """Its tasks, in the order of the results."""
        return (
            *(
                ProblemTask(problem, beta, device, self.curve_steps)
                for device in devices
                for problem in self.problems
                for beta in self.betas(problem)
            ),
            *(MethodTask(method, device) for device in devices for method in METHODS),
            *(task(device) for device in devices for task in (GridTask, EnvelopeTask)),
            *(StudyTask(study.name, self.name) for study in STUDIES),
            SelftestTask(),
        )

    def left_out(self) -> tuple[NotMeasured, ...]:
        """What it leaves to a larger one, or cannot measure, in words."""
        if self.wide:
            scopes = {name: get_problem(name).scope for name in self.problems}
            outside = [
                NotMeasured(what=f"{name} at beta {beta:g}", why=why)
                for name, scope in scopes.items()
                for beta, why in scope.outside.items()
            ]
            correlated = [
                NotMeasured(what=f"{name} in {dtype} after {steps} steps", why=why)
                for name, scope in scopes.items()
                for (dtype, steps), why in scope.correlated.items()
            ]
            return (*outside, *correlated)
        beyond = [name for name in problem_names("full") if name not in self.problems]
        return (
            NotMeasured(what=f"problems {', '.join(beyond)}", why="left to the full profile"),
            NotMeasured(
                what="every problem at beta " + ", ".join(f"{b:g}" for b in ALL_BETAS if b not in BETAS),
                why="left to the full profile; the quick one has some of them on some problems",
            ),
            NotMeasured(what="curves beyond 16 steps", why="left to the full profile"),
        )


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(name="quick", wide=False, curve_steps=CURVE_STEPS),
            Profile(name="full", wide=True, curve_steps=LONG_CURVE_STEPS),
            Profile(name="nightly", wide=True, curve_steps=LONG_CURVE_STEPS),
        )
    }
)


def profile_named(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in PROFILES:
        raise ValueError(f"profile is {name!r}: give one of {', '.join(PROFILES)}.")
    return PROFILES[name]
