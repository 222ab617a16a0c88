"""The N-step map and its gradient in balls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flint import arb

from verify.certificate.state_map import StateMap
from verify.reference.adjoint_step import adjoint_step
from verify.reference.arithmetic import Array
from verify.reference.arithmetic.balls import filled
from verify.reference.arithmetic.precision import flint_precision


@dataclass(frozen=True)
class Steps:
    """Enclosures of what N reversible steps return and of its gradient.

    Attributes:
        z: z_N, flat.
        y: y_N, flat.
        gradient: of <cotangent_z, z_N> + <cotangent_y, y_N>, by leaf name, the start's included.
        visited: the points at which f was evaluated, in order, 2N of them.
    """

    z: Array
    y: Array
    gradient: dict[str, Array]
    visited: tuple[Array, ...]


def n_steps(function: StateMap, beta: float, num_steps: int, cotangent_z: Array, cotangent_y: Array) -> Steps:
    """Run N steps and their adjoint, states kept, not rebuilt: so the balls grow forward only.

    What f computes at a state is kept for its pullback, so f is evaluated 2N times in all.

        y' = a y + beta f(z)    z' = a z + beta f(y')    a = 1 - beta, exactly

    and back by `verify.reference.adjoint_step`.

    Args:
        function: f in balls.
        beta: relaxation parameter, at its stored bits.
        num_steps: N.
        cotangent_z: dL/dz_N, balls, flat.
        cotangent_y: dL/dy_N, balls, flat.

    Raises:
        Undecided: a comparison on the way cannot be decided.

    References:
        S. McCallum, K. Arora and J. Foster, Reversible Deep Equilibrium Models, arXiv 2509.12917; (T0).
    """
    ops = function.ops
    with flint_precision(max(ops.bits, 64)):
        b, a = filled([arb(beta)], ()), filled([1 - arb(beta)], ())
    y = z = ops.convert(function.start)
    visited: list[Array] = []
    pullbacks: list[Callable[[Array], dict[str, Array]]] = []

    def image(point: Array) -> Array:
        value, pullback = function.linearised(point)
        visited.append(point)
        pullbacks.append(pullback)
        return value

    for step in range(num_steps):
        function.progress(f"enclosing the N steps: step {step + 1} of {num_steps} at {ops.bits} bits")
        y = ops.add(ops.multiply(a, y), ops.multiply(b, image(z)))
        z = ops.add(ops.multiply(a, z), ops.multiply(b, image(y)))
    p_z, p_y = cotangent_z, cotangent_y
    total: dict[str, Array] = {}

    def pulled(cotangent: Array) -> Array:
        # The pullback is linear, so beta goes into its cotangent, the smallest of the arrays.
        parts = pullbacks.pop()(ops.multiply(b, cotangent))
        for name, share in parts.items():
            if name not in function.traced.state:
                total[name] = share if name not in total else ops.add(total[name], share)
        return function.join(parts)

    for step in reversed(range(num_steps)):
        function.progress(f"enclosing the N steps: back through step {step + 1} of {num_steps} at {ops.bits} bits")
        p_y, p_z, _ = adjoint_step(ops, a, p_y, p_z, pulled, pulled)
    start = function.split(ops.add(p_y, p_z))
    if not num_steps:
        total = {name: ops.convert(0.0 * values) for name, values in _other_leaves(function).items()}
    return Steps(z, y, {**start, **total}, tuple(visited))


def _other_leaves(function: StateMap) -> dict[str, Array]:
    arrays = function.traced.arrays()
    return {name: arrays[name] for name in function.traced.leaves if name not in function.traced.state}
