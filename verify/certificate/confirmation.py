"""The gradient confirmed without torch's derivative formulas: differences in high precision of the forward graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.answers import Answer, Finding
from verify.certificate.fixed_point import Enclosure, center_of
from verify.certificate.settings import Progress, silent
from verify.reference.arithmetic import Array, Multiprecision
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Program, Traced


FINE_ENOUGH = 2.0**-40
"""Error of a difference quotient, relative to it, up to which agreement with it confirms anything."""

PRECISION_DOUBLINGS = 2

GUARD_DIGITS = 15
"""Digits more, with which one value of the loss is computed again to see the rounding error of the others."""


@dataclass(frozen=True)
class Confirmation:
    """A directional derivative by differences beside that of the certified gradient.

    Attributes:
        finding: whether the two agree within what they state.
        difference: the derivative by differences, in decimal.
        gradient: <gradient, direction>, in decimal with its radius.
        digits: decimal digits in which the two agree.
        error_estimate: of the difference quotient, absolute.
    """

    finding: Finding
    difference: str
    gradient: str
    digits: float
    error_estimate: float


def direction_of(traced: Traced, names: tuple[str, ...], seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """A seeded direction for each leaf: multiples of 1/64 in [-1, 1], so no arithmetic rounds them."""
    generator = np.random.default_rng((seed, 20260119))
    arrays = traced.arrays()
    return {name: generator.integers(-64, 65, arrays[name].shape) / 64.0 for name in names}


class _ForwardMap:
    """f in multiprecision from the forward graph alone, every leaf free."""

    def __init__(self, traced: Traced, leaves: tuple[str, ...], digits: int) -> None:
        # Not strict: a branch that is not taken may leave its domain, as in where(x > 0, log(x), 0).
        self.ops = Multiprecision(digits, strict=False)
        arrays = traced.arrays()
        self.names = leaves
        self._state = traced.state
        others = {name: values for name, values in arrays.items() if name not in leaves and name not in traced.state}
        self._program = Program(traced.forward, self.ops, others)
        self._leaves = {name: self.ops.convert(arrays[name]) for name in (*traced.state, *leaves)}

    def moved(self, direction: Mapping[str, NDArray[np.float64]], step: Any) -> dict[str, Array]:
        """The leaves at theta + step * direction."""
        ops = self.ops
        moved = dict(self._leaves)
        for name, way in direction.items():
            moved[name] = ops.add(moved[name], ops.multiply(ops.convert(way), step))
        return moved

    def value(self, leaves: Mapping[str, Array], state: Mapping[str, Array]) -> dict[str, Array]:
        """F at a state."""
        return self._program({**leaves, **state})

    def states(self, leaves: Mapping[str, Array]) -> dict[str, Array]:
        """The state's leaves."""
        return {name: leaves[name] for name in self._state}


Loss = Callable[[_ForwardMap, dict[str, Array]], Any]


def n_step_loss(
    traced: Traced, beta: float, num_steps: int, cotangent_z: NDArray[np.float64], cotangent_y: NDArray[np.float64]
) -> Loss:
    """L = <cotangent_z, z_N> + <cotangent_y, y_N> as a function of the leaves."""

    def loss(f: _ForwardMap, leaves: dict[str, Array]) -> Any:
        ops = f.ops
        b = ops.convert(np.asarray(beta))
        a = ops.subtract(ops.convert(np.asarray(1.0)), b)

        def mixed(old: dict[str, Array], image: dict[str, Array]) -> dict[str, Array]:
            return {name: ops.add(ops.multiply(a, old[name]), ops.multiply(b, image[name])) for name in old}

        y = z = f.states(leaves)
        for _ in range(num_steps):
            y = mixed(y, f.value(leaves, z))
            z = mixed(z, f.value(leaves, y))
        return _inner(ops, cotangent_z, _flat(traced, z)) + _inner(ops, cotangent_y, _flat(traced, y))

    return loss


def fixed_point_loss(traced: Traced, enclosure: Enclosure, cotangent: NDArray[np.float64]) -> Loss:
    """L = <c, z*> as a function of the leaves; z* by chord steps with the enclosure's float64 inverse."""
    inverses, center = enclosure.inverses, center_of(enclosure)
    shapes = {name: values.shape for name, values in traced.arrays().items() if name in traced.state}

    def loss(f: _ForwardMap, leaves: dict[str, Array]) -> Any:
        ops = f.ops
        c = ops.convert(inverses)
        z = ops.convert(center)
        # Each chord step gains some 40 bits; two more than are needed cost little.
        for _ in range(3 + math.ceil(f.ops.digits * math.log2(10) / 30)):
            state = _unflat(shapes, z)
            defect = ops.subtract(_flat(traced, f.value(leaves, state)), z)
            step = ops.matmul(c, defect.reshape(len(inverses), -1, 1))
            z = ops.add(z, step.reshape(-1))
        return _inner(ops, cotangent, z)

    return loss


def _flat(traced: Traced, leaves: Mapping[str, Array]) -> Array:
    return np.concatenate([leaves[name].reshape(-1) for name in traced.state])


def _unflat(shapes: Mapping[str, tuple[int, ...]], z: Array) -> dict[str, Array]:
    parts: dict[str, Array] = {}
    first = 0
    for name, shape in shapes.items():
        parts[name] = z[first : first + math.prod(shape)].reshape(shape)
        first += math.prod(shape)
    return parts


def _inner(ops: Multiprecision, weights: NDArray[np.float64], values: Array) -> Any:
    return ops.sum(ops.multiply(ops.convert(weights), values))[()]


