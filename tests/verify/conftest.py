"""A run that is real and takes seconds, with a plan of its own: what the gate's tests judge and tamper with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from verify.environment import describe
from verify.gate import judge
from verify.planning import absences, plan
from verify.profiles import Profile
from verify.result import SUBJECT_FILES, FaultRecord, Results
from verify.run.parts import Part
from verify.tasks import EnvelopeTask, GridTask, MethodTask, ProblemTask


SUBJECT = "verify.subject:RevdeqSubject"
"""Our own by another name, so that the run has no studies, which are about revdeq alone."""


@dataclass(frozen=True)
class FewCases(ProblemTask):
    """Some cases of a problem.

    Args:
        kept: dtype of f, of the states, and number of steps of those that are kept.
    """

    kept: tuple[tuple[str, str, int], ...] = ()

    def cases(self):
        return tuple(case for case in super().cases() if (case.dtype, case.state_dtype, case.num_steps) in self.kept)


class FewRates(GridTask):
    """Some cases of the grid, without their curves."""

    def cases(self):
        return tuple(c for c in super().cases() if c.beta == 0.8 or (c.beta, c.dtype) == (1.9, "float64"))

    def curves(self, claims):
        return iter(())

    def measure(self, subject):
        return Part(super().measure(subject).measurements)


class FewReaches(EnvelopeTask):
    """Two settings of the envelope, one of them with a row of how far it reaches."""

    def cases(self):
        return super().cases()[:2]


class FewOfMethod(MethodTask):
    """One case of a method."""

    def cases(self):
        return super().cases()[:1]


METHODS = ("relaxed-tolerance", "reversible-adaptive", "reversible-auto")
"""Together every check of a method."""


@dataclass(frozen=True, kw_only=True)
class SmallProfile(Profile):
    """Every check, and rows with and without power."""

    name: str = "small"
    wide: bool = False
    curve_steps: tuple[int, ...] = (1, 4)

    def tasks(self, devices):
        dyadic = (
            ("float64", "float64", 4),
            ("float64", "float64", 16),
            ("float32", "float64", 4),
            ("float32", "float32", 8),
            ("bfloat16", "bfloat16", 16),
        )
        bounded = (("float32", "float32", 4), ("bfloat16", "bfloat16", 8))
        return (
            *(FewCases("kepler", 0.5, device, self.curve_steps, kept=dyadic) for device in devices),
            *(FewCases("affine-general", 0.8, device, (1,), kept=bounded) for device in devices),
            *(FewOfMethod(method, device) for device in devices for method in METHODS),
            *(task(device) for device in devices for task in (FewRates, FewReaches)),
        )

    def left_out(self):
        return ()


def _selftest(planned):
    """A selftest that shows what it must."""
    return tuple(
        FaultRecord(
            fault=name,
            description=fault.description,
            killed_by=(*sorted(fault.killers), "gate") if fault.expected else (),
            expected=fault.expected,
        )
        for name, fault in planned.faults.items()
    )


@pytest.fixture(scope="session")
def small_plan():
    """Makes the plan of the small profile for what a run says of its devices and its subject."""

    @cache
    def made(devices, subject, absent):
        return plan(SmallProfile(), devices, subject, absent)

    def make(run):
        return made(run.devices, run.subject, absences(run))

    return make


@pytest.fixture(scope="session")
def small(small_plan):
    """(the run, its plan)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        parts = [task.measure(SUBJECT) for task in SmallProfile().tasks(("cpu",))]
    finally:
        torch.set_num_threads(threads)
    run = Results(
        profile=SmallProfile().name,
        command=f"revdeq verify --profile small --subject {SUBJECT} --out run",
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T01:00:00+00:00",
        environment=describe() | {SUBJECT_FILES: {}},
        subject=SUBJECT,
        devices=("cpu",),
        complete=True,
        measurements=tuple(row for part in parts for row in part.measurements),
        curves=tuple(curve for part in parts for curve in part.curves),
    )
    planned = small_plan(run)
    run = replace(run, not_measured=planned.not_measured, selftest=_selftest(planned))
    assert [finding.text() for finding in judge(run, planned).failures] == []
    return run, planned
