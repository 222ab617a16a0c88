"""A fully connected equilibrium cell."""

from collections.abc import Callable

import torch
from torch import nn

from revdeq.nn.arguments import validated_dtype
from revdeq.solver.parameters import validated_count, validated_number


class Dense(nn.Module):
    """The cell f(z, x) = activation(W z + U x + b) on the last dimension.

    W starts with spectral norm `contraction_constant`, so that with an activation of Lipschitz constant 1 (tanh, ReLU)
    f starts as a contraction with that constant; training may leave it.

    Args:
        width: components of z, an int >= 1.
        input_width: components of x, an int >= 1; None for `width`.
        contraction_constant: spectral norm of W at the start, a number > 0, dimensionless.
        activation: module or function applied to each component; None for tanh.
        device: where the parameters live.
        dtype: their dtype, a real floating one.

    Raises:
        TypeError, ValueError: a size is not an int >= 1, contraction_constant is not a positive number, activation is
            not callable, or dtype is not as said above.
    """

    def __init__(
        self,
        width: int,
        input_width: int | None = None,
        *,
        contraction_constant: float = 0.9,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        validated_dtype(dtype)
        self.width = validated_count("width", width, example=64)
        self.input_width = width if input_width is None else validated_count("input_width", input_width, example=64)
        norm = validated_number(
            "contraction_constant",
            contraction_constant,
            least=0.0,
            below=float("inf"),
            example=0.9,
            least_included=False,
        )
        if activation is not None and not callable(activation):
            raise TypeError(f"activation is {activation!r}; it must be callable, such as nn.ReLU(), or None for tanh.")
        self.state = nn.Linear(width, width, bias=False, device=device, dtype=dtype)
        self.input = nn.Linear(self.input_width, width, device=device, dtype=dtype)
        self.activation = nn.Tanh() if activation is None else activation
        with torch.no_grad():
            # The spectral norm has no 16-bit kernel.
            weight = self.state.weight.to(torch.promote_types(self.state.weight.dtype, torch.float32))
            self.state.weight.copy_(weight * (norm / torch.linalg.matrix_norm(weight, 2)))

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"width={self.width}, input_width={self.input_width}"

    def start(self, x: torch.Tensor) -> torch.Tensor:
        """Return the start state 0 for the input x of shape (..., input_width)."""
        return x.new_zeros(*x.shape[:-1], self.width)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return f(z, x), shape (..., width)."""
        return self.activation(self.state(z) + self.input(x))
