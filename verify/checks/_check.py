"""What a check is: a claim with its criterion, where it applies, the rows that it gives, the faults it must kill."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast, get_args

import torch

from verify.case import Case
from verify.claims import EVERYTHING, Adjoint, Claims, same_gradient
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
        reverses: whether it is about undoing steps, and says nothing of a subject that does not claim to.
        steps: whether it is about the very steps taken, and says nothing of a subject that claims the gradient of
            the fixed point alone.
        needs: adjoints that it asks for besides those of its rows.
    """

    name: str
    topic: Topic
    criterion: Criterion
    kills: tuple[str, ...]
    applies: Callable[[Case], bool]
    places: Callable[[Case], Iterable[Place]]
    rows: Callable[[B], list[Measurement]]
    reverses: bool = False
    steps: bool = False
    needs: tuple[Adjoint, ...] = ()

    def claimed(self, case: Case, claims: Claims) -> dict[Place, Place]:
        """The rows that it gives of a subject that claims so much, each by the row that it is of one that claims all.

        What is said of states, or of a gradient, is said of the adjoint that a subject has in the place of the one
        that is meant, once. Costs belong to the very adjoint. The rest falls away.
        """
        beyond = (self.reverses and not claims.reversible) or (self.steps and not claims.exact)
        if beyond or not claims.has(case) or set(self.needs) - set(claims.adjoints):
            return {}
        places = list(self.places(case))
        if claims == EVERYTHING:
            return {place: place for place in places}
        found = {place: place for place in places if not place.adjoint or place.adjoint in claims.adjoints}
        for place in places:
            if place not in found:
                adjoint = claims.stand_in(cast("Adjoint", place.adjoint))
                moved = replace(place, adjoint=adjoint)
                meant = self.topic == "states" or (self.topic != "cost" and same_gradient(adjoint, place.adjoint))
                if meant and moved not in found.values():
                    found[place] = moved
        return found

    def measure(self, bench: B) -> list[Measurement]:
        """The rows of one bench that its subject claims.

        Raises:
            Exception: whatever the subject raises.
        """
        rows = [replace(row, check=self.name, unit=self.criterion.unit) for row in self.rows(bench)]
        if bench.claims == EVERYTHING:
            return rows
        names = {
            (place.adjoint, place.target, place.leaf): moved.adjoint
            for place, moved in self.claimed(bench.case, bench.claims).items()
        }
        keys = [(row.adjoint, row.target, row.leaf) for row in rows]
        return [replace(row, adjoint=names[key]) for row, key in zip(rows, keys, strict=True) if key in names]

    def measured(self, bench: B) -> list[Measurement]:
        """The rows of one bench; an exception becomes failed rows that say so, one for each that was planned.

        What a subject leaves switched or advanced is its own fault and not to be the next check's, so grad mode and
        random state are put back.
        """
        if not self.claimed(bench.case, bench.claims):
            return []
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
            for at in self.claimed(bench.case, bench.claims).values()
        ]
