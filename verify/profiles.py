"""What each profile measures: which problems, betas, step counts and precisions, and which checks on which case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from revdeq.rates import spectral_rate
from verify.case import BITWISE, Case
from verify.checks.grid import GRID
from verify.problems import get_problem, problem_names
from verify.result import NotMeasured
from verify.rounding.census import has_bitwise_form
from verify.studies.registry import STUDIES


PROFILES = ("quick", "full", "nightly")

PRECISIONS = (("float64", "float64"), ("float32", "float64"), ("float32", "float32"), ("bfloat16", "bfloat16"))
"""(dtype of f, dtype of the states)."""

PAPER = ((0.5, 4), (0.8, 2), (0.8, 8))
"""Beta and steps of the published experiments; every profile measures them on every problem and in every precision."""

PROBE_STEPS = 4
"""The step count of the checks that need one case per problem and beta."""

STEPS = (1, 2, 4, 8, 16)
CURVE_STEPS = (1, 2, 3, 4, 6, 8, 12, 16)
LONG_CURVE_STEPS = (*CURVE_STEPS, 24, 32)

_BETAS = (0.5, 0.8)
_MORE_BETAS = {"dense-tanh": (0.3, 0.95, 1.25), "affine-real": (1.25,), "affine-imaginary": (0.75,), "kepler": (1.2,)}
_ALL_BETAS = (0.25, 0.3, 0.5, 0.75, 0.8, 0.95, 1.2, 1.25, 1.5, 1.9)

_EVERYWHERE: tuple[str, ...] = (
    "forward",
    "reconstruction",
    "backward-states",
    "gradient",
    "relative-to-unrolled",
    "rounding-bound",
)
_BITWISE: tuple[str, ...] = ("bitwise-states", "bitwise-cotangents")
_FLOAT64: tuple[str, ...] = ("evaluations", "untouched")
_PROBE: tuple[str, ...] = (
    "bindings",
    "finite-differences",
    "float64-differences",
    "taylor-order",
    "dot-product",
    "repeatable",
    "linear",
    "cotangent-layout",
    "random-replay",
    "reference-agreement",
    "oracle",
)
_AT_HALF: tuple[str, ...] = ("saved-bytes", "refusals", "errors-surface")

RATE_PROBLEMS = (
    "affine-real",
    "affine-imaginary",
    "affine-general",
    "affine-slow",
    "kepler",
    "lambert-w",
    "riccati",
    "bellman",
    "dense-tanh",
    "conv-group-norm",
    "attention",
)
"""Those with one leading pair of eigenvalues: a defective spectrum, or samples of nearly equal rates, bend the line."""

TARGET_PROBLEMS = ("affine-real", "kepler", "bellman")
STUDY_NAMES = tuple(study.name for study in STUDIES)
"""Stand in the place of a problem's name for the tasks that give curves alone."""

BITWISE_PROBLEMS = (
    "affine-real",
    "affine-general",
    "affine-defective",
    "kepler",
    "dense-tanh",
    "conv-group-norm",
    "attention",
)
BITWISE_DTYPES = ("float64", "float32", "bfloat16", "float16")
BITWISE_STEPS = (4, 32)
"""Few steps, where references judge, and many, where the bits alone do: no floating-point reversal reaches so deep."""

OUTSIDE: Mapping[tuple[str, float], str] = MappingProxyType(
    {
        ("lambert-w", 1.9): "the iteration diverges, and x exp(-z) takes its states out of every range of numbers",
        ("riccati", 1.9): "the states leave the positive definite matrices, where f has poles",
    }
)
"""Problems at betas at which their iteration leaves the domain on which they are stated, each with the reason."""

CORRELATED: Mapping[tuple[str, str, int], str] = MappingProxyType(
    {
        ("affine-slow", "bfloat16", 16): "the roundings of its steps share their sign and add up, where the "
        "error model takes them to be independent: at beta 1.2 to more than three times as much",
    }
)
"""(problem, dtype, steps) for which the error model does not hold, each with the reason."""

NOT_CONTRACTING = ("affine-rotation", "affine-expanding")


@dataclass(frozen=True)
class Task:
    """What one worker measures in one go: all cases of a problem and a beta share the reference trajectory.

    Args:
        problem: name of the problem; `GRID`, one of `STUDY_NAMES`, or "" for the selftest.
        beta: relaxation parameter; 0 where the task is not about one.
        device: device type.
        profile: one of `PROFILES`.
    """

    problem: str
    beta: float
    device: str
    profile: str

    @property
    def name(self) -> str:
        """What the progress line says."""
        if self.of_problem:
            return f"{self.problem} beta={self.beta:g} {self.device}"
        return f"{self.problem} {self.device}" if self.problem else "selftest"

    @property
    def of_problem(self) -> bool:
        """Whether the task measures the cases of a problem."""
        return self.problem not in ("", GRID, *STUDY_NAMES)


