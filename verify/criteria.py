"""What a criterion is, and the few numbers that limits are made of; each check declares its own (`verify.checks`).

Thresholds are ratios, counts and bits. R is |measured - reference| over the spread that rounding alone gives the same
algorithm (docs/theory.md), so that one threshold serves every dtype, device and beta.

References:
    Dtype-free test ratios with one threshold are LAPACK's practice: LAPACK Working Note 41 (Installation Guide).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from verify.reading import Reading


Comparison = Literal["<=", ">=", "=="]

RATIO_LIMIT = 10.0
REFERENCE_SHARE = 2.0**-10
LOGIC_POWER = 2.0**-20
ROUNDING_POWER = 2.0**-3
EFFECTIVE_SHARE = 2.0 / 3.0
SELDOM = 1.0 / 16.0
"""Share of rows that must have power where theory, and no choice of cases, says at which of them a claim bites."""

RATIO_WHY = (
    "R is 1 on average by construction; over 44 problems and three dtypes it stayed in [.03, 3.7], so 10 is slack"
)
EXACT_WHY = "the two sides are the same operations on the same numbers, so they agree to the last bit"


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How the rows of one check are judged.

    Args:
        claim: what a passing row says, in words.
        comparison: how `measured` is compared with the threshold.
        threshold: the number it is compared with.
        why: where the threshold comes from.
        unit: of `measured`.
        reading: how `measured` follows from the other columns of a row.
        power: largest `power` at which a row counts, None where every row does.
        effective: smallest share of the planned rows that must have power.
        logic: whether two thirds of the planned float64 rows must see a relative fault of 2^-20.
        reference: whether the rows carry a reference's uncertainty, at most 2^-10 of what it judges (A0).
        shared: whether a problem, a beta and a number of steps have one reference, or every case its own.
        observed: whose cost the rows carry (evaluations, VJPs, bytes, seconds): "args" that of observing their case and
            adjoint, "binding" that of the binding with which their leaf begins; None where they carry none.
        notes: whether a measured row says something in its `reason`.
    """

    claim: str
    comparison: Comparison
    threshold: float
    why: str
    unit: str
    reading: Reading
    power: float | None = None
    effective: float = EFFECTIVE_SHARE
    logic: bool = False
    reference: bool = False
    shared: bool = True
    observed: Literal["args", "binding"] | None = None
    notes: bool = False


def holds(comparison: Comparison, measured: float, threshold: float) -> bool:
    """Whether `measured` meets the threshold; False for NaN, whatever the comparison."""
    if comparison == "<=":
        return measured <= threshold
    if comparison == ">=":
        return measured >= threshold
    return measured == threshold
