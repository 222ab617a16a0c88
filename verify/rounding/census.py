"""Every 16-bit state there is, through a half step and back: what is forgotten, against what theory says.

NOTE [What a half step forgets]
The half step y' = fl(a s + beta v) sends to one image all states s in an interval of width ulp(y') / |a| round
(y' - beta v) / a. How many floating numbers lie there is a difference of ordinals (`ordinal`), and log2 of it is what
no inverse can bring back: little where y' is spaced as finely as a s, everything where s is far below ulp(y').
The inverse fl(fl(y' - beta v) / a) is wrong by at most the roundings on the way, those before the division amplified by
A = 1/|a|:

    |s~ - s| <= A (u |a s| + u |y'| + u |y' - beta v|) + u |s~|        (T7 for one half step, first order; see `bound`)

The census is exhaustive, so that a bound that holds in it holds, and a rounding that is off shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pandas as pd
import torch

from revdeq.arithmetic import Bitwise, bitwise_form, half_step, undo_half_step


CENSUS_BETAS = (0.25, 0.3, 0.5, 2 / 3, 0.75, 0.8, 0.875, 0.95, 1.125, 1.2, 1.25, 4 / 3, 1.5, 1.9)
CENSUS_VALUES = (0.0, 1.0, -1.0, 0.7, 3.0, -100.0, 2.0**-10)
CENSUS_DTYPES = (torch.bfloat16, torch.float16)

ArithmeticName = Literal["floating", "bitwise"]


@dataclass(frozen=True)
class CensusRow:
    """All states of one dtype through one half step and back.

    Attributes:
        dtype: name of the dtype of the state and of the value of f.
        arithmetic: "floating" or "bitwise".
        beta: relaxation parameter.
        value: the value of f that is mixed in, rounded to the dtype.
        states: number of finite states whose half step is finite.
        returned: how many of them come back to the bit.
        bits_forgotten: mean over the states of log2 of how many share their image; no inverse can do better.
        bits_forgotten_predicted: the same from the width of the interval; see NOTE [What a half step forgets].
        bits_lost: mean over the states of log2(1 + e), e the error of the state that came back in units roundoff of it.
        bits_lost_bound: the same of the bound on the error.
        bound_ratio: greatest error over its bound; above 1 the bound is crossed.
    """

    dtype: str
    arithmetic: ArithmeticName
    beta: float
    value: float
    states: int
    returned: int
    bits_forgotten: float
    bits_forgotten_predicted: float
    bits_lost: float
    bits_lost_bound: float
    bound_ratio: float


def all_states(dtype: torch.dtype) -> torch.Tensor:
    """Return every finite number of a 16-bit floating dtype once, shape (count,).

    Raises:
        ValueError: the dtype has not 16 bits.
    """
    if not dtype.is_floating_point or dtype.itemsize != 2:
        raise ValueError(f"dtype is {dtype}; a census needs a floating dtype of 16 bits, bfloat16 or float16.")
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    # -0 and 0 are one number with two patterns.
    return patterns[torch.isfinite(patterns) & ((patterns != 0) | ~torch.signbit(patterns))]


def spacing(numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the distance from |x| to the next greater number of the dtype, ulp(x), as float64.

    Args:
        numbers: float64 tensor of numbers within the range of the dtype.
        dtype: the format.
    """
    info = torch.finfo(dtype)
    mantissa, exponent = torch.frexp(numbers.abs().clamp(min=info.smallest_normal))
    del mantissa
    return torch.pow(2.0, exponent.to(torch.float64) - 1) * info.eps


