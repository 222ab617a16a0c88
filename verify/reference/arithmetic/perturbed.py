"""Perturbed arithmetic: a wide carrier whose every elementary result is disturbed as a narrow format would do."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from mpmath.libmp import mpf_pos, round_nearest
from numpy.typing import NDArray

from verify.reference.arithmetic.extended import EXTENDED_ROUNDOFF, Extended
from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Arithmetic, Array, BoolArray


Rounding = Literal["relative", "grid"]

_FLOAT64_ROUNDOFF = 2.0**-53
_FALLBACK_DIGITS = 25


def carrier() -> Arithmetic:
    """Longdouble where it is wider than float64, 25-digit mpmath where it is not (macOS on ARM, MSVC)."""
    return Extended() if EXTENDED_ROUNDOFF < _FLOAT64_ROUNDOFF else Multiprecision(_FALLBACK_DIGITS, strict=False)


class Perturbed:
    """Floating point with a given unit roundoff, simulated by random disturbances of a wide carrier.

    Two models of one rounding, both with errors of the size u |x|:

        relative   x -> x (1 + u xi)              xi uniform in (-1, 1), drawn anew for every result
        grid       x -> round(x (1 + u xi / 2))   to the nearest number with -log2 u significant bits

    The relative model is M0's, of RMS .58 u. The grid model, of RMS .50 u, leaves what the format represents as
    it is, as the format does (the disturbance is less than half a unit in the last place), and repeats itself after
    `restart`: the same numbers through the same operations meet the same disturbances. It is the model for a wide
    state, where the reversal evaluates f at the very bits of the forward pass (M3).

    Sums and matrix products run from left to right with the accumulator's unit roundoff and are rounded once at the end
    if the accumulator is the wider one, which is how matrix units treat bfloat16 and float16. The exponent's range is
    not modelled: nothing overflows or underflows that the carrier can hold.

    Args:
        unit_roundoff: u, half the spacing of the numbers at 1 (2^-53 for float64, 2^-8 for bfloat16); 0 < u < 1.
        accumulate_roundoff: u of the accumulator of sums and products; by default `unit_roundoff`.
        seed: seed of the disturbances.
        rounding: "relative" or "grid".
        inner: the carrier; by default what `carrier()` chooses.

    Raises:
        ValueError: a unit roundoff outside (0, 1), an accumulator narrower than its operands, an unknown model, a grid
            for a unit roundoff that is no power of two.

    References:
        D. S. Parker, Monte Carlo arithmetic, UCLA CSD-970002 (1997); T. J. Dekker, doi:10.1007/BF01397083, eq. 5.7 (the
        rounding to fewer bits); N. J. Higham, Accuracy and Stability of Numerical
        Algorithms, 2nd ed., SIAM (2002), eq. 2.4, doi:10.1137/1.9780898718027. (M0)
    """

    def __init__(
        self,
        unit_roundoff: float,
        accumulate_roundoff: float | None = None,
        seed: int = 0,
        *,
        rounding: Rounding = "relative",
        inner: Arithmetic | None = None,
    ) -> None:
        accumulate = unit_roundoff if accumulate_roundoff is None else accumulate_roundoff
        if not 0 < unit_roundoff < 1:
            raise ValueError(f"unit_roundoff is {unit_roundoff}; it must lie in (0, 1), 2.0**-53 for float64")
        if not 0 < accumulate <= unit_roundoff:
            raise ValueError(
                f"accumulate_roundoff is {accumulate}; it must be positive and at most unit_roundoff {unit_roundoff}"
            )
        if rounding not in ("relative", "grid"):
            raise ValueError(f"rounding is {rounding!r}; it must be 'relative' or 'grid'")
        if rounding == "grid" and math.frexp(unit_roundoff)[0] != 0.5:
            raise ValueError(f"unit_roundoff is {unit_roundoff}; the grid of a binary format needs a power of two")
        self.unit_roundoff = unit_roundoff
        self.accumulate_roundoff = accumulate
        self.rounding: Rounding = rounding
        self.inner = carrier() if inner is None else inner
        self._seed = seed
        self._generator = np.random.default_rng(seed)

    @property
    def name(self) -> str:
        """The arithmetic and its unit roundoffs."""
        return f"{self.rounding} perturbation {self.unit_roundoff:.3g} of {self.inner.name}"

    def restart(self, *site: int) -> None:
        """Draw the following disturbances from the stream of this site (a step, a half step), whatever came before."""
        self._generator = np.random.default_rng((self._seed, *site))

    def accumulator(self) -> Perturbed:
        """The same arithmetic at the accumulator's roundoff, sharing this one's stream of disturbances."""
        if self.accumulate_roundoff == self.unit_roundoff:
            return self
        return _Accumulator(self)

    def _disturb(self, x: Array, unit_roundoff: float) -> Array:
        half_width = unit_roundoff if self.rounding == "relative" else unit_roundoff / 2
        xi = self._draw(np.shape(x), half_width)
        disturbed = self.inner.add(x, self.inner.multiply(x, self.inner.convert(xi)))
        return disturbed if self.rounding == "relative" else _to_grid(disturbed, unit_roundoff)

    def _draw(self, shape: tuple[int, ...], half_width: float) -> NDArray[np.float64]:
        return self._generator.uniform(-half_width, half_width, shape)

    def convert(self, values: Any) -> Array:
        """The values in the carrier, not rounded."""
        return self.inner.convert(values)

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64."""
        return self.inner.to_float64(x)

    def rounded(self, x: Array) -> Array:
        """One rounding to the unit roundoff: a store, or a cast from a wider format."""
        return self._disturb(x, self.unit_roundoff)

    def add(self, a: Array, b: Array) -> Array:
        """Elementwise a + b, rounded."""
        return self.rounded(self.inner.add(a, b))

    def subtract(self, a: Array, b: Array) -> Array:
        """Elementwise a - b, rounded."""
        return self.rounded(self.inner.subtract(a, b))

    def multiply(self, a: Array, b: Array) -> Array:
        """Elementwise a b, rounded."""
        return self.rounded(self.inner.multiply(a, b))

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b, rounded."""
        return self.rounded(self.inner.divide(a, b))

    def negative(self, x: Array) -> Array:
        """-x, exact."""
        return self.inner.negative(x)

    def absolute(self, x: Array) -> Array:
        """|x|, exact."""
        return self.inner.absolute(x)

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent, rounded."""
        return self.rounded(self.inner.power(x, exponent))

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product, accumulated from left to right."""
        left, right = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        products = self.inner.multiply(left[..., :, :, None], right[..., None, :, :])
        result = self.sum(self._disturb(products, self.accumulate_roundoff), axis=-2)
        if a.ndim == 1:
            result = result[..., 0, :]
        return result[..., 0] if b.ndim == 1 else result

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum, accumulated from left to right."""
        axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
        axes = tuple(sorted(index % x.ndim for index in axes))
        kept = [index for index in range(x.ndim) if index not in axes]
        terms = np.transpose(x, (*axes, *kept)).reshape(-1, *(x.shape[index] for index in kept))
        if not len(terms):
            return self.inner.sum(x, axis=axes, keepdims=keepdims)
        total = terms[0]
        for term in terms[1:]:
            total = self._disturb(self.inner.add(total, term), self.accumulate_roundoff)
        if self.accumulate_roundoff < self.unit_roundoff:
            total = self.rounded(total)
        if keepdims:
            return np.reshape(total, [1 if index in axes else size for index, size in enumerate(x.shape)])
        return np.asarray(total)

    def exp(self, x: Array) -> Array:
        """Elementwise exp x, rounded."""
        return self.rounded(self.inner.exp(x))

    def expm1(self, x: Array) -> Array:
        """Elementwise exp(x) - 1, rounded."""
        return self.rounded(self.inner.expm1(x))

    def log(self, x: Array) -> Array:
        """The natural logarithm, rounded."""
        return self.rounded(self.inner.log(x))

    def log1p(self, x: Array) -> Array:
        """log(1 + x), rounded."""
        return self.rounded(self.inner.log1p(x))

    def sqrt(self, x: Array) -> Array:
        """The square root, rounded."""
        return self.rounded(self.inner.sqrt(x))

    def sin(self, x: Array) -> Array:
        """Elementwise sin x, rounded."""
        return self.rounded(self.inner.sin(x))

    def cos(self, x: Array) -> Array:
        """Elementwise cos x, rounded."""
        return self.rounded(self.inner.cos(x))

    def tanh(self, x: Array) -> Array:
        """Elementwise tanh x, rounded."""
        return self.rounded(self.inner.tanh(x))

    def atan(self, x: Array) -> Array:
        """The arc tangent, rounded."""
        return self.rounded(self.inner.atan(x))

    def erf(self, x: Array) -> Array:
        """The error function, rounded."""
        return self.rounded(self.inner.erf(x))

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two, exact."""
        return self.inner.maximum(a, b)

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two, exact."""
        return self.inner.minimum(a, b)

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b."""
        return self.inner.less(a, b)

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b."""
        return self.inner.less_equal(a, b)

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere."""
        return self.inner.where(condition, a, b)


class _Accumulator(Perturbed):
    """A `Perturbed` at its owner's accumulator roundoff that draws from its owner's stream."""

    def __init__(self, owner: Perturbed) -> None:
        super().__init__(owner.accumulate_roundoff, seed=owner._seed, rounding=owner.rounding, inner=owner.inner)
        self._owner = owner

    def _draw(self, shape: tuple[int, ...], half_width: float) -> NDArray[np.float64]:
        return self._owner._draw(shape, half_width)


def _to_grid(x: Array, unit_roundoff: float) -> Array:
    """The nearest numbers with -log2 u significant bits."""
    bits = -int(math.log2(unit_roundoff))
    if x.dtype == object:
        rounded = np.frompyfunc(lambda value: value.context.make_mpf(mpf_pos(value._mpf_, bits, round_nearest)), 1, 1)
        return np.asarray(rounded(x), dtype=object)
    with np.errstate(all="ignore"):
        # Dekker's splitting: the product pushes the low bits out of the carrier, the difference brings x back.
        pushed = x * np.longdouble(EXTENDED_ROUNDOFF**-1 * unit_roundoff + 1)
        return np.asarray(pushed - (pushed - x))
