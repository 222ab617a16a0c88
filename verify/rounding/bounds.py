"""Rigorous bounds on what rounding does to the states, their reversal and the gradient of dense cells.

NOTE [The recursions]
f(z) = phi(z W^T + c) with |phi'| <= 1 has the Lipschitz constant k = |W|_2 in the 2-norm of the whole batch, and its
derivative K(z) = diag(phi') W the constant M = |phi''| k^2. With u the unit roundoff, bounds of the errors follow the
iteration itself, a = 1 - beta and A = 1/|a|:

    forward     e_y' = |a| e_y + beta (k e_z + eps_f) + u (2 |a y| + 2 beta |f| + |y'|),   e_z' with e_y' likewise
    reversal    d_z  = A (d_z' + beta (k d_y' + eps_f)) + u (A (3 beta |f| + 2 |z' - beta f|) + 2 |z|),   d_N = e_N
    cotangents  h_q  = h_py + beta ((k + M d_y') h_pz + M d_y' |p_z|) + rounding,
                h_py <- |a| h_q,   h_pz <- |a| h_pz + beta ((k + M d_z) h_q + M d_z |q|) + rounding
    W           sum of (|phi' p| error) |z| + |p| d_z over the evaluations, and the roundings of products and sums

Integer states (`revdeq.Bitwise`) of n components in units U err in a half step by

    e_y' = |a| e_y + beta (k e_z + eps_f) + sqrt(n) U (1 + 2^c / 2) + 4 u |y| + 2 u beta |f|,     u = 2^-53

floor and the rounding of beta f to multiples of 2^c units, 1 - beta against 1/m, and the product beta f in float64.
They are rebuilt to the bit, so that d = e.

The first two are T7's majorants with the local errors written out; the others carry them into the gradient. Norms on
the right are those of the exact trajectory (computed in float64, and widened) plus the bound so far, which makes them
bounds of the computed ones. Reversal assumes nothing of f's repeating: the value is counted as wrong by eps_f anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from verify.case import Arithmetic
from verify.problems.problem import Problem
from verify.rounding.dense_cell import WIDENED, DenseCell, ExactRun, Floats, bounded as bounded, norm


# An elementary function of torch errs by less than 2 units in the last place, 4 u.
_ELEMENTARY = 4


@dataclass(frozen=True)
class ErrorBounds:
    """Bounds on the 2-norms of errors against the exact N-step iteration and its gradient.

    Attributes:
        forward_y: of y_N in the state dtype.
        forward_z: of z_N.
        rebuilt_y: entry n bounds that of y_n as the reversal rebuilds it.
        rebuilt_z: likewise z_n.
        gradient: leaf -> that of dL/dleaf, for the leaves "z0", "args.W" and "args.b".
    """

    forward_y: float
    forward_z: float
    rebuilt_y: tuple[float, ...]
    rebuilt_z: tuple[float, ...]
    gradient: dict[str, float]


BOUNDED_LEAVES = ("z0", "args.W", "args.b")
"""The leaves whose gradients have bounds."""


def error_bounds(
    problem: Problem,
    beta: float,
    num_steps: int,
    *,
    unit_roundoff_state: float,
    unit_roundoff_function: float,
    arithmetic: Arithmetic = "floating",
) -> ErrorBounds:
    """Bound the errors of N reversible steps, of their reversal and of its gradient, for any order of summation.

    Args:
        problem: an affine problem or "dense-tanh".
        beta: relaxation parameter in (0, 2), not 1.
        num_steps: N >= 0.
        unit_roundoff_state: u of the states: 2^-53 for float64, 2^-24 for float32, 2^-8 for bfloat16 (half the spacing
            at 1, as in `torch.finfo(dtype).eps / 2`).
        unit_roundoff_function: u of z0, the args and f; not finer than the state's.
        arithmetic: "bitwise" for integer states in the range and resolution that z0 and f(z0) ask for; then
            unit_roundoff_state says nothing.

    Returns:
        `ErrorBounds`; infinite where they leave the range of float64. They hold as long as no computed number leaves
        the range of its own dtype.

    Raises:
        ValueError: another problem; a beta that cannot be undone.

    References:
        Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), sections 3.1 and 3.5,
        doi:10.1137/1.9780898718027. (T7)
    """
    if not 0 < beta < 2 or beta == 1:
        raise ValueError(f"beta is {beta}; a step can be undone for 0 < beta < 2, not 1.")
    cell = DenseCell.of(problem)
    integer = arithmetic == "bitwise"
    state = 2.0**-53 if integer else unit_roundoff_state
    run = _Bounded(cell, problem, beta, num_steps, state, unit_roundoff_function)
    if integer:
        run.hold_integers()
    with np.errstate(over="ignore", invalid="ignore"):
        return run.bounds()


class _Bounded:
    def __init__(
        self, cell: DenseCell, problem: Problem, beta: float, num_steps: int, state: float, function: float
    ) -> None:
        self.cell, self.beta, self.steps = cell, beta, num_steps
        self.a, self.amplification = abs(1 - beta), 1 / abs(1 - beta)
        self.u, self.v = state, function
        self.k, self.curvature = cell.lipschitz, cell.curvature
        self.exact = ExactRun.of(cell, problem, beta, num_steps)
        self.samples, self.width = problem.z0.shape
        self.integer = False
        self.start = self.absolute = 0.0
        self.e_y: list[float] = []
        self.e_z: list[float] = []

    def hold_integers(self) -> None:
        """Let the states be integers: their start is rounded, and half steps err by a part of their unit."""
        self.integer = True
        peak = max(float(np.max(np.abs(values), initial=0.0)) for values in (self.exact.z[0], self.value_at_start()))
        # The unit is 2^-52 of a power of two, which is at most twice the greatest component as f's dtype has it.
        unit = 2 * 1.04 * peak * 2.0**-52
        m = round(self.amplification)
        grid = max(0, 44 + round(math.log2(self.v))) if m & (m - 1) == 0 else 0
        components = math.sqrt(self.samples * self.width)
        self.start = components * unit * 2.0**grid / 2
        self.absolute = components * unit * (1 + 2.0**grid / 2)

    def value_at_start(self) -> Floats:
        return self.cell.value(self.exact.z[0])

    def gamma(self, count: int) -> float:
        """Bound on the relative error of `count` roundings in the function's dtype."""
        # Higham's gamma_n = n u / (1 - n u): it covers every order of summation, and fused products as well.
        total = count * self.v
        return total / (1 - total) if total < 1 else math.inf

    def value_error(self, z_norm: float, f_norm: float) -> float:
        """eps_f: the cast of the state, the dot products, the sum with c, and phi."""
        # Rounding |z| to f's dtype moves each component by at most u/(1 + u) of it; 1.04 is room for 2^-8, bfloat16's.
        cast = 1.04 * self.v * self.k * z_norm if self.u < self.v or self.integer else 0.0
        # A dot product errs by gamma times the sum of magnitudes, hence | |W| |_2; phi' <= 1 carries it on.
        inner = self.gamma(self.width + 2 + self.cell.roundings) * (self.cell.absolute * z_norm + self.cell.size)
        return cast + inner + (_ELEMENTARY * self.v * (f_norm + inner) if self.cell.curved else 0.0)

    def bounds(self) -> ErrorBounds:
        y, z = self.forward()
        return self.backward(y, z)

    def forward(self) -> tuple[float, float]:
        e_y = e_z = self.start
        self.e_y, self.e_z = [e_y], [e_z]
        for n in range(self.steps):
            e_y = self.half_step(e_y, e_z, self.exact.y[n], self.exact.z[n], self.exact.at_z[n], self.exact.y[n + 1])
            e_z = self.half_step(
                e_z, e_y, self.exact.z[n], self.exact.y[n + 1], self.exact.at_y[n], self.exact.z[n + 1]
            )
            self.e_y.append(e_y)
            self.e_z.append(e_z)
        return e_y, e_z

    def half_step(self, own: float, other: float, s: Floats, at: Floats, value: Floats, after: Floats) -> float:
        # f errs by its own rounding, at the computed state, and by k times how far that state is off.
        wrong = self.k * other + self.value_error(norm(at) + other, norm(value) + self.k * other)
        if self.integer:
            # floor loses less than a unit, the value half of a grid step: absolute, whatever the state's size.
            rounded = 4 * self.u * (norm(s) + own) + 2 * self.u * self.beta * (norm(value) + wrong)
            return (self.a * own + self.beta * wrong + self.absolute + rounded) * WIDENED
        # Each product rounds itself and its factor 1 - beta or beta, the sum rounds once.
        size = 2 * self.a * (norm(s) + own) + 2 * self.beta * (norm(value) + wrong)
        error = self.a * own + self.beta * wrong + self.u * size
        return (error + self.u * (norm(after) + error)) * WIDENED

    def undo(self, own: float, other: float, at: Floats, value: Floats, s: Floats) -> float:
        wrong = self.k * other + self.value_error(norm(at) + other, norm(value) + self.k * other)
        # What is divided by a is z' - beta f = a z, as small as the state that it rebuilds; its error is not.
        difference = self.a * norm(s) + own + self.beta * wrong
        error = own + self.beta * wrong + self.u * (3 * self.beta * (norm(value) + wrong) + 2 * difference)
        rebuilt = self.amplification * error
        return (rebuilt + 2 * self.u * (norm(s) + rebuilt)) * WIDENED

    def pulled(self, error: float, p: Floats, off: float, at: Floats, value: Floats) -> tuple[float, float]:
        """Bounds on the errors of beta K^T p and of beta phi' p, for a cotangent and a state that are off."""
        size = norm(p) + error
        wrong = self.value_error(norm(at) + off, norm(value) + self.k * off) if self.cell.curved else 0.0
        # phi' = 1 - phi^2 is off by |phi''| times what the argument is off, M/k off, and by twice the error of phi.
        slope = self.curvature / max(self.k, 1e-300) * off + 2 * wrong + 4 * self.v if self.cell.curved else 0.0
        # The factor beta, the cast to f's dtype and the product with phi' round once each.
        hidden = self.beta * (error + (slope + self.gamma(4)) * size)
        through = self.k * hidden + self.gamma(self.width + 2) * self.cell.absolute * (self.beta * size + hidden)
        return through * WIDENED, hidden * WIDENED

    def backward(self, forward_y: float, forward_z: float) -> ErrorBounds:
        exact = self.exact
        d_y, d_z = forward_y, forward_z
        rebuilt_y, rebuilt_z = [d_y], [d_z]
        h_y = h_z = 0.0
        weight = bias = total_weight = total_bias = 0.0
        for n in reversed(range(self.steps)):
            y, z, p_y, p_z, q = exact.y[n + 1], exact.z[n], exact.p_y[n + 1], exact.p_z[n + 1], exact.q[n]
            d_z = self.e_z[n] if self.integer else self.undo(d_z, d_y, y, exact.at_y[n], z)
            through, hidden = self.pulled(h_z, p_z, d_y, y, exact.at_y[n])
            parts = self.parts(hidden, p_z, h_z, y, d_y)
            weight, bias = weight + parts[0], bias + parts[1]
            total_weight, total_bias = total_weight + parts[2], total_bias + parts[3]
            # Errors of cotangents obey the recursion of the cotangents, with |.| for every factor, and round anew.
            h_q = (h_y + through) * (1 + self.u) + self.u * (norm(p_y) + norm(q))
            d_y = self.e_y[n] if self.integer else self.undo(d_y, d_z, z, exact.at_z[n], exact.y[n])
            through, hidden = self.pulled(h_q, q, d_z, z, exact.at_z[n])
            parts = self.parts(hidden, q, h_q, z, d_z)
            weight, bias = weight + parts[0], bias + parts[1]
            total_weight, total_bias = total_weight + parts[2], total_bias + parts[3]
            h_z = self.a * h_z * (1 + 3 * self.u) + through + 3 * self.u * self.a * norm(p_z)
            h_z += self.u * (norm(exact.p_z[n]) + h_z)
            h_y = self.a * h_q * (1 + 3 * self.u) + 2 * self.u * self.a * norm(q)
            rebuilt_y.append(d_y)
            rebuilt_z.append(d_z)
        # Sums over 2 N evaluations at the accumulator's roundoff, at most float32's, then one rounding to f's dtype.
        summed = 2 * self.steps * min(self.v, 2.0**-24) + self.v
        start = h_y + h_z + (self.u + self.v) * 2 * (norm(exact.p_y[0]) + norm(exact.p_z[0]) + h_y + h_z)
        return ErrorBounds(
            forward_y=forward_y,
            forward_z=forward_z,
            rebuilt_y=tuple(rebuilt_y[::-1]),
            rebuilt_z=tuple(rebuilt_z[::-1]),
            gradient={
                "z0": start,
                "args.W": weight + summed * (total_weight + weight),
                "args.b": bias + summed * (total_bias + bias),
            },
        )

    def parts(self, hidden: float, p: Floats, error: float, s: Floats, off: float) -> tuple[float, float, float, float]:
        """Bounds on the errors that one evaluation leaves in dL/dW and dL/db, and on the norms of its parts."""
        size, state = self.beta * (norm(p) + error) + hidden, norm(s) + off
        rounded = self.gamma(self.samples + 2) * size
        cast = 1.04 * self.v * state if self.u < self.v else 0.0
        # |sum of S rows| <= sqrt(S) |rows|_F; the affine problems have a bias of each sample's own, which is no sum.
        samples = math.sqrt(self.samples) if self.cell.curved else 1.0
        return (
            (hidden + rounded) * state + size * (off + cast),
            samples * (hidden + rounded),
            size * state,
            samples * size,
        )
