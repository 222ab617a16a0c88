"""The operations in which a problem is stated, once for torch and once for every arithmetic of the reference."""

from __future__ import annotations

from typing import Any, Protocol


class Operations(Protocol):
    """Operations on the arrays of one backend; a Python number may stand wherever an elementwise operand may.

    Elementwise operations broadcast as numpy's do. Axes of reductions are negative, so that a backend may put axes of
    its own in front. `verify.problems.torch_operations.TorchOperations` computes with torch's tensors,
    `verify.reference.tape.Tape` with the reference's arithmetics.
    """

    def add(self, a: Any, b: Any) -> Any:
        """The sum of two operands."""
        ...

    def subtract(self, a: Any, b: Any) -> Any:
        """The difference of two operands."""
        ...

    def multiply(self, a: Any, b: Any) -> Any:
        """The product of two operands, element by element."""
        ...

    def divide(self, a: Any, b: Any) -> Any:
        """The quotient of two operands."""
        ...

    def negative(self, x: Any) -> Any:
        """The operand with the other sign."""
        ...

    def matmul(self, a: Any, b: Any) -> Any:
        """The matrix product of the last two axes, both operands of rank 2 or more."""
        ...

    def solve(self, matrix: Any, rows: Any) -> Any:
        """The rows x with x matrix^T = rows, matrix square with a positive definite symmetric part."""
        ...

    def sum(self, x: Any, axis: int, keepdims: bool = False) -> Any:
        """The sum over one axis, counted from the end."""
        ...

    def exp(self, x: Any) -> Any:
        """The exponential."""
        ...

    def log(self, x: Any) -> Any:
        """The natural logarithm."""
        ...

    def sqrt(self, x: Any) -> Any:
        """The square root."""
        ...

    def sin(self, x: Any) -> Any:
        """The sine."""
        ...

    def cos(self, x: Any) -> Any:
        """The cosine."""
        ...

    def tanh(self, x: Any) -> Any:
        """The hyperbolic tangent."""
        ...

    def relu(self, x: Any) -> Any:
        """The greater of the operand and zero; its derivative at zero is zero."""
        ...

    def softplus(self, x: Any) -> Any:
        """The smooth ramp log(1 + exp x), correct to rounding for every x."""
        ...

    def softmax(self, x: Any) -> Any:
        """The exponentials over their sum along the last axis."""
        ...

    def layer_norm(self, x: Any, weight: Any, bias: Any, eps: float) -> Any:
        """The features weight (x - mean) / sqrt(var + eps) + bias over the last axis, var divided by the count."""
        ...

    def group_norm(self, x: Any, groups: int, weight: Any, bias: Any, eps: float) -> Any:
        """The same over groups of channels of x with shape (batch, channels, ...), weight and bias per channel."""
        ...

    def conv2d(self, x: Any, weight: Any) -> Any:
        """Cross-correlation of (batch, in, H, W) with (out, in, K, K), K odd, zero padding, the same H and W."""
        ...

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """The same elements in row-major order in another shape."""
        ...

    def permute(self, x: Any, axes: tuple[int, ...]) -> Any:
        """The axes in another order, counted from the front."""
        ...

    def transpose(self, x: Any) -> Any:
        """The last two axes exchanged."""
        ...
