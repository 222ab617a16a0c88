"""The gate: the only place that judges. A pure function from results and plan to a verdict, closed unless all is shown.

NaN, None, a row that contradicts itself, one that is missing, surplus or there twice, a skipped or failed one, a
reference that is not sharp enough, an interrupted run, a field of the run that no run writes, a fault that survives:
each is a finding, and one failed finding closes the gate. A row without power is counted and is never a pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from verify.judge.faults import judge_faults
from verify.judge.finding import Finding as Finding, Judgement as Judgement, Verdict as Verdict, about_run
from verify.judge.relations import judge_relations
from verify.judge.row import judge_row as judge_row
from verify.judge.run import Demands as Demands, judge_run
from verify.judge.whole import judge_spread, judge_whole
from verify.ledger import Ledger
from verify.plan import Plan, row_key
from verify.result import Results


NO_DEMANDS = Demands()


def judge(results: Results, plan: Plan, ledger: Ledger | None = None, demands: Demands = NO_DEMANDS) -> Judgement:
    """Judge a run.

    Args:
        results: what the run measured.
        plan: what it must hold (`verify.planning.plan_of`).
        ledger: what earlier runs showed; None where the run stands for itself.
        demands: what is asked of it besides.

    Returns:
        The verdict: "holds" only if every row with power passes and the run is whole.

    Raises:
        verify.ledger.LedgerError: if the ledger was recorded from this very run.
    """
    rows = [judge_row(row, plan.criteria, plan.rows.get(row_key(row))) for row in results.measurements]
    run = [
        *judge_run(results, plan, demands),
        *judge_whole(results, plan),
        *judge_relations(results.measurements, plan),
        *judge_spread(results.measurements, plan.criteria),
        *judge_faults(results.selftest, plan),
        *_judge_ledger(results, ledger),
    ]
    findings = (*rows, *run)
    selftest = results.selftest or ()
    totals = {
        "measured": sum(row.status == "measured" for row in results.measurements),
        "passed": sum(finding.passed is True for finding in rows),
        "failed": sum(finding.passed is False for finding in rows),
        "no-power": sum(finding.passed is None for finding in rows),
        "checks": len({row.check for row in results.measurements}),
        "cases": len({row.case for row in results.measurements}),
        "faults": sum(record.expected for record in selftest),
        "killed": sum(record.expected and bool(record.killed_by) for record in selftest),
    }
    open_gate = bool(rows) and not any(finding.passed is False for finding in findings)
    return Judgement(verdict="holds" if open_gate else "falls short", findings=findings, totals=totals)


def _judge_ledger(results: Results, ledger: Ledger | None) -> Iterator[Finding]:
    for case, why in [] if ledger is None else ledger.worse(results):
        yield about_run("ledger", "no case worse than recorded", f"{case} {why}".strip())
