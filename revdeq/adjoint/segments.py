"""How the steps of a reversible solve are cut into segments that reversal can rebuild to the bit.

NOTE [Segments]
f sees a state rounded to its own dtype, p_f significant bits of the p_s that the state has. A half step undone divides
every rounding error by |1 - beta|, so after m steps back about m log2(1 / |1 - beta|) of the p_s - p_f bits between the
two are spoilt; a rebuilt state rounds to what f saw as long as none of its d components lies that near to a boundary of
rounding, which log2(d) more bits make likely. So both states are stored every m steps, m the greatest for which

    m log2(1 / |1 - beta|) <= p_s - p_f - log2(d) - 3,

and reversal starts anew from them. That is a plan and no promise: the promise is kept by fingerprints of what f saw,
see `revdeq.adjoint.anchored`. Where not even one step back meets the plan, as where the states are no wider than f,
what f sees is stored at every evaluation and nothing is undone; and so where it takes no more than the states do.
"""

import math
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

import torch

from revdeq._schedule import Schedule
from revdeq._tree import Leaves


# Two bits for the roundings of a half step and its inverse, one to be on the safe side.
_SPARE_BITS = 3
# y, z and their cotangents: what a reversed pass holds whatever the number of steps.
_STATES = 4


class Segments(NamedTuple):
    """Where the states are stored.

    Attributes:
        starts: the first step of every segment; None where f's inputs are stored at every evaluation instead.
    """

    starts: Sequence[int] | None

    @property
    def stored(self) -> bool:
        """Whether f's inputs are stored at every evaluation."""
        return self.starts is None

    def cut(self, num_steps: int) -> list[range]:
        """Return the steps of each segment, the first segment first.

        Args:
            num_steps: steps taken, at most as many as were planned.
        """
        starts = list(takewhile(lambda n: n < num_steps, self.starts or (0,)))
        return [range(a, b) for a, b in pairwise([*starts, num_steps])]


STORED = Segments(None)


def fixed_segments(length: int, max_steps: int) -> Segments:
    """Return segments of one length; of length 1, stored inputs.

    Args:
        length: steps in a segment, an int >= 1.
        max_steps: greatest number of steps.
    """
    return STORED if length == 1 else Segments(range(0, max(1, max_steps), length))


def planned_segments(
    beta: float | Schedule | None,
    z0: Leaves,
    state_dtypes: Sequence[torch.dtype],
    max_steps: int,
    *,
    by_tolerance: bool,
) -> Segments:
    """Return the segments of NOTE [Segments].

    Args:
        beta: the relaxation parameter or schedule; None where it is not known beforehand.
        z0: leaves of the start state, in f's dtypes.
        state_dtypes: dtypes of the leaves of a state.
        max_steps: number of steps, or the greatest number where tolerances are given.
        by_tolerance: whether fewer may be taken.
    """
    bits = _bits_to_lose(z0, state_dtypes)
    wide = sum(leaf.numel() * dtype.itemsize for leaf, dtype in zip(z0, state_dtypes, strict=True))
    narrow = sum(leaf.numel() * leaf.element_size() for leaf in z0)
    small = not by_tolerance and 2 * max_steps * narrow <= _STATES * wide
    if small or beta is None or bits <= 0:
        return STORED
    if not isinstance(beta, tuple):
        return fixed_segments(max(1, math.floor(bits / _bits_lost(beta))), max_steps)
    starts, lost = [0], 0.0
    for n, pair in enumerate(beta[:max_steps]):
        losing = sum(map(_bits_lost, pair)) / 2
        if n > starts[-1] and lost + losing > bits:
            starts.append(n)
            lost = 0.0
        lost += losing
    return STORED if 2 * len(starts) > max_steps else Segments(tuple(starts))


def _bits_lost(beta: float) -> float:
    return -math.log2(abs(1.0 - beta))


def _bits_to_lose(z0: Leaves, state_dtypes: Sequence[torch.dtype]) -> float:
    components = max(1, sum(leaf.numel() for leaf in z0))
    spare = min(
        math.log2(torch.finfo(leaf.dtype).eps / torch.finfo(dtype).eps)
        for leaf, dtype in zip(z0, state_dtypes, strict=True)
    )
    return spare - math.log2(components) - _SPARE_BITS
