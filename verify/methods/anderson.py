"""Anderson's acceleration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from verify.methods._method import BetasOf, Map, Method, State, dot


if TYPE_CHECKING:
    from verify.problems.operations import Operations


HISTORY = 5
"""Changes that are kept."""

RIDGE = 1e-10
"""Regularisation, relative to the squared norm of each change."""


def anderson(at: Map, z: Any, betas: BetasOf) -> Iterator[State]:
    """The iterates, with r_n = f(z_n) - z_n and the changes Z, R of the last `HISTORY` states and residuals,

        gamma = argmin ||r_n - R gamma||^2 + RIDGE sum_j ||R_j||^2 gamma_j^2
        z_{n+1} = z_n + beta r_n - (Z + beta R) gamma          for each sample

    References:
        Walker, Ni, Anderson acceleration for fixed-point iterations (2011), DOI 10.1137/10078356X, equation (2.2).
    """
    ops = at.ops
    before: tuple[Any, Any] | None = None
    changes: list[tuple[Any, Any]] = []
    yield State(z, z)
    for n in count():
        beta = betas(n)[0]
        residual = ops.subtract(at.f(z), z)
        if before is not None:
            changes.append((ops.subtract(z, before[0]), ops.subtract(residual, before[1])))
            changes = changes[-HISTORY:]
        step = ops.multiply(beta, residual)
        for weight, (of_z, of_r) in zip(_weights(ops, changes, residual), changes, strict=True):
            step = ops.subtract(step, ops.multiply(weight, ops.add(of_z, ops.multiply(beta, of_r))))
        before, z = (z, residual), ops.add(z, step)
        yield State(z, z)


def _weights(ops: Operations, changes: list[tuple[Any, Any]], residual: Any) -> list[Any]:
    """The minimiser gamma, each entry of shape (B, 1), by elimination on the normal equations."""
    own = [of_r for _, of_r in changes]
    size = len(own)
    matrix = [[dot(ops, left, right) for right in own] for left in own]
    for i in range(size):
        matrix[i][i] = ops.multiply(1.0 + RIDGE, matrix[i][i])
    right = [dot(ops, left, residual) for left in own]
    for k in range(size):
        for i in range(k + 1, size):
            factor = ops.divide(matrix[i][k], matrix[k][k])
            right[i] = ops.subtract(right[i], ops.multiply(factor, right[k]))
            for j in range(k + 1, size):
                matrix[i][j] = ops.subtract(matrix[i][j], ops.multiply(factor, matrix[k][j]))
    for i in reversed(range(size)):
        for j in range(i + 1, size):
            right[i] = ops.subtract(right[i], ops.multiply(matrix[i][j], right[j]))
        right[i] = ops.divide(right[i], matrix[i][i])
    return right


METHODS = (
    Method(
        name="anderson",
        solver="anderson",
        states=anderson,
        evaluations=1,
        settings=(("dense-tanh", 0.8, 4), ("affine-general", 1.0, 4)),
    ),
    Method(
        name="anderson-tolerance",
        solver="anderson",
        states=anderson,
        evaluations=1,
        settings=(("dense-tanh", 1.0, 100),),
        to_tolerance=True,
        stable=False,
    ),
)
