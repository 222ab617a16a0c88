"""Anderson's acceleration of the fixed-point iteration."""

from typing import ClassVar, NamedTuple

import torch

from revdeq._tree import Leaves
from revdeq.solver.base import Evaluate, SteppingSolver, validated_beta
from revdeq.solver.parameters import validated_count, validated_number
from revdeq.solver.vectors import as_leaves, as_vectors, magnitude, pushed, scalar_dtype, widened


class Extrapolated(NamedTuple):
    """The current state and what the last steps changed, oldest change first; a change not yet made is zero.

    Attributes:
        z: leaves of the current state z_n.
        before: z_{n-1}, shape (B, d).
        residual_before: f(z_{n-1}) - z_{n-1}, shape (B, d).
        z_changes: z_{j+1} - z_j, shape (B, history, d).
        residual_changes: r_{j+1} - r_j of the residuals r_j = f(z_j) - z_j, likewise.
    """

    z: Leaves
    before: torch.Tensor
    residual_before: torch.Tensor
    z_changes: torch.Tensor
    residual_changes: torch.Tensor


class Anderson(SteppingSolver):
    """Anderson acceleration: with r_n = f(z_n) - z_n and the changes Z, R of the last `history` states and residuals,

        gamma   = argmin ||r_n - R gamma||^2 + regularisation * sum_j ||R_j||^2 gamma_j^2
        z_{n+1} = z_n + beta r_n - (Z + beta R) gamma

    for each sample by itself. The system for gamma has a solution whatever the changes are: a change that is zero, or a
    repeated one, costs accuracy and never an error. For affine f it does about what GMRES does; for a map that is not
    a contraction it may converge where the plain iteration does not, without a guarantee.

    Args:
        beta: relaxation parameter, 0 < beta < 2.
        history: number of changes kept, an int >= 1; the state holds 2 * history + 3 vectors.
        regularisation: relative to the squared norm of each change, 1e-14 <= regularisation < 1, dimensionless. The
            system is solved in float64 (float32 where a device has no other), with a condition number of at most about
            history / regularisation.

    Raises:
        TypeError: beta or regularisation is not a real number, or history is not an int.
        ValueError: one of them is outside the range given above.

    References:
        Anderson, Iterative procedures for nonlinear integral equations, 1965, DOI 10.1145/321296.321305.
        Walker, Ni, Anderson acceleration for fixed-point iterations, 2011, DOI 10.1137/10078356X, equation (2.2).
    """

    evaluations_per_step: ClassVar[int] = 1

    def __init__(self, beta: float = 1.0, *, history: int = 5, regularisation: float = 1e-10) -> None:
        self.beta = validated_beta(beta, below=2.0)
        self.history = validated_count("history", history, example=5)
        self.regularisation = validated_number("regularisation", regularisation, least=1e-14, below=1.0, example=1e-10)

    def __repr__(self) -> str:
        return f"Anderson(beta={self.beta!r}, history={self.history}, regularisation={self.regularisation!r})"

    def init(self, z0: Leaves) -> Extrapolated:
        """Return the state without changes."""
        z = widened(z0)
        start = as_vectors(z)
        none_yet = torch.zeros_like(start).unsqueeze(1).repeat(1, self.history, 1)
        return Extrapolated(z, start, torch.zeros_like(start), none_yet, none_yet)

    def step(self, f: Evaluate, state: Extrapolated, value: Leaves, n: int) -> Extrapolated:
        """Return the state after one extrapolation, given f(z_n)."""
        z = as_vectors(state.z)
        residual = as_vectors(value).to(z.dtype) - z
        z_changes, residual_changes = state.z_changes, state.residual_changes
        change = self.beta * residual
        if n > 0:
            z_changes = pushed(z_changes, z - state.before)
            residual_changes = pushed(residual_changes, residual - state.residual_before)
            gamma = self._mix(residual_changes, residual)
            weights = gamma.unsqueeze(1)
            change = change - (weights @ z_changes + self.beta * (weights @ residual_changes)).squeeze(1)
        return Extrapolated(as_leaves(z + change, state.z), z, residual, z_changes, residual_changes)

    def estimate(self, state: Extrapolated) -> Leaves:
        """Return z."""
        return state.z

    def _mix(self, changes: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return gamma, shape (B, history)."""
        dtype = scalar_dtype(changes.device)
        wide, right = changes.to(dtype), residual.to(dtype)
        if changes.dtype == dtype:
            # A common scale changes no gamma; with it the squares stay in range, as those of narrower dtypes do anyway.
            scale = magnitude(wide)
            wide, right = wide / scale, right / scale.squeeze(1)
        gram = wide @ wide.mT
        right = (wide @ right.unsqueeze(-1)).squeeze(-1)
        squares = gram.diagonal(dim1=-2, dim2=-1)
        # A change of norm zero gets the equation gamma_j = 0.
        ridge = torch.where(squares > 0, self.regularisation * squares, 1.0)
        # The unit diagonal makes the changes of many orders of magnitude comparable. The scaling cancels exactly, so
        # that it is a constant for the derivative too.
        units = torch.where(squares > 0, squares.detach().rsqrt(), 1.0)
        matrix = (gram + torch.diag_embed(ridge)) * units.unsqueeze(-1) * units.unsqueeze(-2)
        # solve_ex reports a singular matrix instead of raising; the ridge excludes it, and NaN stays in its sample.
        gamma, _ = torch.linalg.solve_ex(matrix, right * units)
        return (gamma * units).to(changes.dtype)
