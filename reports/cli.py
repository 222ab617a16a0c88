"""The command line: each command is a function in its own file under `reports/commands`."""

from __future__ import annotations

import typer

from reports.commands.certify import certify
from reports.commands.check import check
from reports.commands.compare import compare
from reports.commands.gate import gate
from reports.commands.ledger import ledger
from reports.commands.merge import merge
from reports.commands.plan import plan
from reports.commands.report import report
from reports.commands.selftest import selftest
from reports.commands.verify import verify


app = typer.Typer(
    name="revdeq",
    help="Verify, judge and show reversible deep equilibrium solvers. Exit status: 0 holds, 1 falls short, "
    "2 could not run.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("verify")(verify)
app.command("gate")(gate)
app.command("merge")(merge)
app.command("report")(report)
app.command("compare")(compare)
app.command("check")(check)
app.command("certify")(certify)
app.add_typer(ledger, name="ledger")
app.command("plan")(plan)
app.command("selftest")(selftest)
