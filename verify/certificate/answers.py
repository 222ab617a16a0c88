"""The three answers of a certificate, and the sentence that goes with each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Answer(Enum):
    """What is known about a claim."""

    CERTIFIED = "certified"
    """Proved in ball arithmetic."""
    REFUTED = "refuted"
    """The opposite is proved."""
    UNDECIDED = "undecided"
    """Neither, at the precision at which the search gave up."""


@dataclass(frozen=True)
class Finding:
    """A claim, its answer, and one sentence that says what was proved, or why not and what to do."""

    claim: str
    answer: Answer
    sentence: str
