"""A monotone equilibrium: its affine part need not contract, and splitting solvers find its fixed point."""

from __future__ import annotations

from itertools import product
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from verify.problems import data
from verify.problems.operations import Operations
from verify.problems.problem import Float64Array, Problem, to_bfloat16
from verify.problems.scope import Declared, Scope
from verify.problems.splitting import Splitting


_SIZE = 4


def _prox(ops: Operations, u: Any) -> Any:
    return ops.relu(u)


def _statement(ops: Operations, z: Any, args: Any) -> Any:
    return _prox(ops, ops.add(ops.matmul(z, ops.transpose(args["W"])), args["b"]))


def _weight() -> Float64Array:
    a, b = data.normal(81, (_SIZE, _SIZE), 0.25), data.normal(82, (_SIZE, _SIZE), 0.25)
    return to_bfloat16(0.5 * np.eye(_SIZE) - a.T @ a + b - b.T)


def _active(weight: Float64Array, bias: Float64Array) -> NDArray[np.bool_]:
    """Which components of the one solution of z = relu(W z + b) are positive: the pattern that agrees with itself."""
    for pattern in product((False, True), repeat=_SIZE):
        active = np.array(pattern)
        z = np.linalg.solve(np.eye(_SIZE) - active[:, None] * weight, active * bias)
        if np.array_equal(weight @ z + bias > 0, active):
            return active
    raise ArithmeticError("no pattern of positive components agrees with itself: I - W is not monotone")


def _solve(weight: Float64Array, bias: Float64Array, digits: int) -> NDArray[Any]:
    context: Any = mpmath.MPContext()
    context.dps = digits + 10
    solution = np.empty(bias.shape, dtype=object)
    for row, right in enumerate(bias):
        active = _active(weight, right)
        system = context.eye(_SIZE) - context.matrix((active[:, None] * weight).tolist())
        solution[row] = list(context.lu_solve(system, context.matrix((active * right).tolist())))
    return solution


def _oracle(weight: Float64Array, bias: Float64Array) -> Float64Array:
    def solved(right: Float64Array) -> Float64Array:
        active = _active(weight, right)
        return np.asarray(np.linalg.solve(np.eye(_SIZE) - active[:, None] * weight, active * right), dtype=np.float64)

    return np.stack([solved(right) for right in bias])


def monotone_relu() -> Problem:
    """f(z) = relu(W z + b) with W = I/2 - A^T A + B - B^T, rounded; I - W is strongly monotone.

    Each sample has positive components and others, so that the proximal operator matters.
    """
    weight, bias = _weight(), data.normal(83, (2, _SIZE))
    cotangent_z, cotangent_y = data.cotangents(85, (2, _SIZE))
    return Problem(
        name="monotone-relu",
        title="Monotone cell with ReLU",
        source="Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, proposition 1",
        statement=_statement,
        z0=data.normal(84, (2, _SIZE)),
        args={"W": weight, "b": bias},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=data.spectral_norm_bound(weight),
        contraction_kind="bound",
        spectrum="nonlinear",
        closed_form=lambda digits: _solve(weight, bias, digits),
        answer_source="mpmath.lu_solve of (I - W) z = b on the positive components",
        oracle_float64=lambda: _oracle(weight, bias),
        oracle_source="numpy.linalg.solve on the positive components",
        splitting=Splitting(weight="W", bias="b", prox=_prox),
    )


PROBLEMS: Declared = {"monotone-relu": (monotone_relu, Scope(reversible=False))}
