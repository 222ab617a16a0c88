"""Faults of the harness's own references: an oracle that is blunt, wrong, or not as sharp as it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from verify.problems.problem import Problem
from verify.reference import FixedPoint, NStep, n_step
from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.rounding.scale import Differentiation, RoundingScale
from verify.trial.references import References


_WIDE = Multiprecision(60)


class ReferenceInFloat64(References):
    """Rounds the reference to float64 and claims that it did not."""

    name = "reference-in-float64"
    description = "the reference silently falls back to float64"

    def n_step(self, problem: Problem, beta: float, num_steps: int) -> NStep:
        """The right gradient, rounded."""
        right = super().n_step(problem, beta, num_steps)
        return replace(right, gradient={leaf: _rounded(value) for leaf, value in right.gradient.items()})


class ReferenceWithFewDigits(References):
    """Works with 15 digits and says so."""

    name = "reference-with-few-digits"
    description = "the reference has 15 digits, and its own uncertainty says so"

    def n_step(self, problem: Problem, beta: float, num_steps: int) -> NStep:
        """The reference at 15 digits."""
        return n_step(problem, beta, num_steps, 15)


class ReferenceWithWrongTerm(References):
    """Differentiates with one part in 1e12 too much."""

    name = "reference-with-wrong-term"
    description = "the reference's own gradient is wrong by one part in 1e12"

    def n_step(self, problem: Problem, beta: float, num_steps: int) -> NStep:
        """A gradient slightly too large."""
        right = super().n_step(problem, beta, num_steps)
        factor = _WIDE.convert(1 + 2.0**-40)
        return replace(right, gradient={leaf: _WIDE.multiply(value, factor) for leaf, value in right.gradient.items()})


class AnotherFixedPoint(References):
    """Finds another fixed point than the oracle."""

    name = "another-fixed-point"
    description = "the reference's fixed point is a millionth away from the problem's"

    def fixed_point(self, problem: Problem) -> FixedPoint:
        """A fixed point that is none."""
        right = super().fixed_point(problem)
        return replace(right, z_star=_WIDE.multiply(right.z_star, _WIDE.convert(1 + 2.0**-20)))


class ScaleInflated(References):
    """Takes every rounding scale a thousand times too large, so that nothing could ever fail."""

    name = "rounding-scale-inflated"
    description = "the rounding scale is 2^10 times too large, so that every ratio is tiny"

    def rounding_scale(
        self, problem: Problem, beta: float, num_steps: int, differentiation: Differentiation, **roundoff: float
    ) -> RoundingScale:
        """Scales a thousand times too large."""
        right = super().rounding_scale(problem, beta, num_steps, differentiation, **roundoff)
        return RoundingScale(
            forward_z=2.0**10 * right.forward_z,
            forward_y=2.0**10 * right.forward_y,
            reconstruction=tuple(2.0**10 * value for value in right.reconstruction),
            round_trip=tuple(2.0**10 * value for value in right.round_trip),
            gradient={leaf: 2.0**10 * value for leaf, value in right.gradient.items()},
        )


def _rounded(value: Any) -> Any:
    return _WIDE.convert(value.astype(np.float64))


FAULTS = (
    ReferenceInFloat64,
    ReferenceWithFewDigits,
    ReferenceWithWrongTerm,
    AnotherFixedPoint,
    ScaleInflated,
)
