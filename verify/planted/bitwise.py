"""Faults of the iteration on integers, each in a solver that is otherwise honest."""

from __future__ import annotations

from verify.planted import integers
from verify.planted.base import Honest


class NaiveReversal(Honest):
    """Reverses in floating-point numbers."""

    name = "naive-reversal-as-bitwise"
    description = "reversal in floating-point arithmetic calls itself bitwise"
    integers = integers.FloatingReversal()


class RemaindersDropped(Honest):
    """Forgets the remainders."""

    name = "remainders-dropped"
    description = "integer states are undone without their remainders"
    integers = integers.RemaindersDropped()


class RemaindersInBytes(Honest):
    """Does not pack the remainders."""

    name = "remainders-not-packed"
    description = "a remainder of log2 m bits takes a byte"
    integers = integers.RemaindersInBytes()


class RoundingDifferentiated(Honest):
    """Does not treat rounding as the identity."""

    name = "derivative-of-rounding"
    description = "the derivative of floor is taken to be zero in backward"
    integers = integers.RoundingDifferentiated()


class OverflowWraps(Honest):
    """Does not look at the range."""

    name = "overflow-unnoticed"
    description = "integers that leave their range are not noticed"
    integers = integers.OverflowWraps()


class ReplayNotCompared(Honest):
    """Does not look at where reversal ends."""

    name = "replay-not-compared"
    description = "a function that does not repeat to the bit is not noticed"
    integers = integers.ReplayNotCompared()


class EveryBetaTaken(Honest):
    """Does not look at beta."""

    name = "beta-without-bitwise-form"
    description = "a beta that integers cannot do is rounded to one that they can"
    integers = integers.EveryBetaTaken()


FAULTS = (
    NaiveReversal,
    RemaindersDropped,
    RemaindersInBytes,
    RoundingDifferentiated,
    OverflowWraps,
    ReplayNotCompared,
    EveryBetaTaken,
)
