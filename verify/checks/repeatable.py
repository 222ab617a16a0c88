"""Claim: backward repeats, to the bit."""

from __future__ import annotations

from collections.abc import Iterator

from verify.case import Case
from verify.checks._check import Check
from verify.checks._where import probe
from verify.criteria import EXACT_WHY, Criterion
from verify.plan import Place
from verify.reading import DIFFERENCE
from verify.result import Measurement
from verify.trial.pulled import differing, differing_row, pull
from verify.trial.trial import Trial


def places(case: Case) -> Iterator[Place]:
    """A row each."""
    del case
    for leaf in ("second backward", "second solve"):
        yield Place(adjoint="reversible", leaf=leaf, expected=0.0)


def check_repeatable(trial: Trial) -> list[Measurement]:
    """Backward twice: from one graph with retain_graph, and from two solves.

    Returns:
        A row each; `measured` is the number of components that differ in any bit.

    How this can fail: backward consumes or overwrites what it starts from; f is not replayed as it ran; an
    accumulation whose order is not fixed (on a GPU, atomic additions).

    References:
        (A9).
    """
    first, again = pull(trial, [1.0, 1.0], same_graph=True)
    (fresh,) = pull(trial, [1.0])
    return [
        differing_row(trial, "second backward", differing(first, again)),
        differing_row(trial, "second solve", differing(first, fresh)),
    ]


CHECK = Check(
    name="repeatable",
    topic="bits",
    criterion=Criterion(
        claim="two backward passes return the same bits, from one graph and from two",
        comparison="==",
        threshold=0.0,
        why=EXACT_WHY,
        unit="count",
        reading=DIFFERENCE,
    ),
    kills=("second-backward-on-consumed-state",),
    applies=probe,
    places=places,
    rows=check_repeatable,
)
