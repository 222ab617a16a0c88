"""What a check is: a claim with its criterion, where it applies, the rows that it gives, the faults it must kill."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

import torch

from verify.case import Case
from verify.criteria import Criterion
from verify.plan import Place
from verify.result import Measurement
from verify.trial.bench import Bench


B = TypeVar("B", bound=Bench)
Topic = Literal["states", "gradients", "bits", "rates", "envelope", "cost", "surroundings", "refusals", "references"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
"""What claims are about, in the order of the tables."""


@dataclass(frozen=True, kw_only=True)
class Check(Generic[B]):
    """One claim, declared by the module that measures it.

    Args:
        name: what rows call it, unique.
        topic: what it is about; tables are sorted by it.
        criterion: how its rows are judged.
        kills: names of the planted faults that it must kill, at least one.
        applies: the cases on which profiles measure it.
        places: the rows that it gives on such a case, whatever the subject does.
        rows: measures a bench; the rows need neither the check's name nor its unit.
    """

    name: str
    topic: Topic
    criterion: Criterion
    kills: tuple[str, ...]
    applies: Callable[[Case], bool]
    places: Callable[[Case], Iterable[Place]]
    rows: Callable[[B], list[Measurement]]

    def measure(self, bench: B) -> list[Measurement]:
        """The rows of one bench.

        Raises:
            Exception: whatever the subject raises.
        """
        return [replace(row, check=self.name, unit=self.criterion.unit) for row in self.rows(bench)]

    def measured(self, bench: B) -> list[Measurement]:
        """The rows of one bench; an exception becomes failed rows that say so, one for each that was planned.

        What a subject leaves switched or advanced is its own fault and not to be the next check's, so grad mode and
        random state are put back.
        """
        random = torch.get_rng_state()
        try:
            with torch.enable_grad():
                return self.measure(bench)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  (whatever a subject raises is a finding, SystemExit too)
            frames = traceback.extract_tb(error.__traceback__)
            place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
            return self.failed(bench, f"{type(error).__name__}: {error}{place}")
        finally:
            torch.set_rng_state(random)

    def failed(self, bench: B, reason: str) -> list[Measurement]:
        """Every planned row of a bench, failed for one reason."""
        return [
            replace(
                bench.row(at.adjoint, target=at.target, leaf=at.leaf, status="failed", reason=reason),
                check=self.name,
                unit=self.criterion.unit,
            )
            for at in self.places(bench.case)
        ]
