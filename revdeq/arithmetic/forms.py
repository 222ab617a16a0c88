"""The betas for which the half step has a bitwise form, and what their tapes take."""

import math
from typing import NamedTuple

from revdeq.arithmetic.packing import GREATEST_BASE, packed_bits, packed_size


class Form(NamedTuple):
    """beta = 1 - sign/m, so that 1 - beta = sign/m.

    Attributes:
        m: an integer, 2 <= m <= 256.
        sign: +1 for beta < 1, -1 for beta > 1.
    """

    m: int
    sign: int


def bitwise_form(beta: float) -> Form:
    """Return how the bitwise half step divides for this beta.

    Args:
        beta: 1 - 1/m or 1 + 1/m up to two units roundoff, 2 <= m <= 256.

    Raises:
        ValueError: beta has no such form; the sentence names the neighbours that have one.
    """
    m, sign = _nearest_form(beta)
    if abs(beta - (1.0 - sign / m)) <= 2.0**-51:
        return Form(m, sign)
    named = " and ".join(f"1 {'-' if sign > 0 else '+'} 1/{m} = {1.0 - sign / m:.6g}" for m in _nearest(beta))
    raise ValueError(
        f"beta is {beta!r}, which has no bitwise form 1 - 1/m or 1 + 1/m with an integer m from 2 to {GREATEST_BASE}; "
        f"the nearest that {'has' if len(_nearest(beta)) == 1 else 'have'} one: {named}. Or use arithmetic='floating'."
    )


def bitwise_betas(beta: float) -> tuple[float, ...]:
    """Return beta itself where it has a bitwise form, else the one or two on its side of 1 that are nearest to it.

    Args:
        beta: relaxation parameter, 0 < beta < 2, not 1.
    """
    m, sign = _nearest_form(beta)
    if abs(beta - (1.0 - sign / m)) <= 2.0**-51:
        return (beta,)
    return tuple(sorted(1.0 - sign / m for m in _nearest(beta)))


def _nearest_form(beta: float) -> Form:
    return Form(min(max(round(1.0 / abs(1.0 - beta)), 2), GREATEST_BASE), 1 if beta < 1.0 else -1)


def _nearest(beta: float) -> list[int]:
    """Return the one or two m whose betas enclose beta."""
    inverse = 1.0 / abs(1.0 - beta)
    return sorted({min(max(bound, 2), GREATEST_BASE) for bound in (math.floor(inverse), math.ceil(inverse))})


def bits_per_component(beta: float) -> float:
    """Return the bits that the tape takes for one component of y or z and one step, after the steps that need none.

    log2 m where m is 2, 4, 8, 16 or 256, and the next size that packs densely for others: 1.6 for m = 3, 2.333 for 5.
    """
    return packed_bits(bitwise_form(beta).m)


def tape_size(beta: float, num_components: int, num_steps: int, free_steps: int = 0) -> int:
    """Return the bytes of the tape of one sample: both states, each step after the free ones."""
    return 2 * max(0, num_steps - free_steps) * packed_size(num_components, bitwise_form(beta).m)
