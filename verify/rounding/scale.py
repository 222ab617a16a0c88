"""How much rounding a given format should cause: the same algorithm in perturbed arithmetic, many times over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from verify.reference.adjoint_step import adjoint_step
from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.perturbed import Perturbed
from verify.reference.arithmetic.protocol import Array
from verify.reference.linearise import Linearised, convert_args, replicate
from verify.reference.n_step import n_step, validate_iteration


if TYPE_CHECKING:
    from verify.problems.problem import Problem


Differentiation = Literal["reversible", "unrolled"]

REFERENCE_DIGITS = 50
_HALVES = {"z": 0, "y": 1}


@dataclass(frozen=True)
class RoundingScale:
    """RMS errors that rounding alone should cause, over seeds and components.

    A scale is inf where the simulated run left the numbers (overflow, a logarithm of a negative number): the run has no
    power there. It is 0 where nothing rounds.

    Args:
        forward_z: of z_N as returned, in z0's dtype.
        forward_y: of y_N as returned.
        reconstruction: entry n is that of (y_n, z_n) as the reversal rebuilds it from step N, against the exact states.
        round_trip: entry n is that of the rebuilt (y_n, z_n) against the states of its own forward pass.
        gradient: leaf -> that of dL/dleaf.
    """

    forward_z: float
    forward_y: float
    reconstruction: tuple[float, ...]
    round_trip: tuple[float, ...]
    gradient: dict[str, float]


class _Simulation:
    """One perturbed run with `seeds` replicas: states in one format, the function in another, casts between them."""

    def __init__(
        self,
        problem: Problem,
        beta: float,
        state: Perturbed,
        function: Perturbed,
        seeds: int,
    ) -> None:
        self._problem = problem
        self.state, self.function, self.seeds = state, function, seeds
        self._args = convert_args(problem, function, seeds)
        rank = problem.z0.ndim
        self.beta = self._coefficient(Fraction(beta), rank)
        self.a = self._coefficient(1 - Fraction(beta), rank)

    def _coefficient(self, value: Fraction, rank: int) -> Array:
        # A Python number that multiplies a tensor is held at the accumulator's precision; dyadic ones are held exactly.
        wide = self.state.accumulator()
        number = wide.convert(np.full((self.seeds,) + (1,) * rank, float(value)))
        bits = round(-np.log2(wide.unit_roundoff))
        return number if _is_representable(value, bits) else wide.rounded(number)

    def start(self) -> Array:
        """z0, once per replica."""
        return replicate(self.state.convert(self._problem.z0), self.seeds)

    def evaluate(self, z: Array, step: int, half: str) -> Linearised:
        """The function at a state, in its own format; the same step and half meet the same stream of disturbances."""
        self.function.restart(step, _HALVES[half])
        return Linearised(self._problem, self.function, self.cast(z), self._args, replicas=self.seeds)

    def cast(self, x: Array) -> Array:
        """A state, or a cotangent, as the function sees it."""
        return self.function.rounded(x) if self.function.unit_roundoff > self.state.unit_roundoff else x

    def forward(self, s: Array, f: Array) -> Array:
        """One half step a s + beta f."""
        state = self.state
        return state.add(state.multiply(self.a, s), state.accumulator().multiply(self.beta, f))

    def inverse(self, s: Array, f: Array) -> Array:
        """Its inverse (s - beta f) / a."""
        state = self.state
        return state.divide(state.subtract(s, state.accumulator().multiply(self.beta, f)), self.a)


def _is_representable(value: Fraction, bits: int) -> bool:
    """Whether `bits` significant binary digits hold the value."""
    power_of_two = value.denominator & (value.denominator - 1) == 0
    odd = value.numerator >> max((value.numerator & -value.numerator).bit_length() - 1, 0)
    return power_of_two and abs(odd).bit_length() <= bits


def rms(perturbed: Array, exact: Array, at: Perturbed) -> float:
    """Root mean square of perturbed - exact over replicas and components; inf if any of them is not finite."""
    with np.errstate(all="ignore"):
        errors = at.to_float64(at.inner.subtract(perturbed, exact))
        # Scaling first keeps squares of tiny and huge errors inside the range.
        greatest = float(np.max(np.abs(errors))) if errors.size else 0.0
        if not np.isfinite(greatest):
            return float("inf")
        return greatest * float(np.sqrt(np.mean((errors / greatest) ** 2))) if greatest else 0.0


def validate_roundoffs(unit_roundoff_state: float, unit_roundoff_function: float, seeds: int) -> None:
    """Refuse a state that is coarser than the function and fewer than 8 seeds."""
    if not unit_roundoff_state <= unit_roundoff_function:
        raise ValueError(
            f"the state's unit roundoff {unit_roundoff_state} is coarser than the function's {unit_roundoff_function}; "
            "states are as wide as the function or wider"
        )
    if seeds < 8:
        raise ValueError(f"seeds is {seeds}; an RMS over fewer than 8 runs is not a scale")


@lru_cache(maxsize=256)
def rounding_scale(
    problem: Problem,
    beta: float,
    num_steps: int,
    *,
    unit_roundoff_state: float,
    unit_roundoff_function: float,
    accumulate_roundoff: float | None = None,
    seeds: int = 8,
    differentiation: Differentiation = "reversible",
) -> RoundingScale:
    """The errors that rounding should cause in N reversible steps, their reversal and their gradient.

    The product's order of operations is followed: y' = a y + beta f(z) with every product and sum rounded in the state
    format, the function in its own with casts between; the reversal divides by a; cotangents of the states are kept in
    the state format and cast before a VJP, those of the args are accumulated at the accumulator's precision; z_N, y_N
    and the gradient are rounded to the function's format at the end.

    Where both formats are one, disturbances are independent (M0). A wider state is simulated on the formats'
    grids, with the function's rounding a fixed function of its input: there the reversal starts from the very bits of
    the forward pass, f rounds the second time as it did the first, and independent disturbances would predict
    reconstruction errors of the function's roundoff that do not happen (M3).

    Args:
        problem: the problem.
        beta: relaxation parameter in (0, 2), not 1.
        num_steps: N >= 0.
        unit_roundoff_state: u of the states: 2^-53 for float64, 2^-24 for float32, 2^-8 for bfloat16, 2^-11 for half.
        unit_roundoff_function: u of z0, the args and f; not finer than the state's.
        accumulate_roundoff: u inside sums and products of the function (2^-24 for bfloat16 and float16); by default the
            function's own.
        seeds: how many simulated runs, at least 8.
        differentiation: "reversible" differentiates at the rebuilt states, "unrolled" at the stored ones.

    Returns:
        RoundingScale, against the 50-digit reference.

    Raises:
        ValueError: beta = 1 or outside (0, 2), a state coarser than the function, fewer than 8 seeds.
    """
    validate_iteration(beta, num_steps)
    if beta == 1:
        raise ValueError("beta is 1; the reversal divides by 1 - beta, take another beta")
    validate_roundoffs(unit_roundoff_state, unit_roundoff_function, seeds)
    if differentiation not in ("reversible", "unrolled"):
        raise ValueError(f"differentiation is {differentiation!r}; it must be 'reversible' or 'unrolled'")
    rounding = "grid" if unit_roundoff_state < unit_roundoff_function else "relative"
    accumulate = unit_roundoff_function if accumulate_roundoff is None else accumulate_roundoff
    function = Perturbed(unit_roundoff_function, accumulate, seed=1, rounding=rounding)
    state = Perturbed(unit_roundoff_state, min(accumulate, unit_roundoff_state), seed=2, rounding=rounding)
    run = _Simulation(problem, beta, state, function, seeds)
    exact = n_step(problem, beta, num_steps, REFERENCE_DIGITS)

    y = z = run.start()
    states = [(y, z)]
    for step in range(num_steps):
        y = run.forward(y, run.evaluate(z, step, "z").value)
        z = run.forward(z, run.evaluate(y, step, "y").value)
        states.append((y, z))
    gradient, rebuilt = _adjoint(problem, run, states, reverse=differentiation == "reversible")

    trajectory = [(in_carrier(function, y), in_carrier(function, z)) for y, z in exact.trajectory]
    return RoundingScale(
        forward_z=rms(run.cast(states[-1][1]), trajectory[-1][1], function),
        forward_y=rms(run.cast(states[-1][0]), trajectory[-1][0], function),
        reconstruction=tuple(_pair_rms(rebuilt[n], trajectory[n], function) for n in range(num_steps + 1)),
        round_trip=tuple(_pair_rms(rebuilt[n], states[n], function) for n in range(num_steps + 1)),
        gradient={
            leaf: rms(value, in_carrier(function, exact.gradient[leaf]), function) for leaf, value in gradient.items()
        },
    )


def _pair_rms(rebuilt: tuple[Array, Array], other: tuple[Array, Array], at: Perturbed) -> float:
    rms_y, rms_z = (rms(s, t, at) for s, t in zip(rebuilt, other, strict=True))
    return math.hypot(rms_y, rms_z) / math.sqrt(2)


def in_carrier(at: Perturbed, exact: Array) -> Array:
    """A multiprecision array in the carrier, with an axis for the replicas."""
    if at.inner.convert(0).dtype == object:
        return at.inner.convert(exact)[None]
    high = exact.astype(np.float64)
    low = np.asarray(np.subtract(exact, Multiprecision(REFERENCE_DIGITS).convert(high))).astype(np.float64)
    return (high.astype(np.longdouble) + low.astype(np.longdouble))[None]


def _adjoint(
    problem: Problem, run: _Simulation, states: list[tuple[Array, Array]], *, reverse: bool
) -> tuple[dict[str, Array], list[tuple[Array, Array]]]:
    """The gradient per replica, and the states at which it was taken."""
    state, function, seeds = run.state, run.function, run.seeds
    wide = function.accumulator()
    p_z = replicate(state.convert(problem.cotangent_z), seeds)
    p_y = replicate(state.convert(problem.cotangent_y), seeds)
    theta = {name: wide.convert(np.zeros((seeds, *value.shape))) for name, value in problem.args.items()}
    y, z = states[-1]
    visited = [(y, z)]
    parts: list[Mapping[str, Array]] = []

    def pull(at: Linearised, cotangent: Array) -> Array:
        back, part = at.vjp(run.cast(state.multiply(run.beta, cotangent)))
        parts.append(part)
        return back

    for step in reversed(range(len(states) - 1)):

        def pull_y(p: Array, step: int = step) -> Array:
            nonlocal z
            at_y = run.evaluate(y, step, "y")
            z = run.inverse(z, at_y.value) if reverse else states[step][1]
            return pull(at_y, p)

        def pull_z(p: Array, step: int = step) -> Array:
            nonlocal y
            at_z = run.evaluate(z, step, "z")
            y = run.inverse(y, at_z.value) if reverse else states[step][0]
            return pull(at_z, p)

        p_y, p_z, _ = adjoint_step(state, run.a, p_y, p_z, pull_y, pull_z)
        of_y, of_z = parts.pop(0), parts.pop(0)
        theta = {name: wide.add(wide.add(total, of_y[name]), of_z[name]) for name, total in theta.items()}
        visited.append((y, z))
    gradient = {"z0": run.cast(state.add(p_y, p_z))}
    for name, total in theta.items():
        gradient[f"args.{name}"] = total if wide is function else function.rounded(total)
    return gradient, visited[::-1]
