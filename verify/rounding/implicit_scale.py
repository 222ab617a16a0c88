"""How much rounding a given format should cause in the implicit gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from verify.reference.arithmetic.perturbed import Perturbed
from verify.reference.arithmetic.protocol import Array
from verify.reference.fixed_point import fixed_point, jacobian
from verify.reference.linearise import Linearised, convert_args
from verify.rounding.scale import REFERENCE_DIGITS, in_carrier, rms, validate_roundoffs


if TYPE_CHECKING:
    from verify.problems.problem import Problem


@lru_cache(maxsize=256)
def implicit_rounding_scale(
    problem: Problem,
    *,
    unit_roundoff_function: float,
    accumulate_roundoff: float | None = None,
    seeds: int = 8,
) -> dict[str, float]:
    """RMS errors that rounding should cause in the implicit gradient, whatever solver finds the two solutions.

    A solver that stops at rounding level leaves residuals of the size of the rounding of f and of its VJP, so

        dz = (I - K)^-1 (fl f(z*) - z*),   z = z* + dz,   dv = (I - K^T)^-1 (c + fl K(z)^T v - v)
        g = fl f_theta(z)^T (v + dv)

    with fl the perturbed arithmetic. A solver with a coarser tolerance adds its own error to this.

    Args:
        problem: the problem.
        unit_roundoff_function: u of z0, the args and f.
        accumulate_roundoff: u inside sums and products; by default the function's own.
        seeds: how many simulated runs, at least 8.

    Returns:
        "z" and every leaf -> RMS error against the 50-digit reference.

    Raises:
        ValueError: fewer than 8 seeds.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), sections 7.1 and 12.1.
    """
    validate_roundoffs(unit_roundoff_function, unit_roundoff_function, seeds)
    accumulate = unit_roundoff_function if accumulate_roundoff is None else accumulate_roundoff
    function = Perturbed(unit_roundoff_function, accumulate, seed=3)
    inner = function.inner
    exact = fixed_point(problem, REFERENCE_DIGITS)
    args = convert_args(problem, function, seeds)
    shape = (seeds, *problem.z0.shape)
    z_star, v = (np.broadcast_to(in_carrier(function, x), shape) for x in (exact.z_star, exact.adjoint))
    system = np.eye(problem.z0.size) - jacobian(problem, exact.z_star.astype(np.float64), problem.args)

    def solve(matrix: NDArray[np.float64], right: Array) -> Array:
        # The right-hand side is itself only a rounding error, so float64 solves for it more than precisely enough.
        columns = function.to_float64(right).reshape(seeds, -1).T
        return inner.convert(np.linalg.solve(matrix, columns).T.reshape(shape))

    at_star = Linearised(problem, function, function.rounded(z_star), args, replicas=seeds)
    z = inner.add(z_star, solve(system, inner.subtract(at_star.value, z_star)))
    at_z = Linearised(problem, function, function.rounded(z), args, replicas=seeds)
    cotangent = inner.convert((problem.cotangent_z + problem.cotangent_y)[None])
    pulled, _ = at_z.vjp(function.rounded(v))
    v = inner.add(v, solve(system.T, inner.subtract(inner.add(cotangent, pulled), v)))
    _, theta = at_z.vjp(function.rounded(v))
    scales = {"z": rms(function.rounded(z), in_carrier(function, exact.z_star), function), "z0": 0.0}
    for name, value in theta.items():
        leaf = f"args.{name}"
        scales[leaf] = rms(value, in_carrier(function, exact.gradient[leaf]), function)
    return scales
