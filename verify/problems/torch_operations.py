"""The operations of a problem as torch computes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


_SOFTPLUS_THRESHOLD = 40.0
"""Above it softplus returns its argument: exp(-40)/40 is below float64's unit roundoff, at torch's 20 it is not."""


class TorchOperations:
    """`Operations` on torch tensors: each is the call that a user of torch would write."""

    def add(self, a: Any, b: Any) -> Any:
        """The sum of two operands."""
        return a + b

    def subtract(self, a: Any, b: Any) -> Any:
        """The difference of two operands."""
        return a - b

    def multiply(self, a: Any, b: Any) -> Any:
        """The product of two operands, element by element."""
        return a * b

    def divide(self, a: Any, b: Any) -> Any:
        """The quotient of two operands."""
        return a / b

    def negative(self, x: Tensor) -> Tensor:
        """The operand with the other sign."""
        return -x

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """The matrix product of the last two axes."""
        return a @ b

    def solve(self, matrix: Tensor, rows: Tensor) -> Tensor:
        """The rows x with x matrix^T = rows."""
        return torch.linalg.solve(matrix.mT, rows, left=False)

    def sum(self, x: Tensor, axis: int, keepdims: bool = False) -> Tensor:
        """The sum over one axis."""
        return x.sum(dim=axis, keepdim=keepdims)

    def exp(self, x: Tensor) -> Tensor:
        """The exponential."""
        return torch.exp(x)

    def log(self, x: Tensor) -> Tensor:
        """The natural logarithm."""
        return torch.log(x)

    def sqrt(self, x: Tensor) -> Tensor:
        """The square root."""
        return torch.sqrt(x)

    def sin(self, x: Tensor) -> Tensor:
        """The sine."""
        return torch.sin(x)

    def cos(self, x: Tensor) -> Tensor:
        """The cosine."""
        return torch.cos(x)

    def tanh(self, x: Tensor) -> Tensor:
        """The hyperbolic tangent."""
        return torch.tanh(x)

    def relu(self, x: Tensor) -> Tensor:
        """The greater of the operand and zero."""
        return torch.relu(x)

    def softplus(self, x: Tensor) -> Tensor:
        """The smooth ramp log(1 + exp x)."""
        return functional.softplus(x, threshold=_SOFTPLUS_THRESHOLD)

    def softmax(self, x: Tensor) -> Tensor:
        """The exponentials over their sum along the last axis."""
        return torch.softmax(x, dim=-1)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Layer normalisation over the last axis."""
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def group_norm(self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Group normalisation of (batch, channels, ...)."""
        return functional.group_norm(x, groups, weight, bias, eps)

    def conv2d(self, x: Tensor, weight: Tensor) -> Tensor:
        """Cross-correlation with zero padding that keeps the size."""
        return functional.conv2d(x, weight, padding="same")

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The same elements in another shape."""
        return x.reshape(shape)

    def permute(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The axes in another order."""
        return x.permute(axes)

    def transpose(self, x: Tensor) -> Tensor:
        """The last two axes exchanged."""
        return x.transpose(-1, -2)
