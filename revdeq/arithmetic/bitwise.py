"""The half step of the reversible iteration on integers: nothing is rounded away, so undoing it returns the very bits.

NOTE [The bitwise half step]
For beta = 1 - 1/m and beta = 1 + 1/m, m an integer >= 2, the factor 1 - beta is sigma/m with sigma = +1 and -1. A state
is an integer Y, standing for Y times a unit 2^-s, and with q = round(beta f 2^s)

    Y' = sigma floor(Y / m) + q,   remainder r = Y mod m        Y = m sigma (Y' - q) + r

where the inverse holds to the bit for every Y, f and m, since Y = m floor(Y/m) + r and sigma^2 = 1. The remainder is
the information that the step loses (its determinant is (1/m)^(2d)); it goes on a tape, log2 m bits a component.

If m = 2^b and q is a multiple of 2^c, the remainders of the first c/b steps are zero: Y_n is a multiple of
2^(c - n b). Those steps need no tape. The states of a float32 function have room for c = 20 such bits.

The derivative treats rounding as the identity: the vector-Jacobian products are those of f at the very states of the
forward pass.
"""

import math
from typing import Any, ClassVar, cast

import torch
from torch.utils import _pytree

from revdeq.arithmetic.base import Arithmetic
from revdeq.arithmetic.forms import bitwise_form
from revdeq.arithmetic.packing import pack, unpack


# From |Y| <= 2^62 on, |q| <= 2^62 - 2^10 keeps |floor(Y/m)| + |q| below 2^63 for every m >= 2; a float64 holds both.
_GREATEST_START = 2.0**62
_GREATEST_ADDEND = 2.0**62 - 2.0**10
_STATE_BITS = 62
# Room, in bits, for states to grow beyond the start and the first value of f where no range is given.
_HEADROOM = 10
# The grid to which values are rounded is so much finer than the unit roundoff of f at the greatest component.
_GUARD = 8
# Beyond these exponents a unit or its reciprocal would leave the normal range of float64.
_LEAST_EXPONENT, _GREATEST_EXPONENT = -900, 960


class Quantised:
    """A leaf of a state as integer multiples of a power of two.

    Attributes:
        integers: int64, the shape of the leaf.
        unit: float64, one entry a sample (trailing dimensions of size 1): the value of the integer 1; infinity where
            the state left the range, NaN where f returned something that is not finite.
        value: float64, integers times unit rounded to nearest; where a graph is recorded it carries the gradient.
        grid: f is rounded to multiples of 2^grid units.
    """

    def __init__(self, integers: torch.Tensor, unit: torch.Tensor, value: torch.Tensor, grid: int) -> None:
        self.integers, self.unit, self.value, self.grid = integers, unit, value, grid


def _flatten(state: Quantised) -> tuple[list[Any], Any]:
    return [state.integers, state.unit, state.value], state.grid


def _unflatten(tensors: Any, grid: Any) -> Quantised:
    integers, unit, value = tensors
    return Quantised(integers, unit, value, grid)


_pytree.register_pytree_node(Quantised, _flatten, _unflatten)


