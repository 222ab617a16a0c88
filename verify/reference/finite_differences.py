"""Finite differences of the loss in multiprecision, on a ladder of steps, with an estimate of their error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.protocol import Array
from verify.reference.fixed_point import Refiner
from verify.reference.linearise import convert_args
from verify.reference.n_step import Trajectory, validate_iteration


if TYPE_CHECKING:
    from verify.problems.problem import Problem


Target = Literal["n-step", "fixed-point"]
Direction = Mapping[str, NDArray[np.float64]]

_RUNGS = 3
_RATIO = 2


@dataclass(frozen=True)
class FiniteDifference:
    """A directional derivative with an estimate of its own error.

    Args:
        value: the derivative (mpf, or float for the float64 kind).
        error_estimate: absolute; the last change of the extrapolation plus the cancellation in the differences.
        step: the smallest step used.
    """

    value: Any
    error_estimate: float
    step: float


@lru_cache(maxsize=64)
def default_direction(problem: Problem, seed: int = 0) -> Direction:
    """Normal numbers for every leaf, each leaf scaled to the size of its own values so that no leaf dominates."""
    generator = np.random.default_rng((seed, 97))
    values = {"z0": problem.z0} | {f"args.{name}": value for name, value in problem.args.items()}
    direction: dict[str, NDArray[np.float64]] = {}
    for leaf, value in values.items():
        size = float(np.max(np.abs(value))) if value.size else 1.0
        direction[leaf] = generator.normal(0.0, size or 1.0, value.shape)
    return direction


@lru_cache(maxsize=64)
def default_leaf_direction(problem: Problem, leaf: str, seed: int = 0) -> Direction:
    """The default direction's part in one leaf."""
    return {leaf: default_direction(problem, seed)[leaf]}


class _Ray:
    """The loss along theta + h direction for h = +-step, extended in N on demand."""

    def __init__(self, problem: Problem, beta: float, at: Multiprecision, direction: Direction, step: Any) -> None:
        self._problem, self._at = problem, at
        self._runs = [
            Trajectory(
                problem, beta, at, z0=_moved_z0(problem, at, direction, h), args=_moved(problem, at, direction, h)
            )
            for h in (step, -step)
        ]

    def quotient(self, num_steps: int, step: Any) -> Any:
        """(L(+step) - L(-step)) / (2 step)."""
        plus, minus = (_loss(self._problem, self._at, *run.states(num_steps)[-1]) for run in self._runs)
        return (plus - minus) / (2 * step)


def _moved(problem: Problem, at: Multiprecision, direction: Direction, step: Any) -> dict[str, Array]:
    moved: dict[str, Array] = {}
    for name, value in convert_args(problem, at).items():
        along = direction.get(f"args.{name}")
        moved[name] = value if along is None else at.add(value, at.multiply(at.convert(step), at.convert(along)))
    return moved


def _moved_z0(problem: Problem, at: Multiprecision, direction: Direction, step: Any) -> Array:
    z0, along = at.convert(problem.z0), direction.get("z0")
    return z0 if along is None else at.add(z0, at.multiply(at.convert(step), at.convert(along)))


def _loss(problem: Problem, at: Multiprecision, y: Array, z: Array) -> Any:
    parts = [
        at.sum(at.multiply(at.convert(cotangent), state))
        for cotangent, state in ((problem.cotangent_z, z), (problem.cotangent_y, y))
    ]
    return at.add(*parts)[()]


def loss_along(
    problem: Problem,
    beta: float,
    num_steps: int,
    direction: Direction | None = None,
    *,
    target: Target = "n-step",
    digits: int = 50,
) -> Callable[[Any], Any]:
    """The loss as a function h -> L(theta + h d) in multiprecision, as the Taylor test wants it.

    Args:
        problem: the problem.
        beta: relaxation parameter (not used for the fixed point).
        num_steps: N, the same at every h (not used for the fixed point).
        direction: leaf -> float64 array; None for `default_direction`.
        target: "n-step" or "fixed-point".
        digits: working precision.

    Returns:
        A function of a number that returns an mpf.

    Raises:
        ValueError: an unknown target, a leaf that the problem does not have, an array of another shape.
    """
    at = Multiprecision(digits)
    along = default_direction(problem) if direction is None else direction
    _validate_direction(problem, along)
    if target == "n-step":
        validate_iteration(beta, num_steps)

        def n_step_loss(h: Any) -> Any:
            run = Trajectory(problem, beta, at, z0=_moved_z0(problem, at, along, h), args=_moved(problem, at, along, h))
            return _loss(problem, at, *run.states(num_steps)[-1])

        return n_step_loss
    if target == "fixed-point":
        return lambda h: _fixed_point_loss(problem, at, along, h)
    raise ValueError(f"target is {target!r}; it must be 'n-step' or 'fixed-point'")


