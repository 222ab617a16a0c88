"""The two parts of an equilibrium z = prox(z W^T + b), on which operator-splitting solvers iterate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verify.problems.operations import Operations
from verify.problems.torch_operations import TorchOperations


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """Which of a problem's args are the affine part, and what is applied to it.

    Args:
        weight: name of W, shape (d, d), I - W strongly monotone.
        bias: name of b, shape of a state (B, d).
        prox: of a g whose proximal operator is the same for every step size, in terms of `Operations`.
    """

    weight: str
    bias: str
    prox: Callable[[Operations, Any], Any]


class Parts:
    """The parts of a splitting in one backend, for one step size alpha.

    Args:
        ops: the backend.
        splitting: the splitting.
        args: the problem's args, in the backend.
        step_size: alpha.
        identity: the unit matrix of W's size: a tensor for torch, a numpy array for the reference.

    References:
        Winston, Kolter, Monotone operator equilibrium networks, arXiv 2006.08591, algorithms 1 and 2.
    """

    def __init__(
        self, ops: Operations, splitting: Splitting, args: Mapping[str, Any], step_size: float, identity: Any
    ) -> None:
        self._ops, self._prox, self._alpha = ops, splitting.prox, step_size
        self._weight, self._bias = args[splitting.weight], args[splitting.bias]
        self._matrix = ops.add(ops.multiply(-step_size, self._weight), (1 + step_size) * identity)

    def affine(self, z: Any) -> Any:
        """The affine part W z + b."""
        ops = self._ops
        return ops.add(ops.matmul(z, ops.transpose(self._weight)), self._bias)

    def resolvent(self, u: Any) -> Any:
        """(I + alpha (I - W))^-1 (u + alpha b)."""
        ops = self._ops
        return ops.solve(self._matrix, ops.add(u, ops.multiply(self._alpha, self._bias)))

    def prox(self, u: Any) -> Any:
        """The proximal operator."""
        return self._prox(self._ops, u)


class SplitFunction:
    """A problem's f in torch that offers its splitting, as splitting solvers ask of it.

    Args:
        evaluate: f(z, args).
        splitting: of the problem.
    """

    def __init__(self, evaluate: Callable[..., Tensor], splitting: Splitting) -> None:
        self.evaluate, self.splitting = evaluate, splitting

    def __call__(self, z: Tensor, args: Mapping[str, Tensor]) -> Tensor:
        """The value f(z, args)."""
        return self.evaluate(z, args)

    def split(self, args: Mapping[str, Tensor], step_size: float) -> Parts:
        """The parts for these args and a step size."""
        weight = args[self.splitting.weight]
        identity = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        return Parts(TorchOperations(), self.splitting, args, step_size, identity)