def difference_quotient(
    traced: Traced, loss: Loss, names: tuple[str, ...], digits: int, progress: Progress = silent
) -> tuple[Any, float]:
    """The derivative of a loss along `direction_of` the leaves, by central differences in mpmath, and its error.

    D(h) = (L(theta + h v) - L(theta - h v)) / 2h at h and 2h, extrapolated; its error is estimated by the change that
    the extrapolation makes times h, by which the next term is smaller, plus what is left of the rounding error of L
    after the cancellation, divided by h. That error is measured, for an ill-conditioned fixed point or a growing
    iteration makes it far greater than 2^-p |L|: one of the four values is computed again with more digits.

    Args:
        traced: the function; only its forward graph is read.
        loss: of the leaves.
        names: the leaves that move.
        digits: of the arithmetic.
        progress: called with a few words before each of the five values of the loss.
    """
    forward = _ForwardMap(traced, tuple(name for name in names if name not in traced.state), digits)
    direction = direction_of(traced, names)
    context = forward.ops.context
    h = context.mpf(2) ** -math.ceil(digits * math.log2(10) / 5)
    quotients: list[Any] = []
    size = context.mpf(0)
    ahead = context.mpf(0)
    for turn, step in enumerate((2 * h, h)):
        progress(f"confirming by differences: value {2 * turn + 1} of 5 at {digits} digits")
        ahead = loss(forward, forward.moved(direction, step))
        progress(f"confirming by differences: value {2 * turn + 2} of 5 at {digits} digits")
        behind = loss(forward, forward.moved(direction, -step))
        quotients.append((ahead - behind) / (2 * step))
        size = max(size, abs(ahead), abs(behind))
    progress(f"confirming by differences: value 5 of 5 at {digits + GUARD_DIGITS} digits")
    finer = _ForwardMap(traced, forward.names, digits + GUARD_DIGITS)
    make = finer.ops.context.make_mpf
    rounding = context.make_mpf(abs(loss(finer, finer.moved(direction, make(h._mpf_))) - make(ahead._mpf_))._mpf_)
    value = quotients[1] + (quotients[1] - quotients[0]) / 3
    change = abs(quotients[1] - quotients[0])
    return value, float(64 * (change * h + (rounding + context.eps * size) / h))


def confirm(
    traced: Traced,
    loss: Loss,
    gradient: Mapping[str, Array],
    digits: int,
    claim: str,
    ties: int = 0,
    progress: Progress = silent,
) -> Confirmation:
    """Compare <gradient, direction> with a central difference of the loss along the same direction.

    Args:
        traced: the function; only its forward graph is read.
        loss: of the leaves.
        gradient: enclosures by leaf.
        digits: of the arithmetic in which the loss is computed.
        claim: what is confirmed, for the finding.
        ties: comparisons between equal numbers while the gradient was enclosed: there a disagreement refutes nothing.
        progress: called with a few words now and then.
    """
    names = tuple(gradient)
    direction = direction_of(traced, names)
    value, error = difference_quotient(traced, loss, names, digits, progress)
    for _ in range(PRECISION_DOUBLINGS):
        # Compared as numbers of mpmath, so that NaN asks for more digits, too.
        if error <= abs(value) * FINE_ENOUGH:
            break
        digits *= 2
        value, error = difference_quotient(traced, loss, names, digits, progress)
    if not value.context.isfinite(value):
        sentence = (
            "f is not finite at a small step from the point, which lies at the edge of its domain; start inside it"
        )
        finding = Finding(f"{claim} confirmed", Answer.UNDECIDED, sentence)
        return Confirmation(finding, str(value), "", 0.0, math.inf)
    with flint_precision(math.ceil(digits * math.log2(10)) + 32):
        along = arb(0)
        for name, balls in gradient.items():
            ways = direction[name].ravel().tolist()
            along += sum((ball * way for ball, way in zip(balls.ravel().tolist(), ways, strict=True)), arb(0))
        difference = _as_ball(value) - along
        scale = along.abs_upper().max(abs(_as_ball(value)).abs_upper())
        agree = difference.abs_lower() <= arb(error) + along.rad()
        fine = arb(error) <= scale * FINE_ENOUGH
        ratio = difference.abs_upper() / (scale if scale > 0 else arb(1))
        agreed = float(digits)
        if ratio > arb(10) ** -digits:
            agreed = max(0.0, -float(ratio.log()) / math.log(10.0))
        shown = along.str(min(digits, 40))
    if not agree and ties:
        answer, sentence = (
            Answer.UNDECIDED,
            f"f was evaluated exactly on a kink ({ties} comparisons of equal numbers), where it has no derivative: "
            f"torch's one-sided rule gives {along.str(17)}, differences give {value.context.nstr(value, 17)}; "
            "start elsewhere than on the kink",
        )
    elif not agree:
        answer, sentence = (
            Answer.REFUTED,
            f"differences of the forward graph give {value.context.nstr(value, 17)} where the {claim} gives "
            f"{along.str(17)}: torch's derivative is not that of the function; look for a custom backward or a detach",
        )
    elif not fine:
        answer, sentence = (
            Answer.UNDECIDED,
            f"differences of the forward graph are good to {error:.1e} only, at {digits} digits, too coarse to confirm "
            f"the {claim}; take fewer steps, or more digits",
        )
    else:
        answer, sentence = (
            Answer.CERTIFIED,
            f"differences of the forward graph agree with the {claim} in {agreed:.0f} digits",
        )
    finding = Finding(f"{claim} confirmed", answer, sentence)
    return Confirmation(finding, value.context.nstr(value, min(digits, 40)), shown, agreed, error)


def _as_ball(value: Any) -> arb:
    sign, mantissa, exponent, _ = value._mpf_
    return arb((-int(mantissa) if sign else int(mantissa), int(exponent)))