def _fixed_point_loss(problem: Problem, at: Multiprecision, direction: Direction, step: Any) -> Any:
    z = Refiner(problem, at, _moved(problem, at, direction, step)).state()
    return _loss(problem, at, z, z)


def _ladder(at: Multiprecision) -> list[Any]:
    # Three rungs of extrapolation leave h^6; rounding leaves 10^-digits / h; h = 10^(-digits/7) balances the two.
    first = at.context.mpf(10.0 ** (-at.digits / 7))
    return [first / _RATIO**rung for rung in range(_RUNGS)]


@lru_cache(maxsize=4)
def _rays(problem: Problem, beta: float, digits: int) -> list[tuple[Any, _Ray]]:
    return _make_rays(problem, beta, Multiprecision(digits), default_direction(problem))


def _make_rays(problem: Problem, beta: float, at: Multiprecision, direction: Direction) -> list[tuple[Any, _Ray]]:
    return [(step, _Ray(problem, beta, at, direction, step)) for step in _ladder(at)]


def finite_differences(
    problem: Problem,
    beta: float,
    num_steps: int,
    target: Target = "n-step",
    direction: Direction | None = None,
    digits: int = 50,
) -> FiniteDifference:
    """The derivative of the loss along a direction, by central differences in multiprecision.

        D(h) = (L(theta + h d) - L(theta - h d)) / (2h),   extrapolated over h, h/2, h/4 to error O(h^6)

    The number of steps is frozen: L is the loss of the same N steps at every h. For the target "fixed-point" the loss
    is <cotangent_z + cotangent_y, z_star> and z0 has no part in it.

    Args:
        problem: the problem.
        beta: relaxation parameter (not used for the fixed point).
        num_steps: N (not used for the fixed point).
        target: "n-step" or "fixed-point".
        direction: leaf -> float64 array of its shape; leaves left out stand still; None for `default_direction`.
        digits: working precision.

    Returns:
        FiniteDifference with an mpf value.

    Raises:
        ValueError: an unknown target, a leaf that the problem does not have, an array of another shape.

    References:
        Ridders, doi:10.1016/S0141-1195(82)80057-0 (extrapolated central differences).
    """
    at = Multiprecision(digits)
    if direction is not None:
        _validate_direction(problem, direction)
    if target == "n-step":
        validate_iteration(beta, num_steps)
        shared = direction is None
        rays = _rays(problem, beta, digits) if shared else _make_rays(problem, beta, at, direction)
        quotients = [(step, ray.quotient(num_steps, step)) for step, ray in rays]
    elif target == "fixed-point":
        quotients = _fixed_point_quotients(problem, at, default_direction(problem) if direction is None else direction)
    else:
        raise ValueError(f"target is {target!r}; it must be 'n-step' or 'fixed-point'")
    return _extrapolate(quotients, digits)


def _validate_direction(problem: Problem, direction: Direction) -> None:
    shapes = {"z0": problem.z0.shape} | {f"args.{name}": value.shape for name, value in problem.args.items()}
    for leaf, along in direction.items():
        if leaf not in shapes:
            raise ValueError(f"{problem.name} has no leaf {leaf!r}; choose among {', '.join(shapes)}")
        if np.shape(along) != shapes[leaf]:
            raise ValueError(f"the direction of {leaf} has shape {np.shape(along)}; it must be {shapes[leaf]}")


def _fixed_point_quotients(problem: Problem, at: Multiprecision, direction: Direction) -> list[tuple[Any, Any]]:
    quotients: list[tuple[Any, Any]] = []
    for step in _ladder(at):
        plus, minus = (_fixed_point_loss(problem, at, direction, h) for h in (step, -step))
        quotients.append((step, (plus - minus) / (2 * step)))
    return quotients


def _extrapolate(quotients: list[tuple[Any, Any]], digits: int) -> FiniteDifference:
    """Richardson's tableau in powers of h^2; the last two diagonal entries give the error estimate."""
    diagonal: list[Any] = []
    row: list[Any] = []
    for _, quotient in quotients:
        fresh = [quotient]
        for order, coarse in enumerate(row, start=1):
            factor = _RATIO ** (2 * order)
            fresh.append((factor * fresh[order - 1] - coarse) / (factor - 1))
        row = fresh
        diagonal.append(fresh[-1])
    smallest = float(quotients[-1][0])
    cancellation = 10.0 ** (2 - digits) * (1 + abs(float(diagonal[-1]))) / smallest
    return FiniteDifference(diagonal[-1], abs(float(diagonal[-1] - diagonal[-2])) + cancellation, smallest)
