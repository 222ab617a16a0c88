"""How many bits of a floating result are right, measured against an enclosure of the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.state_map import greatest_size, largest
from verify.reference.arithmetic import Array
from verify.reference.arithmetic.precision import flint_precision


@dataclass(frozen=True)
class BitsRight:
    """How near one leaf of a floating result is to the truth.

    Attributes:
        leaf: its name.
        bits: -log2 of the greatest error over the leaf's greatest component; a rigorous lower bound. inf where the
            result is exact, -inf where it is not finite.
        index: of the component with the greatest error.
        got: that component of the result.
        expected: the truth there, as a decimal string with its radius.
    """

    leaf: str
    bits: float
    index: tuple[int, ...]
    got: float
    expected: str


def bits_right(leaf: str, got: NDArray[np.float64], truth: Array) -> BitsRight:
    """Compare a leaf with its enclosure: -log2(max |got - truth| / max |truth|), the radius counted as error.

    A leaf that is exactly zero is compared absolutely.

    Args:
        leaf: its name.
        got: the result's values, exactly, as float64.
        truth: balls of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if got.shape != truth.shape:
        raise ValueError(f"the result {leaf} has shape {got.shape} where the certificate has {truth.shape}")
    if got.size == 0:
        return BitsRight(leaf, math.inf, (), 0.0, "")
    values, balls = got.ravel().tolist(), truth.ravel().tolist()
    broken = [place for place, value in enumerate(values) if not math.isfinite(value)]
    if broken:
        return BitsRight(leaf, -math.inf, _index(broken[0], got.shape), values[broken[0]], balls[broken[0]].str(20))
    with flint_precision(256):
        errors = [(arb(value) - ball).abs_upper() for value, ball in zip(values, balls, strict=True)]
        worst = largest(errors)
        scale = greatest_size(truth)
        place = next(number for number, error in enumerate(errors) if error >= worst)
        if worst == 0:
            bits = math.inf
        else:
            bits = -float((worst / (scale if scale > 0 else arb(1))).log().upper()) / math.log(2.0)
    return BitsRight(leaf, bits, _index(place, got.shape), values[place], balls[place].str(20))


def all_bits_right(got: Mapping[str, NDArray[np.float64]], truth: Mapping[str, Array]) -> tuple[BitsRight, ...]:
    """`bits_right` for every leaf of the truth, in its order.

    Raises:
        KeyError: the result lacks a leaf: a gradient that is missing is an error, not a zero.
    """
    for name in truth:
        if name not in got:
            raise KeyError(f"the result has no {name}; a missing gradient is not taken for zero")
    return tuple(bits_right(name, got[name], balls) for name, balls in truth.items())


def worst_of(leaves: tuple[BitsRight, ...]) -> BitsRight:
    """The leaf with the fewest bits right, the first of equals."""
    return min(leaves, key=lambda leaf: leaf.bits)


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(part) for part in np.unravel_index(place, shape)) if shape else ()
