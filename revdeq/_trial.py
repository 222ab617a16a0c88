"""The reversible iteration run for its own sake, on one vector: what "auto" and a plan find out about a function."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from revdeq._probe import probing
from revdeq._tree import Tree, flatten, unflatten


class Run:
    """The iteration of one beta from z0, its residuals and the points that it visits.

    Args:
        function: the map on vectors.
        z0: the start, a vector.
        beta: relaxation parameter.

    Attributes:
        points: where the map was evaluated, as far as they were kept and the values are finite.
        values: its values there.
        residuals: `||f(z_n) - z_n||`, n = 0, 1, ...
        evaluations: of the map so far.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], z0: Tensor, beta: float) -> None:
        self._function, self.beta = function, beta
        self._y = self._z = z0
        self.points: list[Tensor] = []
        self.values: list[Tensor] = []
        self.residuals: list[float] = []
        self.evaluations = 0

    def step(self, *, keep: bool = True) -> None:
        """Take a step; the residual is that before it."""
        value = self._evaluate(self._z, keep)
        self.residuals.append(float((value - self._z).norm()))
        self._y = (1 - self.beta) * self._y + self.beta * value
        self._z = (1 - self.beta) * self._z + self.beta * self._evaluate(self._y, keep)

    def _evaluate(self, point: Tensor, keep: bool) -> Tensor:
        value = self._function(point)
        self.evaluations += 1
        if keep and bool(torch.isfinite(value).all()):
            self.points.append(point)
            self.values.append(value)
        return value


@contextmanager
def on_vectors(
    function: Callable[[Tree, Tree], Tree], z0: Tree, args: Tree
) -> Generator[tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Give a function as a map of one wide vector, without a graph and without a trace, and z0 as that vector.

    Args:
        function: callable of (z, args) that returns the structure of z; it is evaluated in the dtypes of z0.
        z0: a tensor or pytree of tensors.
        args: any pytree.
    """
    leaves, structure = flatten(z0)
    wide = torch.float32 if leaves[0].device.type == "mps" else torch.float64
    sizes = [leaf.numel() for leaf in leaves]

    def flat(tree: Tree) -> Tensor:
        return torch.cat([leaf.detach().reshape(-1).to(wide) for leaf in flatten(tree)[0]])

    def shaped(vector: Tensor) -> Any:
        parts = zip(vector.split(sizes), leaves, strict=True)
        return unflatten([part.view(leaf.shape).to(leaf.dtype) for part, leaf in parts], structure)

    with probing(function, z0, args) as f, torch.no_grad():
        yield lambda vector: flat(f(shaped(vector))), flat(z0)
