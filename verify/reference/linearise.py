"""One evaluation of a problem's function in an arithmetic, with its VJP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from verify.reference.arithmetic.protocol import Arithmetic, Array
from verify.reference.tape import Tape


if TYPE_CHECKING:
    from verify.problems.problem import Problem


class Linearised:
    """f(z, args) at one state, and the transposed derivative there.

    Args:
        problem: whose statement is evaluated.
        arithmetic: in which.
        z: the state, of the arithmetic.
        args: the args, of the arithmetic.
        replicas: None, or the length of an additional first axis that z and args carry.
    """

    def __init__(
        self,
        problem: Problem,
        arithmetic: Arithmetic,
        z: Array,
        args: Mapping[str, Array],
        *,
        replicas: int | None = None,
    ) -> None:
        self._tape = Tape(arithmetic, replicas=replicas)
        self._z = self._tape.leaf(z)
        self._args = {name: self._tape.leaf(value) for name, value in args.items()}
        self._output = problem.statement(self._tape, self._z, self._args)
        self.value: Array = self._output.value

    def vjp(self, cotangent: Array) -> tuple[Array, dict[str, Array]]:
        """(K^T cotangent, {name: f_name^T cotangent})."""
        leaves = [self._z, *self._args.values()]
        state, *args = self._tape.pull_back(self._output, cotangent, leaves)
        return state, dict(zip(self._args, args, strict=True))


def convert_args(problem: Problem, arithmetic: Arithmetic, replicas: int | None = None) -> dict[str, Array]:
    """The problem's args in the arithmetic, repeated along the replica axis if there is one."""
    return {name: replicate(arithmetic.convert(value), replicas) for name, value in problem.args.items()}


def replicate(value: Array, replicas: int | None) -> Array:
    """The array repeated along a new first axis, or itself for None."""
    return value if replicas is None else np.broadcast_to(value, (replicas, *value.shape))
