"""python-flint's one global precision, borrowed for the length of an operation and always given back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import flint


@contextmanager
def flint_precision(bits: int) -> Generator[None]:
    """Let python-flint round to `bits` bits inside the block, and restore what was there however the block is left.

    Args:
        bits: significand length of the midpoints, at least 2.
    """
    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        yield
    finally:
        flint.ctx.prec = before


def checked_bits(bits: int) -> int:
    """The given working precision, if it is one.

    Raises:
        TypeError: bits is not an int.
        ValueError: bits < 2.
    """
    if isinstance(bits, bool) or not isinstance(bits, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"bits is {bits!r}; it must be an int, the working precision of the balls")
    if bits < 2:
        raise ValueError(f"bits is {bits}; a ball needs at least 2 bits (128 is a usual choice)")
    return bits
