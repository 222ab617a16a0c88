"""The monotone equilibrium cell, which has exactly one fixed point whatever its parameters are."""

import math

import torch
from torch import nn

from revdeq._environment import without_autocast
from revdeq.nn.arguments import validated_dtype
from revdeq.solver.parameters import validated_count, validated_number


class Monotone(nn.Module):
    """The cell f(z, x) = relu(W z + U x + b) with W = (1 - m) I - A^T A + B - B^T on the last dimension.

    The symmetric part of I - W is m I + A^T A >= m I, so I - W is strongly monotone with constant m, and z = f(z, x)
    has one solution for every x, although f need not be a contraction. ReLU is the proximal operator of the indicator
    of z >= 0 for every step size.

    Args:
        width: components of z, an int >= 1.
        input_width: components of x, an int >= 1; None for `width`.
        margin: m, a number with 0 < margin < inf, dimensionless.
        device: where the parameters live.
        dtype: their dtype, a real floating one.

    Raises:
        TypeError, ValueError: a size or the margin is not as said above.

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, proposition 1 and theorem 1.
    """

    def __init__(
        self,
        width: int,
        input_width: int | None = None,
        *,
        margin: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        validated_dtype(dtype)
        self.width = validated_count("width", width, example=64)
        self.input_width = width if input_width is None else validated_count("input_width", input_width, example=64)
        self.margin = validated_number("margin", margin, least=0.0, below=math.inf, example=0.5, least_included=False)
        self.A = nn.Parameter(torch.empty(width, width, device=device, dtype=dtype))
        self.B = nn.Parameter(torch.empty(width, width, device=device, dtype=dtype))
        self.input = nn.Linear(self.input_width, width, device=device, dtype=dtype)
        with torch.no_grad():
            # Entries of variance 1 / (4 width) give A and B spectral norms of about 1.
            self.A.normal_(std=0.5 / math.sqrt(width))
            self.B.normal_(std=0.5 / math.sqrt(width))

    def extra_repr(self) -> str:
        """Return the sizes and the margin."""
        return f"width={self.width}, input_width={self.input_width}, margin={self.margin}"

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """Return the start state 0 for the input x of shape (..., input_width)."""
        return x.new_zeros(*x.shape[:-1], self.width)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return f(z, x), shape (..., width)."""
        # W z without W: two products with A cost what one with A^T A and its making would.
        return torch.relu(
            (1.0 - self.margin) * z - (z @ self.A.mT) @ self.A + z @ (self.B - self.B.mT).mT + self.input(x)
        )

    def split(self, args: torch.Tensor, step_size: float) -> "MonotoneSplitting":
        """Return the splitting for the input x = args, with I + alpha (I - W) factored."""
        with without_autocast(args.device.type):
            # Factorisations have no 16-bit kernels.
            wide = torch.promote_types(self.A.dtype, torch.float32)
            a, b = self.A.to(wide), self.B.to(wide)
            identity = torch.eye(self.width, dtype=wide, device=a.device)
            weight = (1.0 - self.margin) * identity - a.mT @ a + b - b.mT
            injected = nn.functional.linear(args.to(wide), self.input.weight.to(wide), self.input.bias.to(wide))
            return MonotoneSplitting(weight, injected, step_size)


class MonotoneSplitting:
    """The parts of relu(W z + c).

    Args:
        weight: W, shape (width, width).
        injected: c, shape (..., width).
        step_size: alpha.
    """

    def __init__(self, weight: torch.Tensor, injected: torch.Tensor, step_size: float) -> None:
        self._weight, self._injected, self._alpha = weight, injected, step_size
        identity = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
        # Strong monotonicity makes the matrix regular, and lu_factor would ask the device whether it is. Rows are
        # states, hence the transpose.
        self._factors = torch.linalg.lu_factor_ex((identity + step_size * (identity - weight)).mT)[:2]

    def affine(self, z: torch.Tensor) -> torch.Tensor:
        """Return W z + c."""
        return (z.to(self._weight.dtype) @ self._weight.mT + self._injected).to(z.dtype)

    def resolvent(self, u: torch.Tensor) -> torch.Tensor:
        """Return (I + alpha (I - W))^{-1} (u + alpha c)."""
        right = u.to(self._weight.dtype) + self._alpha * self._injected
        rows = right.reshape(-1, right.shape[-1])
        return torch.linalg.lu_solve(*self._factors, rows, left=False).reshape(u.shape).to(u.dtype)

    def prox(self, u: torch.Tensor) -> torch.Tensor:
        """Return relu(u)."""
        return torch.relu(u)
