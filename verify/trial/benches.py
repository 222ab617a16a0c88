"""The bench of a case, whatever it is a case of."""

from __future__ import annotations

from collections.abc import Sequence

from verify.case import Case, CaseError
from verify.claims import SOLVERS
from verify.problems import PROBLEMS, get_problem
from verify.subject import Subject
from verify.trial.bench import Bench
from verify.trial.grid import CONSTANTS, GRID, GridBench
from verify.trial.reach import ENVELOPE, ReachBench, envelope_cases
from verify.trial.references import References
from verify.trial.trial import Trial


def bench_of(
    case: Case,
    subject: Subject,
    options: Sequence[str] = (),
    *,
    references: References | None = None,
    constants: tuple[float, ...] = CONSTANTS,
) -> Bench:
    """What the checks of a case are given.

    Args:
        case: the case.
        subject: what is verified.
        options: what a replay command needs besides the case.
        references: where expected values come from; None for the harness's own.
        constants: contraction constants of the maps, where it is a case of the grid.

    Raises:
        verify.case.CaseError: if the case is of no known problem or solver, or is none of the envelope's.
    """
    require_known(case)
    if case.problem == GRID:
        return GridBench(case, subject, constants, options=tuple(options))
    if case.problem == ENVELOPE:
        return ReachBench(case, subject, options=tuple(options))
    return Trial(case, subject, get_problem(case.problem), references or References(), options=tuple(options))


def require_known(case: Case) -> None:
    """Refuse a case that has no bench.

    Raises:
        verify.case.CaseError: if the case is of no known problem or solver, or is none of the envelope's.
    """
    if case.problem == ENVELOPE:
        known = envelope_cases(case.device)
        if case not in known:
            raise CaseError(f"case {case.id!r} is none of the envelope: give one of {', '.join(c.id for c in known)}.")
    elif case.problem not in (*PROBLEMS, GRID):
        raise CaseError(f"case {case.id!r} is of no known problem: give one of {', '.join(PROBLEMS)}.")
    elif case.solver not in SOLVERS:
        raise CaseError(f"case {case.id!r} is of no known solver: give one of {', '.join(SOLVERS)}.")
