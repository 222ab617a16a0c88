"""What to certify and how hard to try, validated where it is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


Progress = Callable[[str], None]
"""Called with the name of a stage when it begins, and with "stage: how far" now and then within it."""


def silent(stage: str) -> None:
    """Progress that nobody looks at."""
    del stage


@dataclass(frozen=True)
class Settings:
    """How a certificate is made.

    Args:
        beta: relaxation parameter, in (0, 2) without 1.
        num_steps: N, at least 0.
        digits: decimal digits that every enclosure must have, relative to the leaf's greatest component.
        max_bits: working precision at which the search gives up.
        dtypes: in which torch is run.
        devices: on which torch is run; those that are not there are listed as not run.
        samples: how many samples of the batch to take, or None for all, fewer if that is too large.
        max_width: components per sample up to which the fixed point is certified (one VJP in balls for each).
        max_components: components of the whole state up to which N steps are certified; beyond it one direction is.
        cotangent_z: dL/dz, a tensor or pytree like z0, or None for seeded multiples of 1/8.
        cotangent_y: dL/dy_N, likewise, or None for zero.
        progress: called with a few words when a stage begins.

    Raises:
        TypeError, ValueError: a value is not as said above.
    """

    beta: float = 0.5
    num_steps: int = 8
    digits: int = 30
    max_bits: int = 2048
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.bfloat16)
    devices: tuple[str, ...] = ("cpu",)
    samples: int | None = None
    max_width: int = 320
    max_components: int = 4096
    cotangent_z: Any = None
    cotangent_y: Any = None
    progress: Progress = field(default=silent)

    def __post_init__(self) -> None:
        if not (0 < self.beta < 2) or self.beta == 1:
            raise ValueError(f"beta is {self.beta!r}; it must be in (0, 2) and not 1, where a step cannot be undone")
        for name, least in (("num_steps", 0), ("digits", 1), ("max_bits", 64), ("max_width", 1), ("max_components", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; it must be an int, at least {least}")
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if self.samples is not None and (isinstance(self.samples, bool) or not self.samples >= 1):
            raise ValueError(f"samples is {self.samples!r}; it must be at least 1, or None for as many as fit")
        if self.first_bits > self.max_bits:
            raise ValueError(
                f"{self.digits} digits need {self.first_bits} bits, more than max_bits, {self.max_bits}; raise max_bits"
            )
        for dtype in self.dtypes:
            if not dtype.is_floating_point:
                raise ValueError(f"the dtype {dtype} is not floating; give some of float64, float32, bfloat16, float16")

    @property
    def first_bits(self) -> int:
        """The working precision to begin with: the digits asked, and 64 bits for what is lost on the way."""
        return math.ceil(self.digits * math.log2(10)) + 64

    @property
    def confirmation_digits(self) -> int:
        """Digits of the arithmetic in which differences are taken: h^4 and cancellation leave four fifths of them."""
        return math.ceil(1.5 * self.digits) + 10
