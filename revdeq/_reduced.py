"""A small model of a map, made from evaluations that an iteration took anyway, on which any beta can be tried for free.

NOTE [The model]
Evaluations f(x_0), ..., f(x_m) tell what f does in the span of x_i - x_0. With Q an orthonormal basis of it,

    f(x_0 + Q s) ~ f(x_0) + J Q s,      H = Q^T J Q,   c = Q^T (f(x_0) - x_0)

where J Q is read off the differences. The points of the reversible iteration from x_0 span the Krylov space of J and
the first residual, so for linear f the model repeats the first steps at every beta exactly, also where J is far from
normal, and H is Arnoldi's matrix; it knows nothing of directions that the points have not met, and for f that is not
linear it is a secant. Its eigenvalues are Ritz values: on a non-normal map they are pseudo-eigenvalues, and their
residuals say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReducedModel:
    """f near x_0 in the span of the points at which it was evaluated; float64 on the CPU, m directions.

    Attributes:
        matrix: H, shape (m, m).
        start: c, shape (m,), the residual at x_0.
        left_out: (J Q - Q H)^T (J Q - Q H), shape (m, m): what J makes of these directions outside their span.
    """

    matrix: Tensor
    start: Tensor
    left_out: Tensor

    @staticmethod
    def of(points: Sequence[Tensor], values: Sequence[Tensor], unit_roundoff: float) -> ReducedModel:
        """Make the model from evaluations.

        Args:
            points: x_0, ..., x_m, flat, shape (D,), all of one dtype.
            values: f at each.
            unit_roundoff: of f. A direction that differs from the earlier ones by less than 8 of its square roots of
                its length is noise, and so is what comes after it.
        """
        # Columns of unit length, so that a direction counts for what is new in it and not for its size.
        differences = torch.stack([x - points[0] for x in points[1:]], dim=1)
        images = torch.stack([v - values[0] for v in values[1:]], dim=1)
        lengths = differences.norm(dim=0)
        met = int((lengths > 0).long().cumprod(dim=0).sum())
        basis, upper = torch.linalg.qr(differences[:, :met] / lengths[:met])
        fresh = upper.diagonal().abs() > 8 * unit_roundoff**0.5
        kept = int(fresh.long().cumprod(dim=0).sum())
        basis, upper = basis[:, :kept], upper[:kept, :kept]
        mapped = torch.linalg.solve_triangular(upper, images[:, :kept] / lengths[:kept], upper=True, left=False)
        matrix = basis.mT @ mapped
        outside = mapped - basis @ matrix
        start = basis.mT @ (values[0] - points[0])
        return ReducedModel(*(part.to("cpu", torch.float64) for part in (matrix, start, outside.mT @ outside)))

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Return the Ritz values, complex128, and their residuals ||J v - theta v|| for unit vectors v, float64."""
        values, vectors = torch.linalg.eig(self.matrix)
        squares = (vectors.conj() * (self.left_out.to(vectors.dtype) @ vectors)).sum(dim=0).real
        return values, squares.clamp(min=0).sqrt() / vectors.norm(dim=0)

    def residuals(self, betas: Tensor, num_steps: int) -> Tensor:
        """Return ||f(z_n) - z_n|| / ||f(z_0) - z_0|| of the reversible iteration in the model.

        Args:
            betas: float64, shape (B,).
            num_steps: N.

        Returns:
            Shape (N + 1, B).
        """
        b = betas.unsqueeze(-1)
        y = z = torch.zeros(len(betas), len(self.start), dtype=torch.float64)
        history: list[Tensor] = []
        for _ in range(num_steps + 1):
            value = self.start + z @ self.matrix.mT
            history.append((value - z).norm(dim=1))
            y = (1 - b) * y + b * value
            z = (1 - b) * z + b * (self.start + y @ self.matrix.mT)
        return torch.stack(history) / self.start.norm()


def steps_until(residuals: Tensor, tolerance: float) -> Tensor:
    """Return after how many steps each curve is at most `tolerance`; beyond its end as its later half goes on.

    Args:
        residuals: shape (N + 1, B), relative to the first.
        tolerance: < 1.

    Returns:
        float64, shape (B,); infinity where the later half does not fall.
    """
    last = residuals.shape[0] - 1
    below = residuals <= tolerance
    first = below.to(torch.float64).argmax(dim=0).to(torch.float64)
    slope = (residuals[last] / residuals[last // 2]).log() / (last - last // 2)
    further = last + (math.log(tolerance) - residuals[last].log()) / slope
    return torch.where(below.any(dim=0), first, torch.where(slope < 0, further, torch.inf))
