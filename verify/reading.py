"""How the number that is judged follows from the other columns of its row, so that a row can be recomputed.

A row is redundant on purpose: an edited or confused one contradicts itself. Each check declares one of these readings;
a column that its reading does not name is empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from verify.result import Measurement


UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half the distance from 1 to the next number."""


@dataclass(frozen=True)
class Derived:
    """A number that follows from columns of the same row.

    Args:
        columns: the columns that it is computed from.
        of: their numbers, in this order, to the number.
    """

    columns: tuple[str, ...]
    of: Callable[..., float]

    def __call__(self, row: Measurement) -> float | None:
        """The number that the row should hold; None where a column is empty."""
        values = [getattr(row, column) for column in self.columns]
        return None if any(value is None for value in values) else float(self.of(*values))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the columns of a check's rows are to one another.

    Args:
        formula: `measured` in terms of the columns, as the table of criteria prints it.
        measured: the same, to compute.
        power: how `power` follows from the columns, None where there is none or nothing to compute it from.
        scale: how `scale` follows from others, None where it is predicted.
        also: columns that a row holds besides those of the formula and of `power`.
        slack: largest distance of `measured` from the formula; 0 where a check computes it just so.
        own_reasons: whether a row may lack power for another reason than its columns or that reversal loses the states.
        components: whether `got` and `expected` are the worst component of a leaf, whose RMS error is `error`.
    """

    formula: str
    measured: Derived
    power: Derived | None = None
    scale: Derived | None = None
    also: tuple[str, ...] = ()
    slack: float = 0.0
    own_reasons: bool = False
    components: bool = False

    @property
    def columns(self) -> frozenset[str]:
        """The columns, besides `measured`, that hold a number."""
        of_power = () if self.power is None else ("power", *self.power.columns)
        of_scale = () if self.scale is None else ("scale", *self.scale.columns)
        return frozenset((*self.measured.columns, *of_power, *of_scale, *self.also)) - {"dtype"}


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.nan


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan


def _inverse_amplification(size: float, scale: float, dtype: str) -> float:
    return _over(UNIT_ROUNDOFF[dtype] * size, scale)


def _difference(got: float, expected: float) -> float:
    return abs(got - expected)


def _scaled_difference(got: float, expected: float, scale: float) -> float:
    return _over(abs(got - expected), scale)


def _relative(got: float, expected: float) -> float:
    return abs(got / expected - 1.0) if expected else math.nan


def _log_ratio(got: float, expected: float) -> float:
    return abs(_log(got) - _log(expected))


def _log_ratio_less_doubt(got: float, expected: float, doubt: float) -> float:
    return max(abs(_log(_over(got, expected))) - doubt, 0.0)


def _power(scale: float, size: float) -> float:
    return scale / size if size > 0 else math.inf


POWER = Derived(("scale", "size"), _power)

RATIO = Reading(
    formula="error / scale",
    measured=Derived(("error", "scale"), _over),
    power=POWER,
    also=("got", "expected"),
    components=True,
)
"""RMS of the error over the components of a leaf, in units of its scale."""

STORED = Reading(
    formula="error / scale",
    measured=RATIO.measured,
    power=Derived(("size", "scale", "dtype"), _inverse_amplification),
    also=("error", "got", "expected"),
    own_reasons=True,
    components=True,
)
"""As `RATIO`, with one over the amplification of rounding for its power."""

ERROR = Reading(formula="error / scale", measured=Derived(("error", "scale"), _over))
"""As `RATIO`, where no component is shown."""

DIFFERENCE = Reading(
    formula="|got - expected|",
    measured=Derived(("got", "expected"), _difference),
)

COUNTED = Reading(formula="|got - expected|", measured=DIFFERENCE.measured, power=POWER)
"""As `DIFFERENCE`, where rounding may spoil what is counted."""

KEPT = Reading(formula="|got - expected|", measured=DIFFERENCE.measured, also=("saved_bytes",))
ORDER = Reading(formula="|got - expected|", measured=DIFFERENCE.measured, also=("uncertainty",))

SCALED_DIFFERENCE = Reading(
    formula="|got - expected| / scale",
    measured=Derived(("got", "expected", "scale"), _scaled_difference),
)

POWERED_DIFFERENCE = Reading(formula="|got - expected| / scale", measured=SCALED_DIFFERENCE.measured, power=POWER)

QUOTIENT = Reading(formula="got / expected", measured=Derived(("got", "expected"), _over))

TAPE = Reading(formula="got / expected", measured=QUOTIENT.measured, also=("saved_bytes",))
MAJORANT = Reading(formula="got / expected", measured=QUOTIENT.measured, also=("power",))

BOUND = Reading(formula="got / expected", measured=QUOTIENT.measured, power=Derived(("expected", "size"), _power))
"""An error over its bound, which says something where it is below the size of what is bounded."""

GREATER = Reading(
    formula="got / scale, scale the greater of expected and size",
    measured=Derived(("got", "scale"), _over),
    scale=Derived(("expected", "size"), max),
    also=("power",),
)

RELATIVE = Reading(
    formula="|got / expected - 1|",
    measured=Derived(("got", "expected"), _relative),
)

LOG_RATIO = Reading(
    formula="|ln(got / expected)|",
    measured=Derived(("got", "expected"), _log_ratio),
    slack=2.0**-48,
)
"""`got` is exp of the fitted slope: a few roundings of 2^-53 of logarithms below 10, hence the slack."""

LOG_RATIO_LESS_DOUBT = Reading(
    formula="|ln(got / expected)| less uncertainty, at least 0",
    measured=Derived(
        ("got", "expected", "uncertainty"),
        _log_ratio_less_doubt,
    ),
    also=("power",),
    slack=2.0**-48,
)
