"""What a training step costs, counted: evaluations of f, VJPs through it, and the bytes kept between the passes."""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

import torch
from torch import Tensor

from verify.studies.cost.methods import Method
from verify.studies.cost.workload import Cell, Workload
from verify.trial.memory import Allocations


class Cost(NamedTuple):
    """The cost of one training step, exact.

    Attributes:
        evaluations: evaluations of f, forward and backward together.
        vjps: vector-Jacobian products through f.
        saved_bytes: bytes of the storages that the forward pass made and that live on for backward, the result too.
    """

    evaluations: int
    vjps: int
    saved_bytes: int


def count(workload: Workload, method: Method) -> Cost:
    """Take one training step and count its evaluations and products, then the bytes of another forward pass.

    What a library makes once, such as a cache, is made by the first and not among the bytes.

    Args:
        workload: what is solved.
        method: by what.
    """
    counted = _Counted(workload.cell)
    workload.gradients(method.forward(counted))
    return Cost(counted.evaluations, counted.vjps, _kept(workload, method))


def _kept(workload: Workload, method: Method) -> int:
    allocations = Allocations()
    with allocations:
        final = method.forward(workload.cell)
    # A young reference cycle would count until the collector finds it.
    gc.collect(1)
    kept = allocations.alive()
    del final
    return kept


class _Counted:
    """A cell that counts its evaluations and the VJPs that reach its value."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.evaluations = 0
        self.vjps = 0

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.evaluations += 1
        value: Any = _Passed.apply(self._cell(z, x), self)
        return value


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, counted: _Counted) -> Tensor:
        ctx.counted = counted
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        ctx.counted.vjps += 1
        return cotangents[0], None
