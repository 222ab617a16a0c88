"""What a check of a user's module says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a claim."""

    HOLDS = "holds"
    FALLS_SHORT = "falls short"
    NOTED = "noted"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one claim.

    Attributes:
        claim: its name, one of `verify.module.CLAIMS`.
        outcome: whether it holds; NOTED where there is nothing to judge, NOT_CHECKED where it could not be judged.
        found: what was measured, in words.
        allowed: what would hold, and why that much.
        advice: what to do; "" where nothing is to be done.
        measured: the number that was judged, in the unit that `found` says; None where there is none.
        replay: the command that checks this claim alone; "" where the module has no name.
    """

    claim: str
    outcome: Outcome
    found: str
    allowed: str
    advice: str = ""
    measured: float | None = None
    replay: str = ""

    def text(self) -> str:
        """One line: the claim, its outcome, what was found and allowed, what to do, and how to replay it."""
        parts = [f"{self.claim} {self.outcome.value}: {self.found}; allowed: {self.allowed}."]
        if self.advice:
            parts.append(f"Do: {self.advice.removesuffix('.')}.")
        if self.replay and self.outcome in (Outcome.FALLS_SHORT, Outcome.NOT_CHECKED):
            parts.append(f"Replay: {self.replay}")
        return " ".join(parts)


def judged(claim: str, holds: bool, found: str, allowed: str, advice: str, measured: float | None = None) -> Finding:
    """A finding that holds or falls short; the advice is for the second case.

    Args:
        claim: name of the claim.
        holds: whether it does; comparisons must be written so that a NaN does not.
        found: what was measured.
        allowed: what would hold, and why.
        advice: what to do if it does not.
        measured: the number that was judged.
    """
    outcome = Outcome.HOLDS if holds else Outcome.FALLS_SHORT
    return Finding(
        claim=claim,
        outcome=outcome,
        found=found,
        allowed=allowed,
        advice="" if holds else advice,
        measured=measured,
    )