def tasks(profile: str, devices: tuple[str, ...]) -> tuple[Task, ...]:
    """The tasks of a profile, in the order of the results.

    Raises:
        ValueError: if there is no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}: give one of {', '.join(PROFILES)}.")
    found = [
        Task(problem, beta, device, profile)
        for device in devices
        for problem in problem_names(profile)
        for beta in betas(problem, profile)
    ]
    grids = [Task(GRID, 0.0, device, profile) for device in devices]
    studies = [Task(name, 0.0, "cpu", profile) for name in STUDY_NAMES]
    return (*found, *grids, *studies, Task("", 0.0, "cpu", profile))


def betas(problem: str, profile: str) -> tuple[float, ...]:
    """The betas at which a profile measures a problem."""
    if profile != "quick":
        return tuple(beta for beta in _ALL_BETAS if (problem, beta) not in OUTSIDE)
    return tuple(sorted((*_BETAS, *_MORE_BETAS.get(problem, ()))))


def cases(task: Task) -> tuple[Case, ...]:
    """The cases of a task whose rows the gate judges."""
    floating = [
        Case(task.problem, task.beta, steps, dtype, state_dtype, task.device)
        for dtype, state_dtype in PRECISIONS
        for steps in STEPS
        if (task.problem, dtype, steps) not in CORRELATED
    ]
    integer = [
        Case(task.problem, task.beta, steps, dtype, "float64", task.device, solver=BITWISE)
        for dtype in BITWISE_DTYPES
        for steps in BITWISE_STEPS
        if task.problem in BITWISE_PROBLEMS and has_bitwise_form(task.beta) and _stays_in_range(task)
    ]
    return (*floating, *integer)


def _stays_in_range(task: Task) -> bool:
    """Whether a linear map converges: states that grow for 32 steps leave every range of integers, and are refused."""
    eigenvalues = get_problem(task.problem).eigenvalues
    return eigenvalues is None or float(spectral_rate(torch.from_numpy(eigenvalues), task.beta).max()) < 1


def curve_steps(profile: str) -> tuple[int, ...]:
    """The step counts at which curves have points."""
    return CURVE_STEPS if profile == "quick" else LONG_CURVE_STEPS


def checks_for(case: Case) -> tuple[str, ...]:
    """The checks that measure a case, the same in every profile and in a replay."""
    if case.arithmetic == "bitwise":
        return _bitwise_checks(case)
    found = list(_EVERYWHERE)
    contracting = case.problem not in NOT_CONTRACTING
    if case.dtype == "float64":
        found += _FLOAT64
    if case.num_steps == PROBE_STEPS:
        if case.dtype == "float64":
            found += _PROBE
            if get_problem(case.problem).z0.shape[0] > 1:
                found.append("samples")
            if case.beta in _BETAS and case.problem in RATE_PROBLEMS:
                found.append("convergence-rate")
            if case.beta in _BETAS and case.problem in TARGET_PROBLEMS:
                found.append("target-difference")
            if case.beta == _BETAS[0]:
                found += _AT_HALF
        if case.state_dtype == "float64" and case.beta in _BETAS and contracting:
            found.append("implicit-gradient")
    return tuple(found)


def _bitwise_checks(case: Case) -> tuple[str, ...]:
    if case.num_steps != PROBE_STEPS:
        return _BITWISE
    found = [*_BITWISE, "forward", "gradient", "relative-to-unrolled", "rounding-bound"]
    if case.dtype == "float64":
        found += [*_FLOAT64, "bitwise-refusals"]
        # In narrower dtypes the first steps need no tape, and only where m is a power of two are bits whole.
        if case.beta in (0.5, 0.75, 1.25, 1.5):
            found.append("tape-bytes")
    return tuple(found)


def left_out(profile: str) -> tuple[NotMeasured, ...]:
    """What a profile leaves to a larger one, in words."""
    if profile != "quick":
        outside = [NotMeasured(what=f"{name} at beta {beta:g}", why=why) for (name, beta), why in OUTSIDE.items()]
        correlated = [
            NotMeasured(what=f"{name} in {dtype} after {steps} steps", why=why)
            for (name, dtype, steps), why in CORRELATED.items()
        ]
        return (*outside, *correlated)
    beyond = [name for name in problem_names("full") if name not in problem_names("quick")]
    return (
        NotMeasured(what=f"problems {', '.join(beyond)}", why="left to the full profile"),
        NotMeasured(
            what="every problem at beta " + ", ".join(f"{b:g}" for b in _ALL_BETAS if b not in _BETAS),
            why="left to the full profile; the quick one has some of them on some problems",
        ),
        NotMeasured(what="curves beyond 16 steps", why="left to the full profile"),
    )