class _StraightThrough(torch.autograd.Function):
    """The value of integers, with the derivative of the half step in real numbers."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        integers: torch.Tensor,
        unit: torch.Tensor,
        state: torch.Tensor,
        value: torch.Tensor | None,
        retained: float,
        beta: float,
    ) -> torch.Tensor:
        # More than 53 bits are rounded here, and nothing is lost: f sees this in both passes, the integer goes on.
        return integers * unit

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        _, _, _, value, ctx.retained, ctx.beta = inputs
        ctx.dtype = None if value is None else value.dtype

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grad_outputs
        to_value = None if ctx.dtype is None else grad.mul(ctx.beta).to(ctx.dtype)
        return None, None, grad.mul(ctx.retained), to_value, None, None

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: torch.Tensor | None) -> torch.Tensor | None:
        _, _, of_state, of_value, _, _ = grad_inputs
        parts = [] if of_state is None else [of_state.mul(ctx.retained)]
        parts += [] if of_value is None else [of_value.to(torch.float64).mul(ctx.beta)]
        return sum(parts[1:], parts[0]) if parts else None


def _carried(
    integers: torch.Tensor,
    unit: torch.Tensor,
    state: torch.Tensor,
    value: torch.Tensor | None,
    retained: float,
    beta: float,
) -> torch.Tensor:
    """Return integers times unit, with a graph where one is recorded."""
    if not torch.is_grad_enabled():
        return integers * unit
    return cast(torch.Tensor, _StraightThrough.apply(integers, unit, state, value, retained, beta))


class Bitwise(Arithmetic):
    """Integer states whose half steps are undone to the bit, at any depth and for f in any dtype.

    Needs beta = 1 - 1/m or 1 + 1/m (0.5, 2/3, 0.75, 0.8 ... and 1.5, 4/3, 1.25, 1.2 ...) and a function whose
    evaluation repeats to the bit; the backward pass notices one that does not. Rounding is absolute, the same for all
    components of a sample's leaf: 2^-52 of its greatest component for float64 z0, 2^-32 for float32, 2^-16 for bfloat16
    and 2^-19 for float16, well below the rounding of f itself.

    What a half step would lose is kept on a tape: log2 m bits a component where m is a power of two, 1.6 for m = 3 and
    2.333 for m = 5 (see `bits_per_component`). Where m is a power of two the first steps need no tape: for float32 z0
    and the default range, 20 at beta 0.5 and 1.5, 10 at 0.75 and 1.25, 6 at 0.875 and 1.125; for bfloat16 36, 18, 12.

    Args:
        range: magnitude below which z0 and beta f(z) stay, > 0, the same for all samples and leaves; None for 1024
            times the greatest component of z0 and of f(z0), for each sample and leaf.
        resolution: spacing to which values of f are rounded, > 0, rounded down to a power of two; None as said above.
        memory: greatest size of the tape in bytes, an int >= 0.

    Raises:
        TypeError: an argument is not a number.
        ValueError: it is not positive and finite, or range and resolution together need more than 62 bits.

    References:
        Maclaurin, Duvenaud, Adams, Gradient-based hyperparameter optimization through reversible learning, 2015,
        arXiv 1502.03492, section 2.2 (the information buffer). Stam, arXiv 2207.07695. (T8, M3)
    """

    fits: ClassVar[bool] = True

    def __init__(self, *, range: float | None = None, resolution: float | None = None, memory: int = 2**31) -> None:
        for name, number in (("range", range), ("resolution", resolution)):
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"{name} is {number!r}; it must be a number > 0, or None to choose it from the data.")
            if not (math.isfinite(number) and 2.0**_LEAST_EXPONENT <= number <= 2.0**_GREATEST_EXPONENT):
                raise ValueError(f"{name} is {number}; it must be a number from 2^-900 to 2^960, or None.")
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
            raise ValueError(f"memory is {memory!r}; it must be an int >= 0, the greatest size of the tape in bytes.")
        self.range, self.resolution, self.memory = range, resolution, memory
        if range is not None and resolution is not None:
            needed = _exponent_above(range) - _exponent_below(resolution)
            if needed > _STATE_BITS:
                raise ValueError(
                    f"range {range:g} at resolution {resolution:g} takes {needed} bits, but an integer state has "
                    f"{_STATE_BITS}; give a smaller range or a coarser resolution."
                )

    def __repr__(self) -> str:
        return f"Bitwise(range={self.range!r}, resolution={self.resolution!r}, memory={self.memory!r})"

    def check(self, beta: float) -> None:
        """Raise ValueError where beta has no form 1 - 1/m or 1 + 1/m."""
        bitwise_form(beta)

    def dtype(self, leaf: torch.Tensor) -> torch.dtype:
        """Return float64, in which the integers are handed to f.

        Raises:
            ValueError: the device has no float64.
        """
        if leaf.device.type == "mps":
            raise ValueError("arithmetic is 'bitwise' but z0 is on mps, which has no float64; use 'floating' there.")
        return torch.float64

    def free_steps(self, beta: float, dtype: torch.dtype) -> int:
        """Return the number of steps whose remainders are zero, so that they need no tape.

        Args:
            beta: relaxation parameter with a bitwise form.
            dtype: dtype of z0.
        """
        return self._grid(beta, dtype) // _log2(bitwise_form(beta).m)

    def start(self, wide: torch.Tensor, dtype: torch.dtype, batched: bool, beta: float) -> Quantised:
        """Return the leaf of z0 as integers, in the range and resolution that it asks for; see `Arithmetic.start`."""
        kept = 1 if batched else 0
        grid = self._grid(beta, dtype)
        with torch.no_grad():
            peak = _peak(wide, wide.shape[:kept] + (1,) * (wide.ndim - kept))
            unit = self._unit(peak)
            integers = _rounded(wide, unit, grid)
        # f is evaluated at z0 itself. An alias, so that the cotangents of y0 and z0 are summed in backward's order.
        return Quantised(integers, _in_range(unit, peak / unit, _GREATEST_START), wide.view_as(wide), grid)

    def fit(self, state: Quantised, value: torch.Tensor) -> Quantised:
        """Return the start in the range that z0 and f(z0) ask for; see `Arithmetic.fit`."""
        with torch.no_grad():
            start = state.value.detach()
            shape = state.unit.shape
            peak = torch.maximum(_peak(start, shape), _peak(value.detach().to(torch.float64), shape))
            unit = self._unit(peak)
            integers = _rounded(start, unit, state.grid)
            unit = _in_range(unit, peak / unit, _GREATEST_START)
        return Quantised(integers, unit, _carried(integers, unit, state.value, None, 1.0, 0.0), state.grid)

    def value(self, state: Quantised) -> torch.Tensor:
        """Return the integers times their unit in float64."""
        # An alias where a graph is recorded: cotangents of a state that f uses more than once are summed among
        # themselves first, as the reversed pass sums them.
        return state.value.view_as(state.value) if state.value.requires_grad else state.value

    def half_step(
        self, state: Quantised, value: torch.Tensor, beta: float, n: int
    ) -> tuple[Quantised, torch.Tensor | None]:
        """Return `sigma floor(Y / m) + q` and the packed remainder `Y mod m`; see NOTE [The bitwise half step]."""
        form = bitwise_form(beta)
        packed = None
        with torch.no_grad():
            addend = _addend(state, value.detach(), beta)
            unit = _in_range(state.unit, _peak(addend, state.unit.shape), math.ldexp(_GREATEST_ADDEND, -state.grid))
            quotient, remainder = _divide(state.integers, form.m)
            integers = _on_grid(addend, state.grid).add_(quotient, alpha=form.sign)
            # Each step takes log2 m of the c zero bits that the grid leaves; while some are left, r = 0.
            if (n + 1) * _log2(form.m) > state.grid:
                packed = pack(remainder.to(torch.uint8).reshape(state.unit.numel(), _components(state)), form.m)
        carried = _carried(integers, unit, state.value, value, 1.0 - beta, beta)
        return Quantised(integers, unit, carried, state.grid), packed

    def undo_half_step(
        self, state: Quantised, value: torch.Tensor, beta: float, remainder: torch.Tensor | None
    ) -> Quantised:
        """Return `m sigma (Y' - q) + r`, the very integers from which the half step came."""
        form = bitwise_form(beta)
        addend = _on_grid(_addend(state, value.detach(), beta), state.grid)
        # q - Y' is -sigma floor(Y / m), at most 2^62 in size, so the product by m is Y - r and fits.
        integers = addend.sub_(state.integers).mul_(-form.sign * form.m)
        if remainder is not None:
            integers = integers.add_(unpack(remainder, form.m, _components(state)).reshape(integers.shape))
        return Quantised(integers, state.unit, integers * state.unit, state.grid)

    def returns(self, state: Quantised, start: torch.Tensor) -> torch.Tensor:
        """Return whether the integers are those of the start; samples that left the range do not count."""
        expected = _rounded(start, state.unit, state.grid)
        return ((state.integers == expected) | ~torch.isfinite(state.unit)).all()

    def out_of_range(self, state: Quantised) -> torch.Tensor:
        """Return, per sample, whether a value did not fit into the range."""
        return torch.isinf(state.unit).flatten()

    def _grid(self, beta: float, dtype: torch.dtype) -> int:
        """Return the number c of low bits that values of f leave zero, so that the first steps lose nothing."""
        m = bitwise_form(beta).m
        # Another m divides no power of two: its remainders are never zero, and a grid would only coarsen f.
        if m & (m - 1):
            return 0
        if self.resolution is None:
            significand = 1 - round(math.log2(torch.finfo(dtype).eps))
            return max(0, _STATE_BITS - _HEADROOM - significand - _GUARD)
        if self.range is None:
            return 0
        return _STATE_BITS - _exponent_above(self.range) + _exponent_below(self.resolution)

    def _unit(self, peak: torch.Tensor) -> torch.Tensor:
        """Return the unit, a power of two, in which numbers up to `peak` (or the range given) have room."""
        if self.range is not None:
            return torch.full_like(peak, math.ldexp(1.0, _exponent_above(self.range) - _STATE_BITS))
        if self.resolution is not None:
            return torch.full_like(peak, math.ldexp(1.0, _exponent_below(self.resolution)))
        exponent = torch.frexp(torch.where(torch.isfinite(peak), peak, 1.0)).exponent
        power = exponent.clamp(min=_LEAST_EXPONENT, max=_GREATEST_EXPONENT) + (_HEADROOM - _STATE_BITS)
        # torch.ldexp goes by float32 and overflows; the bits of a power of two are its exponent.
        return ((power.to(torch.int64) + 1023) << 52).view(torch.float64)


def _log2(m: int) -> int:
    """Return log2 m, rounded up."""
    return (m - 1).bit_length()


def _exponent_above(number: float) -> int:
    """Return the least e with number <= 2^e."""
    mantissa, exponent = math.frexp(number)
    return exponent - 1 if mantissa == 0.5 else exponent


def _exponent_below(number: float) -> int:
    """Return the greatest e with 2^e <= number."""
    return math.frexp(number)[1] - 1


def _components(state: Quantised) -> int:
    return state.integers.numel() // max(state.unit.numel(), 1)


def _peak(values: torch.Tensor, shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
    """Return the greatest magnitude per sample, NaN where there is one, as a float64 tensor of the given shape."""
    if not values.numel():
        return values.new_zeros(shape)
    return values.abs().reshape(math.prod(shape), -1).amax(dim=1).reshape(shape)


def _rounded(values: torch.Tensor, unit: torch.Tensor, grid: int) -> torch.Tensor:
    """Return the values as integer multiples of the unit, rounded to nearest on the grid."""
    return _on_grid(values.mul(unit.mul(2.0**grid).reciprocal()).round_(), grid)


def _on_grid(rounded: torch.Tensor, grid: int) -> torch.Tensor:
    """Return integer multiples of 2^grid units from the floating integers that count them."""
    integers = rounded.to(torch.int64)
    return integers.mul_(2**grid) if grid else integers


def _addend(state: Quantised, value: torch.Tensor, beta: float) -> torch.Tensor:
    """Return round(beta f / (2^grid unit)) as float64; times 2^grid it is q."""
    # The unit is a power of two, so its reciprocal and the scaled beta are exact: one product rounds, then the
    # nearest integer is taken, ties to even. The inverse repeats both to the bit.
    scale = state.unit.reciprocal().mul_(math.ldexp(beta, -state.grid))
    return value.to(torch.float64).mul(scale).round_()


def _in_range(unit: torch.Tensor, peak: torch.Tensor, greatest: float) -> torch.Tensor:
    """Return the unit, but infinity or NaN from the first number on that does not fit or is not finite.

    Args:
        unit: the unit so far.
        peak: greatest magnitude of a number in units.
        greatest: the greatest that fits.
    """
    # A peak that is NaN, or infinite because f is, says that f failed; one merely too great, that the range did.
    marked = torch.where(torch.isfinite(peak), math.inf, math.nan)
    return torch.where((peak <= greatest) | torch.isinf(unit), unit, marked.to(unit.dtype))


def _divide(integers: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return floor(Y / m) and Y mod m in [0, m); in two's complement shift and mask do so for negative Y as well."""
    if m & (m - 1) == 0:
        return integers >> (m.bit_length() - 1), integers & (m - 1)
    quotient = torch.div(integers, m, rounding_mode="floor")
    return quotient, integers.sub(quotient, alpha=m)
