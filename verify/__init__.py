"""The harness: measures equilibrium solvers against references, and judges the measurements.

What stands here reads and judges results, and imports no torch, since the references must not either; what measures is
in `verify.sweep`, `verify.checks` and `verify.subject`, and what makes the plan of a run in `verify.planning`.
"""

from verify.criteria import Criterion as Criterion
from verify.gate import Demands as Demands, Finding as Finding, Judgement as Judgement, judge as judge
from verify.ledger import (
    Ledger as Ledger,
    LedgerError as LedgerError,
    accept as accept,
    read_ledger as read_ledger,
    write_ledger as write_ledger,
)
from verify.plan import Plan as Plan
from verify.result import (
    Curve as Curve,
    FaultRecord as FaultRecord,
    Measurement as Measurement,
    NotMeasured as NotMeasured,
    Results as Results,
    ResultsError as ResultsError,
)
from verify.result_file import read_results as read_results, write_results as write_results


__all__ = [
    "Criterion",
    "Curve",
    "Demands",
    "FaultRecord",
    "Finding",
    "Judgement",
    "Ledger",
    "LedgerError",
    "Measurement",
    "NotMeasured",
    "Plan",
    "Results",
    "ResultsError",
    "accept",
    "judge",
    "read_ledger",
    "read_results",
    "write_ledger",
    "write_results",
]
