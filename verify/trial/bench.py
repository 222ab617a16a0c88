"""What every check is given: a case and the subject, and the rows that are written about them."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from verify.case import Case
from verify.claims import Claims, claims_of
from verify.result import Measurement
from verify.subject import Subject


@dataclass
class Bench:
    """One case with the subject on it.

    Args:
        case: the setting.
        subject: what is verified.
        options: what a replay command needs besides the case, such as ("--subject", "package.module").
    """

    case: Case
    subject: Subject
    options: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def claims(self) -> Claims:
        """What the subject claims."""
        return claims_of(self.subject)

    def generator(self, label: str) -> np.random.Generator:
        """A generator seeded by the case and the label, the same in every run and every process."""
        digest = hashlib.sha256(f"{self.case.id} {label}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def row(self, adjoint: str = "", **fields: Any) -> Measurement:
        """A row about this case; the check that measures it puts its name and unit to it."""
        row = Measurement(check="", replay=replay_command(self.case.id, self.options), **case_columns(self.case))
        return replace(row, adjoint=adjoint, **fields)


def case_columns(case: Case) -> dict[str, Any]:
    """The columns of a row that its case says."""
    return {
        "case": case.id,
        "problem": case.problem,
        "solver": case.solver,
        "beta": case.beta,
        "num_steps": case.num_steps,
        "dtype": case.dtype,
        "state_dtype": case.state_dtype,
        "device": case.device,
    }


def replay_command(case: str, options: tuple[str, ...] = ()) -> str:
    """The command that measures a case again.

    Args:
        case: its id.
        options: what it needs besides.
    """
    return " ".join(["revdeq verify --only", shlex.quote(case), *map(shlex.quote, options), "--out replay"])


def subject_options(subject: str) -> tuple[str, ...]:
    """What the command that measures a case again needs to find the subject."""
    return () if subject == "revdeq" else ("--subject", subject)
