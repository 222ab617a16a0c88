"""Broyden's method with limited memory."""

from typing import ClassVar, NamedTuple

import torch

from revdeq._tree import Leaves
from revdeq.solver.base import Evaluate, SteppingSolver, validated_beta
from revdeq.solver.parameters import validated_count
from revdeq.solver.vectors import as_leaves, as_vectors, magnitude, pushed, scalar_dtype, widened


class Secant(NamedTuple):
    """The current state and the approximate inverse H = -beta I + sum_j u_j v_j^T of the Jacobian of f(z) - z.

    Attributes:
        z: leaves of the current state z_n.
        before: z_{n-1}, shape (B, d).
        residual_before: f(z_{n-1}) - z_{n-1}, shape (B, d).
        u: shape (B, history, d), oldest first; zero where there is no term yet.
        v: likewise.
    """

    z: Leaves
    before: torch.Tensor
    residual_before: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor


class Broyden(SteppingSolver):
    """Broyden's first ("good") method for r(z) = f(z) - z = 0, with s = z_n - z_{n-1} and t = r_n - r_{n-1}:

        H_n     = H_{n-1} + (s - H_{n-1} t) s^T H_{n-1} / (s^T H_{n-1} t),      H_0 = -beta I
        z_{n+1} = z_n - H_n r_n

    for each sample by itself. H is kept as `history` rank-one terms; when they are used up it starts again from H_0: to
    drop single terms, on which the later ones build, made affine problems diverge. A term whose denominator is no
    larger than its rounding error is left out, so that an iteration that stands still gives no 0/0.

    Args:
        beta: the first step is that of `Relaxed(beta)`, 0 < beta < 2.
        history: number of rank-one terms kept, an int >= 1; the state holds 2 * history + 3 vectors.

    Raises:
        TypeError: beta is not a real number, or history is not an int.
        ValueError: one of them is outside the range given above.

    References:
        Broyden, A class of methods for solving nonlinear simultaneous equations, 1965,
        DOI 10.1090/S0025-5718-1965-0198670-6, method 1.
        Kelley, Iterative methods for linear and nonlinear equations, 1995, DOI 10.1137/1.9781611970944, section 7.3
        (limited memory by restarts).
        Bai, Kolter, Koltun, Deep Equilibrium Models, arXiv 1909.01377, section 3 (Broyden's method in DEQs).
    """

    evaluations_per_step: ClassVar[int] = 1

    def __init__(self, beta: float = 1.0, *, history: int = 20) -> None:
        self.beta = validated_beta(beta, below=2.0)
        self.history = validated_count("history", history, example=20)

    def __repr__(self) -> str:
        return f"Broyden(beta={self.beta!r}, history={self.history})"

    def init(self, z0: Leaves) -> Secant:
        """Return the state with H = -beta I."""
        z = widened(z0)
        start = as_vectors(z)
        none_yet = torch.zeros_like(start).unsqueeze(1).repeat(1, self.history, 1)
        return Secant(z, start, torch.zeros_like(start), none_yet, none_yet)

    def step(self, f: Evaluate, state: Secant, value: Leaves, n: int) -> Secant:
        """Return the state after one step, given f(z_n)."""
        z = as_vectors(state.z)
        residual = as_vectors(value).to(z.dtype) - z
        u, v = state.u, state.v
        if n > 1 and (n - 1) % self.history == 0:
            u, v = torch.zeros_like(u), torch.zeros_like(v)
        if n > 0:
            newest_u, newest_v = self._term(u, v, z - state.before, residual - state.residual_before)
            u, v = pushed(u, newest_u), pushed(v, newest_v)
        moved = as_leaves(z - self._times(u, v, residual), state.z)
        return Secant(moved, z, residual, u, v)

    def estimate(self, state: Secant) -> Leaves:
        """Return z."""
        return state.z

    def _times(self, left: torch.Tensor, right: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return (-beta I + sum_j left_j right_j^T) times each vector."""
        weights = torch.einsum("bmd,bd->bm", right, vectors)
        return torch.einsum("bm,bmd->bd", weights, left) - self.beta * vectors

    def _term(
        self, u: torch.Tensor, v: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors of the newest rank-one term; zeros where it must be left out."""
        wide = scalar_dtype(s.device)
        # The term does not change when s and t are scaled alike; so their products stay in range.
        scale = magnitude(torch.stack((s, t), dim=1)).squeeze(1)
        s, t = s / scale, t / scale
        row = self._times(v, u, s).to(wide)
        # Of length one, so that the product below cannot underflow; the scaling cancels, also in the derivative.
        length = row.detach().norm(dim=1, keepdim=True)
        row = row / torch.where(length > 0, length, 1.0)
        denominator = (row * t.to(wide)).sum(dim=1, keepdim=True)
        # t is a difference of values rounded to the working precision, so the product is known to eps ||t||.
        usable = denominator.abs() > torch.finfo(s.dtype).eps * t.detach().to(wide).norm(dim=1, keepdim=True)
        column = (s - self._times(u, v, t)).to(wide) / torch.where(usable, denominator, 1.0)
        zero = torch.zeros_like(s)
        return torch.where(usable, column.to(s.dtype), zero), torch.where(usable, row.to(s.dtype), zero)
