"""GMRES for affine functions, such as the adjoint equation of the implicit gradient."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch

from revdeq._residual import sample_norm
from revdeq._tree import Leaves
from revdeq.solver.base import Evaluate, SteppingSolver
from revdeq.solver.parameters import validated_count
from revdeq.solver.vectors import as_leaves, as_vectors, scalar_dtype, widened


class _Krylov(NamedTuple):
    """Orthonormal vectors V_0 ... V_m and H with A [V_0 ... V_{m-1}] = [V_0 ... V_m] H, per sample.

    Attributes:
        basis: shape (B, m + 1, d); zero from where the space cannot grow.
        hessenberg: shape (B, m + 1, m).
    """

    basis: torch.Tensor
    hessenberg: torch.Tensor


class GMRES(SteppingSolver):
    """Restarted GMRES for v = f(v) with affine f(v) = c + K v, without the matrix K. One step is one cycle:

        r = f(v) - v;   v <- v + argmin ||r - (I - K) d|| over d in span{r, (I - K) r, ...}, `restart` vectors

    It needs no contraction, only a regular I - K; without a restart it ends after at most d iterations. The products
    K w = (f(v + s w) - f(v)) / s with s = ||f(v)|| (for affine f no approximation) are single evaluations, so a step
    takes 1 + restart of them. `solve` refuses it, because a function to be solved need not be affine; its place is
    `ImplicitAdjoint(solver=GMRES())`.

    Args:
        restart: vectors in a cycle, an int >= 1; a cycle holds restart + 1 of them.
        per_sample: whether each sample is solved by itself, which is right where f does not mix samples and then best;
            False treats the whole batch as one vector (batch normalisation in training mode, for example).

    Raises:
        TypeError: restart is not an int, or per_sample is not a bool.
        ValueError: restart < 1.

    References:
        Saad, Schultz, GMRES, 1986, DOI 10.1137/0907058, algorithm 4.
        Giraud, Langou, Rozloznik, The loss of orthogonality in the Gram-Schmidt process, 2005,
        DOI 10.1016/j.camwa.2005.08.009 (twice is enough).
    """

    affine_only: ClassVar[bool] = True

    def __init__(self, restart: int = 10, *, per_sample: bool = True) -> None:
        self.restart = validated_count("restart", restart, example=10)
        if not isinstance(per_sample, bool):
            raise TypeError(f"per_sample is {per_sample!r}; it must be True or False.")
        self.per_sample = per_sample

    def __repr__(self) -> str:
        return f"GMRES(restart={self.restart}, per_sample={self.per_sample})"

    @property
    def evaluations_per_step(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Evaluations of f in one cycle."""
        return 1 + self.restart

    def init(self, z0: Leaves) -> Leaves:
        """Return v_0."""
        return widened(z0)

    def step(self, f: Evaluate, state: Leaves, value: Leaves, n: int) -> Leaves:
        """Return the state after one cycle, given f(v)."""
        v, at_v = self._vectors(state), self._vectors(value)
        at_v = at_v.to(v.dtype)
        size = _norm(at_v)
        size = torch.where(size > 0, size, 1.0)

        def times_a(w: torch.Tensor) -> torch.Tensor:
            probed = self._vectors(f(self._leaves(v + size * w, state))).to(v.dtype)
            return w - (probed - at_v) / size

        residual = at_v - v
        start = _norm(residual)
        space = _arnoldi(times_a, residual / torch.where(start > 0, start, 1.0), self.restart)
        weights = _least_squares(space.hessenberg, start, torch.finfo(v.dtype).eps)
        moved = v + torch.einsum("bm,bmd->bd", weights.to(v.dtype), space.basis[:, :-1])
        return self._leaves(moved, state)

    def estimate(self, state: Leaves) -> Leaves:
        """Return v."""
        return state

    def _vectors(self, leaves: Leaves) -> torch.Tensor:
        vectors = as_vectors(leaves)
        return vectors if self.per_sample else vectors.reshape(1, vectors.numel())

    def _leaves(self, vectors: torch.Tensor, like: Leaves) -> Leaves:
        return as_leaves(vectors if self.per_sample else vectors.reshape(as_vectors(like).shape), like)


def _norm(vectors: torch.Tensor) -> torch.Tensor:
    return sample_norm((vectors,)).unsqueeze(1).to(vectors.dtype)


def _arnoldi(times_a: Callable[[torch.Tensor], torch.Tensor], first: torch.Tensor, count: int) -> _Krylov:
    """Return the Krylov space of `count` products, started at the unit vectors `first` of shape (B, d)."""
    vectors = [first]
    hessenberg = first.new_zeros(first.shape[0], count + 1, count)
    grows = _norm(first) > 0
    for j in range(count):
        w = torch.where(grows, times_a(vectors[j]), 0.0)
        size = _norm(w)
        basis = torch.stack(vectors, dim=1)
        for _ in range(2):
            along = torch.einsum("bmd,bd->bm", basis, w)
            w = w - torch.einsum("bm,bmd->bd", along, basis)
            hessenberg[:, : j + 1, j] += along
        rest = _norm(w)
        # Of A V_j = V_j - K V_j less j + 1 projections, (j + 2) eps times the larger of the norms is rounding error.
        grows = grows & (rest > (j + 2) * torch.finfo(w.dtype).eps * size.clamp(min=1.0))
        hessenberg[:, j + 1, j] = torch.where(grows, rest, 0.0).squeeze(1)
        vectors.append(torch.where(grows, w / torch.where(grows, rest, 1.0), 0.0))
    return _Krylov(torch.stack(vectors, dim=1), hessenberg)


def _least_squares(hessenberg: torch.Tensor, size: torch.Tensor, eps: float) -> torch.Tensor:
    """Return argmin ||size e_1 - H y||, with y_j = 0 for each column that depends on those before it.

    Args:
        hessenberg: shape (B, m + 1, m).
        size: shape (B, 1).
        eps: relative accuracy of the entries of H.
    """
    q, r = torch.linalg.qr(hessenberg.to(scalar_dtype(hessenberg.device)))
    right = q[:, 0, :] * size.to(q.dtype)
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    # The columns are A V_j = V_j - K V_j for unit V_j: what is left by cancellation is known to eps at best.
    lost = diagonal.abs() <= r.shape[-1] * eps * torch.linalg.vector_norm(r, dim=-2).clamp(min=1.0)
    r = torch.where(lost.unsqueeze(-1), torch.eye(r.shape[-1], dtype=r.dtype, device=r.device), r)
    right = torch.where(lost, 0.0, right)
    return torch.linalg.solve_triangular(r, right.unsqueeze(-1), upper=True).squeeze(-1)
