"""The second oracle: the reference's gradient against finite differences of its own forward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Array
from verify.reference.finite_differences import (
    Target,
    default_direction,
    default_leaf_direction,
    finite_differences,
)
from verify.reference.fixed_point import fixed_point
from verify.reference.n_step import n_step


if TYPE_CHECKING:
    from verify.problems.problem import Problem


@dataclass(frozen=True)
class Agreement:
    """How far two oracles that share no differentiation code are apart.

    Args:
        disagreement: |<gradient, d> - finite difference| for the direction d.
        scale: sum over leaves of |<gradient_leaf, d_leaf>|, what the disagreement is to be measured by.
        uncertainty: what the two oracles claim together: the gradient's uncertainty times |d|_1 plus the difference's
            error estimate.
    """

    disagreement: float
    scale: float
    uncertainty: float

    @property
    def relative(self) -> float:
        """Disagreement over scale; the two must agree to 2^-10 of what they judge, usually they do to 1e-20."""
        return self.disagreement / self.scale if self.scale else self.disagreement


def agreement(
    problem: Problem,
    beta: float,
    num_steps: int,
    *,
    target: Target = "n-step",
    digits: int = 50,
    gradient: Mapping[str, Array] | None = None,
    leaf: str | None = None,
) -> Agreement:
    """How far the reference's gradient is from finite differences of its own forward pass.

    The two share the forward arithmetic and no line of differentiation code: a wrong VJP rule, a term of the adjoint
    recursion that is missing, a wrong sign or a wrong solve all show. The direction is random, so the faults that it
    would miss have measure zero.

    Args:
        problem: the problem.
        beta: relaxation parameter (not used for the fixed point).
        num_steps: N (not used for the fixed point).
        target: whose gradient: "n-step" or "fixed-point".
        digits: working precision.
        gradient: leaf -> array, another gradient to compare instead of the reference's own.
        leaf: move this leaf alone (to say which one is wrong); by default all at once.

    Returns:
        Agreement; the caller judges it.

    Raises:
        ValueError: an unknown target or leaf.
    """
    if leaf is not None and leaf not in problem.leaves:
        raise ValueError(f"{problem.name} has no leaf {leaf!r}; choose among {', '.join(problem.leaves)}")
    direction = default_direction(problem) if leaf is None else default_leaf_direction(problem, leaf)
    moved = None if leaf is None else direction
    difference = finite_differences(problem, beta, num_steps, target, moved, digits)
    reference = n_step(problem, beta, num_steps, digits) if target == "n-step" else fixed_point(problem, digits)
    judged = reference.gradient if gradient is None else gradient
    at = Multiprecision(2 * digits)
    products = {
        name: at.sum(at.multiply(at.convert(judged[name]), at.convert(along)))[()] for name, along in direction.items()
    }
    total = sum(products.values(), start=at.context.zero)
    claimed = sum(reference.uncertainty[name] * float(np.sum(np.abs(along))) for name, along in direction.items())
    return Agreement(
        disagreement=abs(float(total - at.convert(difference.value)[()])),
        scale=math.fsum(abs(float(product)) for product in products.values()),
        uncertainty=claimed + difference.error_estimate,
    )
