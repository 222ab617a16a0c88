"""Equilibria of optimal control and reinforcement learning: the discrete Riccati equation, policy evaluation."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from verify.problems import data
from verify.problems.operations import Operations
from verify.problems.problem import Float64Array, Problem
from verify.problems.scope import Declared, Scope


_STEP = 0.5
_A = np.array([[1.0, _STEP], [0.0, 1.0]])
_B = np.array([[_STEP**2 / 2], [_STEP]])
_Q = np.array([[1.0, 0.0], [0.0, 0.25]])
_R = np.array([[[0.25]], [[2.0]]])

GRID_SIDE = 5
_DISCOUNT = 0.8984375


def _riccati_statement(ops: Operations, z: Any, args: Any) -> Any:
    a, b = args["A"], args["B"]
    weighted = ops.matmul(ops.transpose(b), z)
    gain = ops.divide(ops.matmul(weighted, a), ops.add(args["R"], ops.matmul(weighted, b)))
    closed_loop = ops.subtract(a, ops.matmul(b, gain))
    return ops.add(args["Q"], ops.matmul(ops.matmul(ops.transpose(a), z), closed_loop))


def _riccati_oracle() -> Float64Array:
    return np.stack([np.asarray(scipy.linalg.solve_discrete_are(_A, _B, _Q, weight)) for weight in _R])


def riccati() -> Problem:
    """The discrete algebraic Riccati equation of a sampled double integrator, for a cheap and a dear control.

        X = Q + A^T X (A - B K),   K = B^T X A / (R + B^T X B)

    The state is the matrix X. Value iteration converges to the stabilising solution from every X >= 0 although it is no
    contraction in the Euclidean norm; at the solution it contracts as the square of the closed loop's spectral radius.
    """
    cotangent_z, cotangent_y = data.cotangents(31, (2, 2, 2))
    return Problem(
        name="riccati",
        title="Discrete Riccati equation of satellite attitude control (double integrator, sampled at 0.5 s)",
        source=(
            "Franklin, Powell, Workman, Digital Control of Dynamic Systems, 3rd ed., Addison-Wesley (1998), "
            "appendix A.1 and section 9.2; Hewer, doi:10.1109/TAC.1971.1099755"
        ),
        statement=_riccati_statement,
        z0=np.stack([_Q + np.eye(2), 2 * np.eye(2)]),
        args={"A": _A, "B": _B, "Q": _Q, "R": _R},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=None,
        contraction_kind="none",
        spectrum="nonlinear",
        oracle_float64=_riccati_oracle,
        oracle_source="scipy.linalg.solve_discrete_are",
    )


def gridworld() -> tuple[Float64Array, Float64Array]:
    """(transition, reward) of the 5 x 5 gridworld under the random policy.

    Every action at (0, 1) leads to (4, 1) with reward 10, every action at (0, 3) to (2, 3) with reward 5; a step off
    the grid stays and costs 1. Probabilities are multiples of 1/4.

    Returns:
        transition: (25, 25), rows sum to 1 exactly.
        reward: (25,), expected immediate reward.

    References:
        Sutton, Barto, Reinforcement Learning, 2nd ed., MIT Press (2018), example 3.5 and figure 3.2.
    """
    states = GRID_SIDE**2
    transition, reward = np.zeros((states, states)), np.zeros(states)
    jumps = {(0, 1): ((4, 1), 10.0), (0, 3): ((2, 3), 5.0)}
    for row in range(GRID_SIDE):
        for column in range(GRID_SIDE):
            state = row * GRID_SIDE + column
            for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                target, gain = (row + down, column + right), 0.0
                if (row, column) in jumps:
                    target, gain = jumps[row, column]
                elif not (0 <= target[0] < GRID_SIDE and 0 <= target[1] < GRID_SIDE):
                    target, gain = (row, column), -1.0
                transition[state, target[0] * GRID_SIDE + target[1]] += 0.25
                reward[state] += 0.25 * gain
    return transition, reward


def _bellman_statement(ops: Operations, z: Any, args: Any) -> Any:
    expected = ops.matmul(z, ops.transpose(args["transition"]))
    return ops.add(args["reward"], ops.multiply(args["discount"], expected))


def policy_values(transition: Float64Array, reward: Float64Array, discount: float) -> Float64Array:
    """The values v = (I - discount P)^-1 reward of every state, by scipy.linalg.solve, for rewards of shape (B, n)."""
    system = np.eye(len(transition)) - discount * transition
    return np.asarray(scipy.linalg.solve(system, reward.T)).T


def bellman() -> Problem:
    """Policy evaluation v = reward + discount P v: a contraction in the sup norm with k = discount exactly."""
    transition, reward = gridworld()
    reward = reward[None, :]
    cotangent_z, cotangent_y = data.cotangents(33, reward.shape)

    def answer(digits: int) -> NDArray[Any]:
        context: Any = mpmath.MPContext()
        context.dps = digits + 10
        system = context.eye(len(transition)) - context.mpf(_DISCOUNT) * context.matrix(transition.tolist())
        solution = np.empty(reward.shape, dtype=object)
        solution[0] = list(context.lu_solve(system, context.matrix(reward[0].tolist())))
        return solution

    return Problem(
        name="bellman",
        title="Policy evaluation on the 5 x 5 gridworld, discount 115/128",
        source="Sutton, Barto, Reinforcement Learning, 2nd ed., MIT Press (2018), example 3.5, eq. 4.5",
        statement=_bellman_statement,
        z0=data.normal(35, reward.shape),
        args={"transition": transition, "reward": reward, "discount": np.array(_DISCOUNT)},
        cotangent_z=cotangent_z,
        cotangent_y=cotangent_y,
        contraction_constant=_DISCOUNT,
        contraction_kind="exact",
        spectrum="general",
        norm="sup",
        closed_form=answer,
        answer_source="mpmath.lu_solve of (I - discount P) v = reward",
        oracle_float64=lambda: policy_values(transition, reward, _DISCOUNT),
        oracle_source="scipy.linalg.solve",
    )


PROBLEMS: Declared = {
    "riccati": (
        riccati,
        Scope(outside={1.9: "the states leave the positive definite matrices, where f has poles"}),
    ),
    "bellman": (bellman, Scope(targets=True)),
}
