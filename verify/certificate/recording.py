"""An arithmetic that writes down what it computes: a straight-line program for the small re-checker.

Every element is a slot with a number and a ball. An operation computes the balls and appends one instruction over slot
numbers; shape operations are numpy's on the slots and leave no trace. Comparisons are decided by the balls and written
down as assertions, so the program is the function on every point where they hold, and whoever runs it checks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.reference.arithmetic import Array, BoolArray, Undecided
from verify.reference.arithmetic.balls import Balls, filled


class Slot:
    """One number of the program: its place, and the ball that it was while the program was written."""

    __slots__ = ("ball", "number")

    def __init__(self, number: int, ball: arb) -> None:
        self.number = number
        self.ball = ball


def exact_text(ball: arb) -> str:
    """An exact number as 'mantissa:exponent' in hexadecimal, or 'inf', '-inf', 'nan'."""
    if not ball.is_finite():
        return repr(float(ball))
    mantissa, exponent = ball.man_exp()
    return f"{int(mantissa):x}:{int(exponent)}"


def compressed(numbers: list[int]) -> list[Any]:
    """Slot numbers as runs [first, count, step], a list of integers three times as long as there are runs."""
    runs: list[int] = []
    place = 0
    while place < len(numbers):
        step = numbers[place + 1] - numbers[place] if place + 1 < len(numbers) else 0
        end = place + 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        runs += [numbers[place], end - place, step]
        place = end
    return runs


class Recording:
    """Balls that write down their operations.

    Args:
        bits: working precision of the balls.

    Attributes:
        instructions: what was computed, plain JSON values.
        size: number of slots so far.
        branches: assertions so far about numbers that depend on an input.
        node: the node of the graph whose operations come next, or None.
    """

    def __init__(self, bits: int) -> None:
        self.balls = Balls(bits)
        self.instructions: list[dict[str, Any]] = []
        self.size = 0
        self.branches = 0
        self.node: int | None = None
        self._varying: set[int] = set()
        self._known: dict[tuple[bytes, tuple[int, ...]], Array] = {}
        self._numbers: dict[str, Slot] = {}

    @property
    def name(self) -> str:
        """The arithmetic and its precision."""
        return f"recorded {self.balls.name}"

    def input(self, balls: Array) -> Array:
        """New slots that whoever runs the program fills, one for each element."""
        slots = self._slots(balls)
        self._varying.update(slot.number for slot in slots.ravel().tolist())
        return slots

    def _slots(self, balls: Array) -> Array:
        slots = [Slot(self.size + place, ball) for place, ball in enumerate(balls.ravel().tolist())]
        self.size += len(slots)
        return filled(slots, balls.shape)

    def _write(self, name: str, operands: Iterable[Array], result: Array, **options: Any) -> Array:
        places = [slot_numbers(operand) for operand in operands]
        slots = self._slots(result)
        varying = any(place in self._varying for operand in places for place in operand)
        if varying:
            self._varying.update(slot.number for slot in slots.ravel().tolist())
        self._append({"op": name, "in": [compressed(place) for place in places], "n": slots.size, **options})
        return slots

    def _append(self, instruction: dict[str, Any]) -> None:
        self.instructions.append(instruction if self.node is None else {**instruction, "node": self.node})

    def at_node(self, node: int) -> None:
        """Say of which node of the graph the next operations are."""
        if self.node is not None:
            self.node = node

    def mark(self) -> tuple[int, int, int]:
        """How far it has come, for `back_to`."""
        return len(self.instructions), self.size, self.branches

    def back_to(self, mark: tuple[int, int, int]) -> None:
        """Forget what was written since."""
        count, self.size, self.branches = mark
        del self.instructions[count:]
        self._varying = {slot for slot in self._varying if slot < self.size}
        self._numbers = {text: slot for text, slot in self._numbers.items() if slot.number < self.size}
        self._known.clear()

    def convert(self, values: Any) -> Array:
        """Constants; equal arrays and equal numbers share their slots."""
        array = np.asarray(values)
        key = (array.tobytes() + str(array.dtype).encode(), array.shape)
        if array.dtype != object and key in self._known:
            return self._known[key]
        balls = self.balls.convert(array)
        slots: list[Slot] = []
        fresh: list[str] = []
        for ball in balls.ravel().tolist():
            text = exact_text(ball)
            if text not in self._numbers:
                self._numbers[text] = Slot(self.size, ball)
                self.size += 1
                fresh.append(text)
            slots.append(self._numbers[text])
        if fresh:
            self._append({"op": "constant", "in": [], "n": len(fresh), "values": fresh})
        result = filled(slots, balls.shape)
        if array.dtype != object:
            self._known[key] = result
        return result

    def pi(self) -> Array:
        """The circle's number."""
        return self._write("pi", [], self.balls.pi())

    def to_float64(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of every constant.

        Raises:
            Undecided: a number depends on an input, so that a rule which reads it would hold at one point alone.
        """
        if any(slot.number in self._varying for slot in x.ravel().tolist()):
            raise Undecided(
                "a rule reads floating values of a recorded number, so it is not proved over a box: it may use "
                "`hint` where every choice that it makes gives the same function, and must compare elsewhere"
            )
        return self.balls.to_float64(_balls(x))

    def hint(self, x: Array) -> NDArray[np.float64]:
        """The nearest float64 of every midpoint, for choices between two ways to write the same function."""
        return self.balls.to_float64(_balls(x))

    def rounded(self, x: Array) -> Array:
        """The array itself."""
        return x

    def _binary(self, name: str, a: Array, b: Array) -> Array:
        left, right = np.broadcast_arrays(a, b)
        return self._write(name, (left, right), getattr(self.balls, name)(_balls(left), _balls(right)))

    def _unary(self, name: str, x: Array) -> Array:
        return self._write(name, (x,), getattr(self.balls, name)(_balls(x)))

    def add(self, a: Array, b: Array) -> Array:
        """Elementwise a + b."""
        return self._binary("add", a, b)

    def subtract(self, a: Array, b: Array) -> Array:
        """Elementwise a - b."""
        return self._binary("subtract", a, b)

    def multiply(self, a: Array, b: Array) -> Array:
        """Elementwise a b."""
        return self._binary("multiply", a, b)

    def divide(self, a: Array, b: Array) -> Array:
        """Elementwise a / b."""
        return self._binary("divide", a, b)

    def negative(self, x: Array) -> Array:
        """-x."""
        return self._unary("negative", x)

    def absolute(self, x: Array) -> Array:
        """|x|."""
        return self._unary("absolute", x)

    def power(self, x: Array, exponent: float) -> Array:
        """Elementwise x ** exponent."""
        return self._write("power", (x,), self.balls.power(_balls(x), exponent), exponent=float(exponent).hex())

    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix product of the last two axes, one instruction for each matrix of a batch."""
        left, right = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        lefts = np.broadcast_to(left, batch + left.shape[-2:]).reshape(-1, *left.shape[-2:])
        rights = np.broadcast_to(right, batch + right.shape[-2:]).reshape(-1, *right.shape[-2:])
        result = np.empty((len(lefts), left.shape[-2], right.shape[-1]), dtype=object)
        for index in range(len(lefts)):
            x, y = lefts[index], rights[index]
            shape = [int(x.shape[0]), int(x.shape[1]), int(y.shape[1])]
            result[index] = self._write("matmul", (x, y), self.balls.matmul(_balls(x), _balls(y)), shape=shape)
        result = result.reshape(*batch, left.shape[-2], right.shape[-1])
        if a.ndim == 1:
            result = result[..., 0, :]
        return np.asarray(result[..., 0] if b.ndim == 1 else result, dtype=object)

    def matrix_exponential(self, x: Array) -> Array:
        """The exponential of a square matrix."""
        return self._write("matrix_exp", (x,), self.balls.matrix_exponential(_balls(x)), size=int(x.shape[0]))

    def sum(self, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum over the axes."""
        axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        summed = {place % x.ndim for place in axes} if x.ndim else set[int]()
        kept = [place for place in range(x.ndim) if place not in summed]
        rows = x.transpose(*kept, *sorted(summed)).reshape(math.prod(x.shape[place] for place in kept), -1)
        result = self.balls.sum(_balls(x), axis=tuple(summed), keepdims=keepdims)
        return self._write("sum", (rows,), result, rows=int(rows.shape[0]))

    def exp(self, x: Array) -> Array:
        """Elementwise exp x."""
        return self._unary("exp", x)

    def expm1(self, x: Array) -> Array:
        """Elementwise exp(x) - 1."""
        return self._unary("expm1", x)

    def log(self, x: Array) -> Array:
        """The natural logarithm."""
        return self._unary("log", x)

    def log1p(self, x: Array) -> Array:
        """log(1 + x)."""
        return self._unary("log1p", x)

    def sqrt(self, x: Array) -> Array:
        """The square root."""
        return self._unary("sqrt", x)

    def sin(self, x: Array) -> Array:
        """Elementwise sin x."""
        return self._unary("sin", x)

    def cos(self, x: Array) -> Array:
        """Elementwise cos x."""
        return self._unary("cos", x)

    def tanh(self, x: Array) -> Array:
        """Elementwise tanh x."""
        return self._unary("tanh", x)

    def atan(self, x: Array) -> Array:
        """The arc tangent, in radians."""
        return self._unary("atan", x)

    def erf(self, x: Array) -> Array:
        """The error function."""
        return self._unary("erf", x)

    def special(self, name: str, x: Array) -> Array:
        """Lgamma (for x > 0), digamma or erfinv, elementwise."""
        return self._write(name, (x,), self.balls.special(name, _balls(x)))

    def maximum(self, a: Array, b: Array) -> Array:
        """The greater of the two."""
        return self._binary("maximum", a, b) if self.node is not None else self._chosen("maximum", a, b)

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of the two."""
        return self._binary("minimum", a, b) if self.node is not None else self._chosen("minimum", a, b)

    def _chosen(self, name: str, a: Array, b: Array) -> Array:
        """The greater or lesser as the very slot, asserted, where that is decided.

        torch's backward compares the greatest with what it was chosen from; nobody differentiates that tape.
        """
        left, right = (np.ascontiguousarray(x) for x in np.broadcast_arrays(a, b))
        pairs = list(zip(left.ravel().tolist(), right.ravel().tolist(), strict=True))
        known = np.array([bool(x.ball <= y.ball or x.ball >= y.ball) for x, y in pairs], dtype=np.bool_)
        known = known.reshape(left.shape)
        result = np.array(left)
        result[~known] = self._binary(name, left[~known], right[~known])
        lesser = self.less_equal(left[known], right[known])
        result[known] = np.where(lesser == (name == "minimum"), left[known], right[known])
        return result

    def less(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a < b, asserted."""
        return self._compare("less", a, b)

    def less_equal(self, a: Array, b: Array) -> BoolArray:
        """Elementwise a <= b, asserted."""
        return self._compare("less_equal", a, b)

    def _compare(self, name: str, a: Array, b: Array) -> BoolArray:
        left, right = np.broadcast_arrays(a, b)
        outcome: BoolArray = getattr(self.balls, name)(_balls(left), _balls(right))
        places = [slot_numbers(left), slot_numbers(right)]
        varying = any(place in self._varying for operand in places for place in operand)
        self.branches += varying
        text = "".join("1" if value else "0" for value in outcome.ravel().tolist())
        self._append({"op": name, "in": [compressed(place) for place in places], "n": 0, "outcome": text})
        return outcome

    def where(self, condition: BoolArray, a: Array, b: Array) -> Array:
        """Elementwise a where the condition holds, b elsewhere: a choice of slots."""
        return np.where(condition, a, b)


def _balls(slots: Array) -> Array:
    return filled([slot.ball for slot in slots.ravel().tolist()], slots.shape)


def slot_numbers(slots: Array) -> list[int]:
    """The slots' numbers, row-major."""
    return [slot.number for slot in slots.ravel().tolist()]
