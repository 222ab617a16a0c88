"""The fixed point and its implicit gradient in multiprecision, from a float64 Jacobian and iterative refinement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.multiprecision import Multiprecision
from verify.reference.arithmetic.perturbed import carrier
from verify.reference.arithmetic.protocol import Array
from verify.reference.compare import greatest_difference
from verify.reference.linearise import Linearised, convert_args, replicate
from verify.reference.n_step import Trajectory


if TYPE_CHECKING:
    from verify.problems.problem import Problem


_APPROACH_BETA = 0.5
_APPROACH_STEPS = 100
_NEWTON_STEPS = 30
_REFINEMENTS = 80


class ReferenceFailure(ArithmeticError):
    """The reference could not be computed to the precision that was asked for; nothing may be judged by it."""


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """The fixed point and the gradient that the implicit function theorem gives there.

    Args:
        z_star: object array of mpf, shape of z0.
        gradient: leaf name -> dL/dleaf with L = <cotangent_z + cotangent_y, z_star>; zero for "z0".
        adjoint: v with (I - K^T) v = cotangent_z + cotangent_y, shape of z0.
        uncertainty: "z" and every leaf -> greatest absolute difference from the run with twice the digits.
        source: how z_star was found.
    """

    z_star: Array
    gradient: dict[str, Array]
    adjoint: Array
    uncertainty: dict[str, float]
    source: str


def jacobian(problem: Problem, z: NDArray[np.float64], args: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """K = df/dz at a state as a float64 matrix over all state components, computed in the carrier (longdouble).

    One pass with a replica per row: row i is the VJP of the i-th unit vector.
    """
    at = carrier()
    size = z.size
    replicated = {name: replicate(at.convert(value), size) for name, value in args.items()}
    linearised = Linearised(problem, at, replicate(at.convert(z), size), replicated, replicas=size)
    rows, _ = linearised.vjp(at.convert(np.eye(size).reshape(size, *z.shape)))
    return at.to_float64(rows).reshape(size, size)


@lru_cache(maxsize=32)
def approximate_fixed_point(problem: Problem) -> NDArray[np.float64]:
    """The fixed point to about float64 precision: 100 reversible steps at beta 1/2, then Newton's method.

    Raises:
        ReferenceFailure: Newton's method did not bring |f(z) - z| to rounding level in 30 steps.
    """
    if problem.closed_form is not None:
        return Multiprecision(30).to_float64(problem.closed_form(30))
    at = carrier()
    _, reached = Trajectory(problem, _APPROACH_BETA, at).states(_APPROACH_STEPS)[-1]
    z = at.to_float64(reached)
    args = convert_args(problem, at)
    identity = np.eye(z.size)
    for _ in range(_NEWTON_STEPS):
        state = at.convert(z)
        residual = at.to_float64(at.subtract(Linearised(problem, at, state, args).value, state))
        update = np.linalg.solve(identity - jacobian(problem, z, problem.args), residual.ravel()).reshape(z.shape)
        z = z + update
        if np.max(np.abs(update)) <= 4 * np.finfo(np.float64).eps * np.max(np.abs(z)):
            return z
    raise ReferenceFailure(
        f"Newton's method found no fixed point of {problem.name} in {_NEWTON_STEPS} steps; give it a closed form"
    )


class Refiner:
    """Solves with I - K to any precision by iterative refinement with one float64 inverse.

    Every pass multiplies the error by about the float64 unit roundoff times the condition number of I - K.

    Args:
        problem: the problem.
        arithmetic: where residuals are computed.
        args: args instead of the problem's, of the arithmetic.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), chapter 12.
    """

    def __init__(self, problem: Problem, arithmetic: Multiprecision, args: Mapping[str, Array] | None = None) -> None:
        self._problem = problem
        self._at = arithmetic
        self._args = convert_args(problem, arithmetic) if args is None else args
        self.start = approximate_fixed_point(problem)
        self._inverse = np.asarray(
            np.linalg.inv(np.eye(self.start.size) - jacobian(problem, self.start, problem.args)), dtype=np.float64
        )

    def state(self) -> Array:
        """The fixed point: z <- z + (I - K)^-1 (f(z) - z) until z stands still at the working precision."""
        return self._refine(self._at.convert(self.start), self._state_residual, self._inverse)

    def adjoint(self, linearised: Linearised, cotangent: Array) -> Array:
        """The solution v of (I - K^T) v = cotangent at the linearisation."""
        at = self._at

        def residual(v: Array) -> Array:
            return at.subtract(cotangent, at.subtract(v, linearised.vjp(v)[0]))

        return self._refine(at.convert(np.zeros(cotangent.shape)), residual, self._inverse.T)

    def _state_residual(self, z: Array) -> Array:
        return self._at.subtract(Linearised(self._problem, self._at, z, self._args).value, z)

    def _refine(self, x: Array, residual: Callable[[Array], Array], inverse: NDArray[np.float64]) -> Array:
        at = self._at
        # Residuals scale with x, and so does the size at which they can no longer shrink.
        resolution = at.context.mpf(10) ** (1 - at.digits)
        previous = None
        for _ in range(_REFINEMENTS):
            r = residual(x)
            size = max((abs(value) for value in r.flat), default=at.context.zero)
            limit = resolution * (1 + max((abs(value) for value in x.flat), default=at.context.zero))
            if size == 0 or (size <= limit and previous is not None and not size < previous / 2):
                return x
            # Scaling keeps residuals below the range of float64 (1e-308) from vanishing in the product.
            scaled = at.to_float64(at.divide(r, at.convert(size))).ravel()
            x = at.add(x, at.multiply(at.convert(size), at.convert((inverse @ scaled).reshape(x.shape))))
            previous = size
        raise ReferenceFailure(
            f"{_REFINEMENTS} refinements did not reach {at.digits} digits on {self._problem.name}; "
            "its Jacobian I - K is too close to singular for a float64 inverse"
        )


def _solve(problem: Problem, digits: int) -> tuple[Array, Array, dict[str, Array]]:
    at = Multiprecision(digits)
    args = convert_args(problem, at)
    refiner = Refiner(problem, at)
    z_star = refiner.state()
    linearised = Linearised(problem, at, z_star, args)
    cotangent = at.add(at.convert(problem.cotangent_z), at.convert(problem.cotangent_y))
    v = refiner.adjoint(linearised, cotangent)
    _, theta = linearised.vjp(v)
    zeros = at.convert(np.zeros(problem.z0.shape))
    return z_star, v, {"z0": zeros} | {f"args.{name}": value for name, value in theta.items()}


@lru_cache(maxsize=64)
def fixed_point(problem: Problem, digits: int = 50) -> FixedPoint:
    """The fixed point z_star = f(z_star, args) and the implicit gradient, with the uncertainty of both.

        (I - K^T) v = cotangent_z + cotangent_y,   dL/dtheta = f_theta(z_star)^T v,   K = df/dz at z_star

    The closed form, where there is one, is only the start: it is accepted if f leaves it in place.

    Args:
        problem: the problem.
        digits: working precision in decimal digits; the uncertainty comes from a second run with twice as many.

    Returns:
        FixedPoint, computed with `digits` digits and cached for the process.

    Raises:
        ReferenceFailure: no fixed point was found, or the closed form is not one.

    References:
        Christianson, doi:10.1080/10556789408805572 (reverse accumulation at fixed points); Bai, Kolter, Koltun,
        arXiv 1909.01377, theorem 1.
    """
    (z_star, v, gradient), (finer_z, _, finer_gradient) = _solve(problem, digits), _solve(problem, 2 * digits)
    uncertainty = {"z": greatest_difference(z_star, finer_z)}
    uncertainty |= {leaf: greatest_difference(gradient[leaf], finer_gradient[leaf]) for leaf in gradient}
    source = "Newton's method, refined"
    closed = problem.answer(digits)
    if closed is not None:
        source = problem.answer_source
        distance = greatest_difference(closed, finer_z)
        scale = 1 + float(max(abs(value) for value in finer_z.flat))
        if not distance <= scale * 10.0 ** (-digits / 2):
            raise ReferenceFailure(
                f"the closed form of {problem.name} is {distance:.3g} away from the fixed point of its statement; "
                "correct one of the two"
            )
        uncertainty["z"] = max(uncertainty["z"], distance)
    return FixedPoint(z_star=z_star, gradient=gradient, adjoint=v, uncertainty=uncertainty, source=source)
