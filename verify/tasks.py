"""What one worker measures in one go: a task is an object that names itself and measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from revdeq.rates import spectral_rate
from verify.case import BITWISE, Case
from verify.checks import checks_for
from verify.checks._where import PROBE_STEPS
from verify.claims import Claims, claims_of
from verify.curves import MEMORY_ADJOINTS, PRECISIONS as PRECISIONS, measure_curves, planned_curves
from verify.plan import CurveKey, PlannedCurve
from verify.planted.selftest import selftest
from verify.problems import get_problem
from verify.result import Curve, Measurement
from verify.rounding.census import has_bitwise_form
from verify.run.parts import Part
from verify.studies.registry import measure_study
from verify.subject import Subject, load_subject
from verify.trial import Trial
from verify.trial.asked import method_cases
from verify.trial.bench import Bench, subject_options
from verify.trial.benches import bench_of
from verify.trial.grid import GRID, GridBench, grid_cases, grid_curves, planned_grid_curves
from verify.trial.reach import ENVELOPE, ReachBench, envelope_cases


STEPS = (1, 2, 4, 8, 16)
BITWISE_DTYPES = ("float64", "float32", "bfloat16", "float16")
BITWISE_STEPS = (PROBE_STEPS, 32)
"""Few steps, where references judge, and many, where the bits alone do: no floating-point reversal reaches so deep."""


class Task(Protocol):
    """What every task has. Tasks are frozen, so that they are keys, and travel to worker processes."""

    @property
    def name(self) -> str:
        """What the progress line says; unique within a run."""
        ...

    @property
    def weight(self) -> int:
        """How long it takes, roughly; what takes longest begins first, so that no worker is left alone with it."""
        ...

    def cases(self) -> tuple[Case, ...]:
        """The cases whose rows the gate judges."""
        ...

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """The curves that it gives of a subject and the gate asks for; those of a study are known by name alone.

        Args:
            claims: what the subject claims.
        """
        ...

    def measure(self, subject: str) -> Part:
        """Measure it all.

        Args:
            subject: name of the subject.
        """
        ...


@dataclass(frozen=True)
class ProblemTask:
    """All cases of a problem and a beta, which share the reference trajectory, and their curves.

    Args:
        problem: name of the problem.
        beta: relaxation parameter.
        device: device type.
        curve_steps: step counts at which curves have points.
    """

    problem: str
    beta: float
    device: str
    curve_steps: tuple[int, ...]

    @property
    def name(self) -> str:
        """As `Task.name`."""
        return f"{self.problem} beta={self.beta:g} {self.device}"

    @property
    def weight(self) -> int:
        """As `Task.weight`: the work of a reference grows with the components of a state."""
        return get_problem(self.problem).z0.size

    def cases(self) -> tuple[Case, ...]:
        """As `Task.cases`."""
        scope = get_problem(self.problem).scope
        floating = [
            Case(self.problem, self.beta, steps, dtype, state_dtype, self.device)
            for dtype, state_dtype in PRECISIONS
            for steps in STEPS
            if (dtype, steps) not in scope.correlated
        ]
        integer = [
            Case(self.problem, self.beta, steps, dtype, "float64", self.device, solver=BITWISE)
            for dtype in BITWISE_DTYPES
            for steps in BITWISE_STEPS
            if scope.bitwise and has_bitwise_form(self.beta) and self._stays_in_range()
        ]
        return (*floating, *integer)

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """As `Task.curves`: they compare the reversible with the implicit gradient, where both are claimed."""
        if not _drawn(claims):
            return iter(())
        return planned_curves(self.problem, self.beta, self.device, self.curve_steps)

    def measure(self, subject: str) -> Part:
        """As `Task.measure`."""
        measured = load_subject(subject)
        trials = _Trials(measured, subject_options(subject))
        curves: list[Curve] = []
        if _drawn(claims_of(measured)):
            curves = measure_curves(self.problem, self.beta, self.device, self.curve_steps, trials, judged=STEPS)
        return Part(tuple(row for case in self.cases() for row in measure_case(trials(case))), tuple(curves))

    def _stays_in_range(self) -> bool:
        """Whether a linear map converges: states that grow for 32 steps leave every range of integers."""
        eigenvalues = get_problem(self.problem).eigenvalues
        return eigenvalues is None or float(spectral_rate(torch.from_numpy(eigenvalues), self.beta).max()) < 1


@dataclass(frozen=True)
class MethodTask:
    """One method, wherever it is measured.

    Args:
        method: its name.
        device: device type.
    """

    method: str
    device: str

    @property
    def name(self) -> str:
        """As `Task.name`."""
        return f"{self.method} {self.device}"

    @property
    def weight(self) -> int:
        """As `Task.weight`."""
        return 0

    def cases(self) -> tuple[Case, ...]:
        """As `Task.cases`."""
        return method_cases(self.method, self.device)

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """As `Task.curves`: none."""
        del claims
        return iter(())

    def measure(self, subject: str) -> Part:
        """As `Task.measure`."""
        trials = _Trials(load_subject(subject), subject_options(subject))
        return Part(tuple(row for case in self.cases() for row in measure_case(trials(case))))


@dataclass(frozen=True)
class GridTask:
    """The rates of every map of the grid.

    Args:
        device: device type.
    """

    device: str

    @property
    def name(self) -> str:
        """As `Task.name`."""
        return f"{GRID} {self.device}"

    @property
    def weight(self) -> int:
        """As `Task.weight`."""
        return 0

    def cases(self) -> tuple[Case, ...]:
        """As `Task.cases`."""
        return grid_cases(self.device)

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """As `Task.curves`."""
        return planned_grid_curves(self.device) if self._measured(claims) else iter(())

    def measure(self, subject: str) -> Part:
        """As `Task.measure`."""
        benches = [GridBench(case, load_subject(subject), options=subject_options(subject)) for case in self.cases()]
        rows = tuple(row for bench in benches for row in measure_case(bench))
        curves = grid_curves([bench.made for bench in benches if bench.made is not None])
        return Part(rows, tuple(curves) if self._measured(claims_of(load_subject(subject))) else ())

    def _measured(self, claims: Claims) -> bool:
        return all(map(claims.has, self.cases()))


@dataclass(frozen=True)
class EnvelopeTask:
    """The envelope, held against the subject.

    Args:
        device: device type.
    """

    device: str

    @property
    def name(self) -> str:
        """As `Task.name`."""
        return f"{ENVELOPE} {self.device}"

    @property
    def weight(self) -> int:
        """As `Task.weight`."""
        return 0

    def cases(self) -> tuple[Case, ...]:
        """As `Task.cases`."""
        return envelope_cases(self.device)

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """As `Task.curves`: none."""
        del claims
        return iter(())

    def measure(self, subject: str) -> Part:
        """As `Task.measure`."""
        benches = [ReachBench(case, load_subject(subject), options=subject_options(subject)) for case in self.cases()]
        return Part(tuple(row for bench in benches for row in measure_case(bench)))


@dataclass(frozen=True)
class StudyTask:
    """A study, which gives curves alone.

    Args:
        study: name of one of `verify.studies.STUDIES`.
        profile: name of the profile, which says how wide it is.
    """

    study: str
    profile: str

    @property
    def name(self) -> str:
        """As `Task.name`."""
        return f"{self.study} cpu"

    @property
    def weight(self) -> int:
        """As `Task.weight`."""
        return 1_000

    def cases(self) -> tuple[Case, ...]:
        """As `Task.cases`: none."""
        return ()

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """As `Task.curves`: none."""
        del claims
        return iter(())

    def measure(self, subject: str) -> Part:
        """As `Task.measure`."""
        return Part((), tuple(measure_study(self.study, self.profile, subject)))


@dataclass(frozen=True)
class SelftestTask:
    """Every planted fault, whatever the subject."""

    @property
    def name(self) -> str:
        """As `Task.name`."""
        return "selftest"

    @property
    def weight(self) -> int:
        """As `Task.weight`."""
        return 10_000

    def cases(self) -> tuple[Case, ...]:
        """As `Task.cases`: none."""
        return ()

    def curves(self, claims: Claims) -> Iterator[tuple[CurveKey, PlannedCurve]]:
        """As `Task.curves`: none."""
        del claims
        return iter(())

    def measure(self, subject: str) -> Part:
        """As `Task.measure`."""
        del subject
        return Part((), (), selftest())


def _drawn(claims: Claims) -> bool:
    """Whether the curves of a problem can be drawn, which show reversible and implicit gradients in every dtype."""
    dtypes = {dtype for dtype, _ in PRECISIONS} <= set(claims.dtypes) and claims.wider_states
    return dtypes and "reversible" in claims.solvers and {"reversible", *MEMORY_ADJOINTS} <= set(claims.adjoints)


def measure_case(bench: Bench) -> list[Measurement]:
    """The rows of every check that applies to the bench's case."""
    return [row for check in checks_for(bench.case) for row in check.measured(bench)]


def replay(case: Case, subject: str) -> list[Measurement]:
    """Measure one case again.

    Args:
        case: the case.
        subject: name of the subject.

    Raises:
        verify.case.CaseError: if the case is of no known problem, or is none of the envelope's.
    """
    return measure_case(bench_of(case, load_subject(subject), subject_options(subject)))


class _Trials:
    """Trials by case, each made once, so that what the checks observed is not observed again for the curves."""

    def __init__(self, subject: Subject, options: tuple[str, ...]) -> None:
        self._subject = subject
        self._options = options
        self._made: dict[Case, Trial] = {}

    def __call__(self, case: Case) -> Trial:
        if case not in self._made:
            self._made[case] = Trial(case, self._subject, get_problem(case.problem), options=self._options)
        return self._made[case]
