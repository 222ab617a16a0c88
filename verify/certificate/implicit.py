"""The implicit gradient in balls: the adjoint system over the enclosure of the fixed point."""

from __future__ import annotations

from flint import arb, arb_mat

from verify.certificate.fixed_point import Enclosure
from verify.certificate.linear_algebra import identity, matrix, solve
from verify.certificate.state_map import StateMap
from verify.reference.arithmetic import Array
from verify.reference.arithmetic.balls import filled
from verify.reference.arithmetic.precision import flint_precision


def implicit_gradient(function: StateMap, enclosure: Enclosure, cotangent: Array) -> dict[str, Array] | None:
    """Enclose the gradient of <c, z*> by every leaf but the start.

        (I - K(z*))^T w = c,    gradient = (df/dtheta)(z*)^T w

    Args:
        function: f in balls.
        enclosure: of the fixed point; its Jacobian over the box encloses K(z*).
        cotangent: c, balls, flat.

    Returns:
        Balls by leaf name, or None where the balls do not exclude a singular system.

    References:
        S. Bai, J. Z. Kolter and V. Koltun, Deep Equilibrium Models, NeurIPS 2019, arXiv 1909.01377, theorem 1.
    """
    parts: list[arb] = []
    for block, right in zip(enclosure.jacobian, cotangent.reshape(enclosure.samples, -1), strict=True):
        with flint_precision(enclosure.bits):
            system = identity(block.shape[0]) - matrix(block).transpose()
        solution = solve(system, arb_mat(len(right), 1, right.tolist()), enclosure.bits)
        if solution is None:
            return None
        parts += solution.entries()
    _, pullback = function.linearised(enclosure.solution)
    gradient = pullback(filled(parts, cotangent.shape))
    return {name: balls for name, balls in gradient.items() if name not in function.traced.state}
