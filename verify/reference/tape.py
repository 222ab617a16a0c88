"""A reverse-mode tape over any arithmetic of the reference: hand-written VJP rules, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.reference import layers
from verify.reference.arithmetic.perturbed import Perturbed
from verify.reference.arithmetic.protocol import Arithmetic, Array


Pullback = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Variable:
    """A value on the tape with, for each parent, the map from its own cotangent to the parent's.

    Args:
        value: the array, with the tape's replica axis in front if the tape has one.
        index: its place on the tape.
        parents: (parent, pullback) pairs.
    """

    value: Array
    index: int
    parents: tuple[tuple[Variable, Pullback], ...] = ()


class Tape:
    """`Operations` that compute in an arithmetic and remember how to pull cotangents back.

    Fused layers (softmax, normalisation, convolution, the VJP of a function) run in the arithmetic's accumulator and
    are rounded once when they are stored, as torch's kernels for narrow formats do.

    Args:
        arithmetic: where every operation is computed.
        replicas: None, or the number of independent copies that every array carries along an additional first axis;
            the perturbed arithmetic disturbs each copy differently, so one pass samples that many runs.
    """

    def __init__(self, arithmetic: Arithmetic, *, replicas: int | None = None) -> None:
        self.arithmetic = arithmetic
        self.wide: Arithmetic = arithmetic.accumulator() if isinstance(arithmetic, Perturbed) else arithmetic
        self.replicas = replicas
        self._lead = 0 if replicas is None else 1
        self._variables: list[Variable] = []

    # Leaves and results ------------------------------------------------------------------------------------------

    def leaf(self, value: Array) -> Variable:
        """An independent variable; the array is already of the arithmetic and carries the replica axis."""
        return self._record(value)

    def pull_back(self, output: Variable, cotangent: Array, leaves: Sequence[Variable]) -> list[Array]:
        """The cotangents of the leaves: J^T cotangent for each; zeros for a leaf that the output does not depend on."""
        cotangents: dict[int, Array] = {output.index: cotangent}
        for variable in reversed(self._variables[: output.index + 1]):
            if not variable.parents or variable.index not in cotangents:
                continue
            received = cotangents.pop(variable.index)
            for parent, pullback in variable.parents:
                contribution = pullback(received)
                present = cotangents.get(parent.index)
                cotangents[parent.index] = (
                    contribution if present is None else self.arithmetic.add(present, contribution)
                )
        return [
            cotangents[leaf.index] if leaf.index in cotangents else self.arithmetic.convert(np.zeros(leaf.value.shape))
            for leaf in leaves
        ]

    def _record(self, value: Array, *parents: tuple[Variable, Pullback]) -> Variable:
        variable = Variable(value, len(self._variables), parents)
        self._variables.append(variable)
        return variable

    def _store(self, x: Array) -> Array:
        return x if self.wide is self.arithmetic else self.arithmetic.rounded(x)

    # Operands, broadcasting --------------------------------------------------------------------------------------

    def _value(self, operand: Any) -> Array:
        if isinstance(operand, Variable):
            return operand.value
        number = self.arithmetic.convert(np.asarray(operand))
        return number.reshape((1,) * self._lead + number.shape)

    def _aligned(self, *values: Array) -> list[Array]:
        """The values at one rank: axes of length one go behind the replica axis, where broadcasting expects them."""
        rank = max(value.ndim for value in values)
        lead = self._lead
        return [value.reshape(value.shape[:lead] + (1,) * (rank - value.ndim) + value.shape[lead:]) for value in values]

    def _reduced_like(self, cotangent: Array, like: Array) -> Array:
        """The cotangent summed over the axes along which `like` was broadcast."""
        lead, surplus = self._lead, cotangent.ndim - like.ndim
        axes = list(range(lead, lead + surplus))
        for axis in range(lead, like.ndim):
            if like.shape[axis] == 1 and cotangent.shape[axis + surplus] != 1:
                axes.append(axis + surplus)
        if axes:
            cotangent = self.arithmetic.sum(cotangent, axis=tuple(axes))
        return cotangent.reshape(cotangent.shape[:lead] + like.shape[lead:])

    def _binary(
        self, a: Any, b: Any, value: Array, pull_a: Callable[[Array], Array], pull_b: Callable[[Array], Array]
    ) -> Variable:
        parents: list[tuple[Variable, Pullback]] = []
        for operand, pull in ((a, pull_a), (b, pull_b)):
            if isinstance(operand, Variable):
                like = operand.value
                parents.append((operand, lambda g, pull=pull, like=like: self._reduced_like(pull(g), like)))
        return self._record(value, *parents)

    # Elementwise -------------------------------------------------------------------------------------------------

    def add(self, a: Any, b: Any) -> Variable:
        """The sum of two operands."""
        x, y = self._aligned(self._value(a), self._value(b))
        return self._binary(a, b, self.arithmetic.add(x, y), lambda g: g, lambda g: g)

    def subtract(self, a: Any, b: Any) -> Variable:
        """The difference of two operands."""
        x, y = self._aligned(self._value(a), self._value(b))
        return self._binary(a, b, self.arithmetic.subtract(x, y), lambda g: g, self.arithmetic.negative)

    def multiply(self, a: Any, b: Any) -> Variable:
        """The product of two operands."""
        times = self.arithmetic.multiply
        x, y = self._aligned(self._value(a), self._value(b))
        return self._binary(a, b, times(x, y), lambda g: times(g, y), lambda g: times(g, x))

    def divide(self, a: Any, b: Any) -> Variable:
        """The quotient of two operands; d(a/b)/db = -(a/b)/b."""
        at = self.arithmetic
        x, y = self._aligned(self._value(a), self._value(b))
        quotient = at.divide(x, y)
        return self._binary(
            a,
            b,
            quotient,
            lambda g: at.divide(g, y),
            lambda g: at.negative(at.multiply(g, at.divide(quotient, y))),
        )

    def negative(self, x: Variable) -> Variable:
        """The operand with the other sign."""
        return self._record(self.arithmetic.negative(x.value), (x, self.arithmetic.negative))

    def _function(self, x: Variable, value: Array, derivative: Callable[[Arithmetic], Array]) -> Variable:
        def pull(g: Array) -> Array:
            return self._store(self.wide.multiply(g, derivative(self.wide)))

        return self._record(value, (x, pull))

    def exp(self, x: Variable) -> Variable:
        """The exponential; its derivative is itself."""
        value = self.arithmetic.exp(x.value)
        return self._function(x, value, lambda at: value)

    def log(self, x: Variable) -> Variable:
        """The natural logarithm; its derivative is 1/x."""
        return self._function(x, self.arithmetic.log(x.value), lambda at: at.divide(at.convert(1), x.value))

    def sqrt(self, x: Variable) -> Variable:
        """The square root; its derivative is 1/(2 sqrt x)."""
        value = self.arithmetic.sqrt(x.value)
        return self._function(x, value, lambda at: at.divide(at.convert(0.5), value))

    def sin(self, x: Variable) -> Variable:
        """The sine; its derivative is the cosine."""
        return self._function(x, self.arithmetic.sin(x.value), lambda at: at.cos(x.value))

    def cos(self, x: Variable) -> Variable:
        """The cosine; its derivative is minus the sine."""
        return self._function(x, self.arithmetic.cos(x.value), lambda at: at.negative(at.sin(x.value)))

    def tanh(self, x: Variable) -> Variable:
        """The hyperbolic tangent; its derivative is 1 - tanh^2."""
        value = self.arithmetic.tanh(x.value)
        return self._function(x, value, lambda at: at.subtract(at.convert(1), at.multiply(value, value)))

    def relu(self, x: Variable) -> Variable:
        """max(x, 0); its derivative is 1 above zero and 0 elsewhere."""
        zero = self.arithmetic.convert(0)
        value = self.arithmetic.maximum(x.value, zero)
        return self._record(value, (x, lambda g: self.arithmetic.where(self.arithmetic.less(zero, x.value), g, zero)))

    def softplus(self, x: Variable) -> Variable:
        """log(1 + exp x) = max(x, 0) + log1p(exp(-|x|)); its derivative is 1/(1 + exp(-x))."""
        value = self._store(layers.softplus(self.wide, x.value))
        return self._function(x, value, lambda at: layers.sigmoid(at, x.value))

    # Linear algebra and shape ------------------------------------------------------------------------------------

    def matmul(self, a: Variable, b: Variable) -> Variable:
        """The matrix product; A'= G B^T, B' = A^T G, leading axes of A folded into its rows where B is one matrix."""
        x, y, at = a.value, b.value, self.arithmetic
        lead = self._lead
        if y.ndim == lead + 2 and x.ndim > lead + 2:
            rows = self.reshape(a, (-1, x.shape[-1]))
            return self.reshape(self.matmul(rows, b), (*x.shape[lead:-1], y.shape[-1]))
        x, y = self._aligned(x, y)
        value = at.matmul(x, y)
        return self._binary(
            a,
            b,
            value,
            lambda g: at.matmul(g, np.swapaxes(y, -1, -2)),
            lambda g: at.matmul(np.swapaxes(x, -1, -2), g),
        )

    def solve(self, matrix: Variable, rows: Variable) -> Variable:
        """The rows x with x A^T = b, by elimination; b' solves with A, A' = -b'^T x."""
        at, a = self.arithmetic, matrix.value
        value = layers.solve(at, a, rows.value)

        def pull_rows(g: Array) -> Array:
            return layers.solve(at, np.swapaxes(a, -1, -2), g)

        def pull_matrix(g: Array) -> Array:
            return at.negative(at.matmul(np.swapaxes(pull_rows(g), -1, -2), value))

        return self._record(value, (matrix, pull_matrix), (rows, pull_rows))

    def sum(self, x: Variable, axis: int, keepdims: bool = False) -> Variable:
        """The sum over one axis, counted from the end."""
        if axis >= 0:
            raise ValueError(f"axis is {axis}; count it from the end (-1 is the last), the front may hold replicas")
        shape = x.value.shape

        def pull(g: Array) -> Array:
            return np.broadcast_to(g if keepdims else np.expand_dims(g, axis), shape)

        return self._record(self.arithmetic.sum(x.value, axis=axis, keepdims=keepdims), (x, pull))

    def reshape(self, x: Variable, shape: tuple[int, ...]) -> Variable:
        """The same elements in another shape."""
        value, before = x.value, x.value.shape
        return self._record(value.reshape(before[: self._lead] + shape), (x, lambda g: g.reshape(before)))

    def permute(self, x: Variable, axes: tuple[int, ...]) -> Variable:
        """The axes in another order, counted from the front (behind the replica axis)."""
        order = (*range(self._lead), *(axis + self._lead for axis in axes))
        inverse = tuple(int(place) for place in np.argsort(order))
        return self._record(np.transpose(x.value, order), (x, lambda g: np.transpose(g, inverse)))

    def transpose(self, x: Variable) -> Variable:
        """The last two axes exchanged."""
        return self._record(np.swapaxes(x.value, -1, -2), (x, lambda g: np.swapaxes(g, -1, -2)))

    # Layers ------------------------------------------------------------------------------------------------------

    def softmax(self, x: Variable) -> Variable:
        """exp(x) / sum(exp(x)) over the last axis."""
        value = self._store(layers.softmax(self.wide, x.value))
        return self._record(value, (x, lambda g: self._store(layers.softmax_vjp(self.wide, value, g))))

    def layer_norm(self, x: Variable, weight: Variable, bias: Variable, eps: float) -> Variable:
        """Normalisation over the last axis."""
        normal = layers.Normalisation(self.wide, x.value, eps)
        return self._normalised(x, weight, bias, normal, x.value.shape, (-1,))

    def group_norm(self, x: Variable, groups: int, weight: Variable, bias: Variable, eps: float) -> Variable:
        """Normalisation over groups of channels of (batch, channels, ...)."""
        lead, shape = self._lead, x.value.shape
        grouped = x.value.reshape((*shape[: lead + 1], groups, -1))
        normal = layers.Normalisation(self.wide, grouped, eps)
        return self._normalised(x, weight, bias, normal, shape, (-1,) + (1,) * (len(shape) - lead - 2))

    def _normalised(
        self,
        x: Variable,
        weight: Variable,
        bias: Variable,
        normal: layers.Normalisation,
        shape: tuple[int, ...],
        per_channel: tuple[int, ...],
    ) -> Variable:
        at, lead = self.wide, self._lead
        lifted = [
            value.reshape((*value.shape[:lead], *(1,) * (len(shape) - lead - len(per_channel)), *per_channel))
            for value in (weight.value, bias.value)
        ]
        scale, shift = lifted
        normalised = normal.value.reshape(shape)
        axes = tuple(axis for axis in range(lead, len(shape)) if scale.shape[axis] == 1)

        def pull_x(g: Array) -> Array:
            inner = at.multiply(g, scale).reshape(normal.value.shape)
            return self._store(normal.vjp(inner).reshape(shape))

        def pull_weight(g: Array) -> Array:
            return self._store(at.sum(at.multiply(g, normalised), axis=axes).reshape(weight.value.shape))

        def pull_bias(g: Array) -> Array:
            return self._store(at.sum(g, axis=axes).reshape(bias.value.shape))

        value = self._store(at.add(at.multiply(normalised, scale), shift))
        return self._record(value, (x, pull_x), (weight, pull_weight), (bias, pull_bias))

    def conv2d(self, x: Variable, weight: Variable) -> Variable:
        """Cross-correlation with zero padding that keeps the size."""
        lead, zero = self._lead, self.arithmetic.convert(0)
        kernel, image = weight.value, x.value

        def pull_x(g: Array) -> Array:
            mirrored = np.swapaxes(kernel[..., ::-1, ::-1], lead, lead + 1)
            return layers.convolve(self.arithmetic, g, mirrored, lead, zero)

        def pull_weight(g: Array) -> Array:
            return layers.convolve_weight_vjp(self.arithmetic, image, g, kernel.shape, lead, zero)

        value = layers.convolve(self.arithmetic, image, kernel, lead, zero)
        return self._record(value, (x, pull_x), (weight, pull_weight))