def ordinal(numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return how many numbers of the dtype lie between 0 and each number, negative below 0, linear in between.

    Args:
        numbers: float64 tensor.
        dtype: the format.
    """
    info = torch.finfo(dtype)
    size, step = numbers.abs(), spacing(numbers, dtype)
    least = info.smallest_normal * info.eps
    # A binade holds 1/eps numbers; the first one and the subnormal numbers below it step by `least`.
    binades = torch.log2(step / least)
    return torch.sign(numbers) * (size / step + binades / info.eps)


def bound(state: torch.Tensor, image: torch.Tensor, rebuilt: torch.Tensor, beta: float, value: float) -> torch.Tensor:
    """Return the rigorous bound on |rebuilt - state| for one half step undone, as float64.

    With u the unit roundoff of the 16-bit dtype, w = 2^-24 that of the float32 in which its operations are done, eta
    half the least subnormal, d = fl(y' - beta v), each result fl(x) differs from x by at most u |fl(x)| + eta, and
    a and the products inside by a few w; both half steps hold the same beta:

        |s~ - s| <= A ((u + 4w) |p| + (u + 4w) |y'| + (u + 4w) |d| + 8 w beta |v| + 3 eta) + (u + 4w) |s~| + eta

    where p = fl(a s).

    Args:
        state: s, 16-bit tensor.
        image: y' = fl(a s + beta v), likewise.
        rebuilt: s~, likewise.
        beta: relaxation parameter.
        value: v, a number of the dtype.
    """
    info = torch.finfo(state.dtype)
    unit, wide, tiny = info.eps / 2, 2.0**-24, info.smallest_normal * info.eps / 2
    u, retained = unit + 4 * wide, 1.0 - beta
    product = state.mul(retained).to(torch.float64).abs()
    difference = image.sub(torch.tensor(value, dtype=state.dtype), alpha=beta).to(torch.float64).abs()
    before = u * (product + image.to(torch.float64).abs() + difference) + 8 * wide * abs(beta * value) + 3 * tiny
    return before / abs(retained) + u * rebuilt.to(torch.float64).abs() + tiny


def census(dtype: torch.dtype, beta: float, value: float, arithmetic: ArithmeticName = "floating") -> CensusRow:
    """Take every state of a 16-bit dtype through `half_step` and `undo_half_step`.

    Args:
        dtype: bfloat16 or float16.
        beta: relaxation parameter in (0, 2), not 1; for "bitwise" one with a bitwise form.
        value: the value of f, rounded to the dtype.
        arithmetic: "floating" states of the dtype itself, or "bitwise" integers.

    Raises:
        ValueError: a dtype of other than 16 bits, a beta that the arithmetic cannot undo, a value that overflows.
    """
    if not 0 < beta < 2 or beta == 1:
        raise ValueError(f"beta is {beta}; a half step can be undone for 0 < beta < 2, not 1.")
    held = torch.tensor(value, dtype=dtype)
    if not bool(torch.isfinite(held)):
        raise ValueError(f"value {value} overflows {dtype}; give a number that it holds.")
    states = all_states(dtype)
    values = held.expand_as(states)
    if arithmetic == "bitwise":
        return _bitwise_row(states, values, beta)
    image = half_step(states, values, beta)
    rebuilt = undo_half_step(image, values, beta)
    counted = torch.isfinite(image) & torch.isfinite(rebuilt)
    states, image, rebuilt = states[counted], image[counted], rebuilt[counted]
    exact, start = image.to(torch.float64), states.to(torch.float64)
    error = (rebuilt.to(torch.float64) - start).abs()
    allowed = bound(states, image, rebuilt, beta, float(held))
    _, which, sharing = torch.unique(exact, return_inverse=True, return_counts=True)
    # torch rounds the alpha of an addition to the dtype of its operands; the product of two such numbers is exact here.
    mixed = float(torch.tensor(beta, dtype=dtype)) * float(held)
    centre = (exact - mixed) / (1.0 - beta)
    reach = spacing(exact, dtype) / abs(1.0 - beta) / 2
    crowding = ordinal(centre + reach, dtype) - ordinal(centre - reach, dtype)
    unit = spacing(start, dtype) / 2
    return CensusRow(
        dtype=str(dtype).removeprefix("torch."),
        arithmetic="floating",
        beta=beta,
        value=float(held),
        states=states.numel(),
        returned=int((error == 0).sum()),
        bits_forgotten=float(sharing[which].to(torch.float64).log2().mean()),
        bits_forgotten_predicted=float(crowding.log2().clamp(min=0).mean()),
        bits_lost=_mean_bits(error / unit),
        bits_lost_bound=_mean_bits(allowed / unit),
        bound_ratio=float((error / allowed).max()),
    )


def census_frame(
    dtypes: Iterable[torch.dtype] = CENSUS_DTYPES,
    betas: Sequence[float] = CENSUS_BETAS,
    values: Sequence[float] = CENSUS_VALUES,
) -> pd.DataFrame:
    """Return the census over all dtypes, betas and values, bitwise too where beta has the form; a row a `CensusRow`."""
    rows: list[CensusRow] = []
    for dtype in dtypes:
        for beta in betas:
            kinds: list[ArithmeticName] = ["floating", "bitwise"] if has_bitwise_form(beta) else ["floating"]
            rows += [census(dtype, beta, value, kind) for kind in kinds for value in values]
    return pd.DataFrame([asdict(row) for row in rows])


def has_bitwise_form(beta: float) -> bool:
    """Return whether beta is 1 - 1/m or 1 + 1/m, so that a half step can be done in integers."""
    try:
        bitwise_form(beta)
    except ValueError:
        return False
    return True


def _bitwise_row(states: torch.Tensor, values: torch.Tensor, beta: float) -> CensusRow:
    # Each state is a sample of its own, with a range of its own.
    arithmetic, dtype = Bitwise(), states.dtype
    column, mixed = states.to(torch.float64).unsqueeze(1), values.unsqueeze(1)
    start = arithmetic.fit(arithmetic.start(column, dtype, True, beta), mixed)
    image, remainder = arithmetic.half_step(start, mixed, beta, 0)
    rebuilt = arithmetic.undo_half_step(image, mixed, beta, remainder)
    error = (rebuilt.integers - start.integers).abs().to(torch.float64) * start.unit
    lost = _mean_bits(error / (spacing(column, dtype) / 2))
    return CensusRow(
        dtype=str(dtype).removeprefix("torch."),
        arithmetic="bitwise",
        beta=beta,
        value=float(values[0]),
        states=states.numel(),
        returned=int((error == 0).sum()),
        bits_forgotten=0.0,
        bits_forgotten_predicted=0.0,
        bits_lost=lost,
        bits_lost_bound=0.0,
        bound_ratio=0.0 if lost == 0.0 else math.inf,
    )


def _mean_bits(ratios: torch.Tensor) -> float:
    return float(torch.log2(1 + ratios).mean())
