"""Everything that one report is made from: the runs with their judgements, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from verify.gate import Finding, Judgement
from verify.result import Curve, FaultRecord, Measurement, NotMeasured, Results


@dataclass(frozen=True)
class Run:
    """One results file and its verdict.

    Args:
        label: short name of the run, unique in the report.
        results: what was measured.
        judgement: what the gate says of it.
        recorded: True for evidence that was recorded on another machine and did not come with this command.
    """

    label: str
    results: Results
    judgement: Judgement
    recorded: bool = False

    @property
    def holds(self) -> bool:
        """Whether the gate says "holds" and nothing else."""
        return self.judgement.verdict == "holds"


@dataclass(frozen=True)
class Dossier:
    """The runs of a report.

    Args:
        runs: at least one run.
        remarks: what a reader must know about how the runs fit together, one sentence each.
    """

    runs: tuple[Run, ...]
    remarks: tuple[str, ...] = ()

    @cached_property
    def holds(self) -> bool:
        """Whether every run holds; a report without a run does not."""
        return bool(self.runs) and all(run.holds for run in self.runs)

    @cached_property
    def findings(self) -> tuple[tuple[Run, Finding], ...]:
        """Every finding with its run."""
        return tuple((run, finding) for run in self.runs for finding in run.judgement.findings)

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every row of every run."""
        return tuple(row for run in self.runs for row in run.results.measurements)

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """Every line of every run."""
        return tuple(curve for run in self.runs for curve in run.results.curves)

    @cached_property
    def selftest(self) -> tuple[FaultRecord, ...] | None:
        """The planted faults of the runs that ran the selftest; None where none did."""
        records = [run.results.selftest for run in self.runs if run.results.selftest is not None]
        return tuple(record for part in records for record in part) if records else None

    def not_measured(self) -> Iterator[tuple[Run, NotMeasured]]:
        """What each run left out."""
        for run in self.runs:
            for item in run.results.not_measured:
                yield run, item

    def named(self, name: str) -> tuple[Curve, ...]:
        """The lines of one kind, such as "convergence"."""
        return tuple(curve for curve in self.curves if curve.name == name)
