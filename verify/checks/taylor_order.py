"""Claim: the Taylor remainder with this gradient is of second order."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import ORDER
from verify.reference import TooFewPoints, fitted_order, taylor_remainders
from verify.result import Measurement
from verify.trial.directions import VALUE_ROUNDOFF, loss_along, slope_along
from verify.trial.trial import Trial, cost


STEPS = tuple(2.0**-power for power in range(7, 23))


def places(case: Case) -> Iterator[Place]:
    """One row."""
    del case
    yield Place(adjoint="reversible", target="n-step", leaf="all leaves", expected=2.0)


def check_taylor_order(trial: Trial) -> list[Measurement]:
    """Fit the order of the first-order Taylor remainder with the subject's gradient.

        R1(h) = |L(x + h d) - L(x) - h <g, d>| = O(h^2),      measured |order - 2|

    Returns:
        One row; "failed" where a leaf got no gradient or too few remainders stand above round-off.

    How this can fail: a wrong gradient (order 1). A right one fails where the second derivative along d vanishes (order
    3) or where f has a kink near x.

    References:
        Farrell, Ham, Funke, Rognes, DOI 10.1137/120873558, section 4.1.
    """
    slope = slope_along(trial)
    if isinstance(slope, str):
        return CHECK.failed(trial, slope)
    loss = loss_along(trial)
    table = taylor_remainders(loss, slope, STEPS)
    try:
        fit = fitted_order(table.h, table.r1, floor=VALUE_ROUNDOFF * abs(loss(0.0)))
    except TooFewPoints as error:
        return CHECK.failed(trial, str(error))
    return [
        trial.row(
            "reversible",
            leaf="all leaves",
            target="n-step",
            got=fit.order,
            expected=2.0,
            measured=abs(fit.order - 2.0),
            uncertainty=fit.uncertainty,
            **cost(trial.observe("reversible")),
        )
    ]


CHECK = Check(
    name="taylor-order",
    topic="gradients",
    criterion=Criterion(
        claim="the first-order Taylor remainder with this gradient is of second order",
        comparison="<=",
        threshold=0.05,
        why="a wrong gradient leaves order 1; the order is fitted where h spans decades above round-off",
        unit="order",
        reading=ORDER,
        observed="args",
    ),
    kills=("decay-missing-on-y", "start-lost"),
    applies=probe,
    places=places,
    rows=check_taylor_order,
)
