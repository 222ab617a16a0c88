"""How wide enclosures are, and whether two of them are of the same numbers."""

from __future__ import annotations

from collections.abc import Iterable

from flint import arb


VANISHES = 2.0**-60
"""A leaf whose numbers are smaller than this, relative to those of all leaves, is measured against all leaves."""


def size_of(balls: Iterable[arb]) -> arb:
    """An upper bound of the greatest absolute value; NaN is greater than all."""
    result = arb(0)
    for ball in balls:
        upper = ball.abs_upper()
        if not upper <= result:
            result = upper
    return result


def scales(gradient: dict[str, list[arb]]) -> dict[str, arb]:
    """For each leaf its greatest number, or that of all leaves where its own vanishes beside it."""
    sizes = {name: size_of(balls) for name, balls in gradient.items()}
    finite = [size for size in sizes.values() if size.is_finite()]
    whole = size_of(finite)
    return {name: size if size > whole * VANISHES or not size.is_finite() else whole for name, size in sizes.items()}


def wide_leaves(gradient: dict[str, list[arb]], digits: int) -> list[str]:
    """The leaves that are not enclosed to so many digits."""
    allowed = arb(10) ** -digits
    every = scales(gradient)
    return [
        name
        for name, balls in gradient.items()
        if not all(ball.is_finite() and ball.rad() <= every[name] * allowed for ball in balls)
    ]


class Agreement:
    """How near two enclosures of the same numbers are.

    Attributes:
        apart: (leaf, index, one, other) where the balls do not meet, or None.
        agree: whether no number can differ by more than 10^-digits of its leaf's scale.
    """

    def __init__(self, own: dict[str, list[arb]], other: dict[str, list[arb]], digits: int) -> None:
        self.apart: tuple[str, int, arb, arb] | None = None
        self.agree = True
        every, allowed = scales(own), arb(10) ** -digits
        for name, balls in own.items():
            for place, (x, y) in enumerate(zip(balls, other[name], strict=True)):
                if not x.overlaps(y) and self.apart is None:
                    self.apart = (name, place, x, y)
                self.agree = self.agree and bool((x - y).abs_upper() <= every[name] * allowed)
