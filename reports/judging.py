"""Runs judged by their own plans, for what reads results alone.

A plan is made from the problems, so that judging loads torch; importing this module does not.
"""

from __future__ import annotations

from verify.gate import NO_DEMANDS, Demands, Judgement, judge
from verify.ledger import Ledger
from verify.result import Results


def judged(results: Results, ledger: Ledger | None = None, demands: Demands = NO_DEMANDS) -> Judgement:
    """What the gate says of a run.

    Args:
        results: the run.
        ledger: what earlier runs showed, if anything.
        demands: what is asked of it besides its plan.
    """
    from verify.planning import plan_of

    return judge(results, plan_of(results), ledger, demands)
