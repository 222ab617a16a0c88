"""Claim: cotangents of the bitwise reversal are those of the unrolled iteration."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import bitwise
from verify.criteria import Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.subject import Adjoint
from verify.trial.bits import bits_row, differing_states
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row each."""
    del case
    for leaf in ("cotangents that enter f", "z0"):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


def check_bitwise_cotangents(trial: Trial) -> list[Measurement]:
    """Compare every cotangent of the reversed pass with that of the unrolled iteration in the same arithmetic.

    Returns:
        A row for the cotangents that enter f's vector-Jacobian products and one for the gradient of z0; `measured` is
        the number of components that differ in any bit.

    How this can fail: a derivative of the rounding that is not the identity, a factor rounded, sums in another order.
    Gradients of parameters are sums over steps, which "gradient" judges: they are not rounded as autograd rounds them.

    References:
        (T8).
    """
    adjoints: tuple[Adjoint, ...] = ("reversible", "unrolled")
    reversible, unrolled = (trial.observe(adjoint) for adjoint in adjoints)
    pairs = [
        (
            "cotangents that enter f",
            differing_states(unrolled.cotangents, reversible.cotangents),
        ),
        (
            "z0",
            differing_states(
                *([] if g is None else [g] for g in (unrolled.gradients.get("z0"), reversible.gradients.get("z0")))
            ),
        ),
    ]
    return [bits_row(trial, leaf, count) for leaf, count in pairs]


CHECK = Check(
    name="bitwise-cotangents",
    topic="bits",
    criterion=Criterion(
        claim="every cotangent of the bitwise reversal is that of the unrolled iteration in the same arithmetic",
        comparison="==",
        threshold=0.0,
        why="vector-Jacobian products of one function at the same states, in the same order",
        unit="count",
        reading=DIFFERENCE,
        observed="args",
    ),
    kills=("derivative-of-rounding",),
    applies=bitwise,
    places=places,
    rows=check_bitwise_cotangents,
    reverses=True,
)
