"""What is measured of a problem, and by which profile: declared beside the problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias


if TYPE_CHECKING:
    from verify.problems.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What profiles measure of a problem.

    Args:
        quick: whether the quick profile has it; every other one does.
        betas: at which the quick profile measures it besides those that it measures everything at.
        outside: betas at which its iteration leaves the domain on which it is stated, each with the reason.
        correlated: (dtype of f, steps) for which the error model does not hold, each with the reason.
        straight: whether the logarithm of its error falls along a line, so that a rate can be fitted: a defective
            spectrum, or samples of nearly equal rates, bend it.
        targets: whether the approach of the exact to the implicit gradient is fitted.
        bitwise: whether it is solved in integer states too.
        reversible: whether the reversible iteration is measured on it, and not only the methods that it is made for.
    """

    quick: bool = True
    betas: tuple[float, ...] = ()
    outside: Mapping[float, str] = field(default_factory=dict[float, str])
    correlated: Mapping[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    straight: bool = True
    targets: bool = False
    bitwise: bool = False
    reversible: bool = True


Declared: TypeAlias = "Mapping[str, tuple[Callable[[], Problem], Scope]]"
"""What a module of problems declares as `PROBLEMS`: name -> (what makes the problem, what is measured of it)."""
