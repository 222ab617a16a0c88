"""Averaged maps: how a map that is no contraction can still be iterated to its fixed points."""

from collections.abc import Callable
from typing import Any

import torch

from revdeq._tree import Tree, flatten, unflatten
from revdeq.rates.arguments import checked_real


class Averaged(torch.nn.Module):
    """The map (1 - alpha) z + alpha f(z), which has the fixed points of f and eigenvalues 1 - alpha + alpha kappa.

    Every eigenvalue of df/dz with real part below 1 comes inside the unit strip for alpha < 2 / (1 - Re kappa), where a
    small enough beta converges; `revdeq.rates.optimal_averaging` gives the best alpha and beta for a spectrum. The
    implicit gradient is that of f: alpha cancels. An eigenvalue with real part 1 or more is not helped.

    Args:
        function: callable of (z, args) that returns the structure of z; a module's parameters stay parameters.
        alpha: weight, > 0; above 1 it extrapolates.

    Raises:
        ValueError: alpha is not positive and finite.

    References:
        (T5). Mann, "Mean value methods in iteration", Proc. AMS 4 (1953), doi:10.1090/S0002-9939-1953-0054846-3.
    """

    def __init__(self, function: Callable[[Tree, Tree], Tree], alpha: float) -> None:
        super().__init__()
        self.alpha = float(checked_real("alpha", alpha, lambda w: w > 0, "positive and finite"))
        self.function = function

    def forward(self, z: Tree, args: Tree = ()) -> Any:
        """Return (1 - alpha) z + alpha f(z), leaf by leaf."""
        leaves, structure = flatten(z)
        values, _ = flatten(self.function(z, args))
        return unflatten([torch.lerp(a, b, self.alpha) for a, b in zip(leaves, values, strict=True)], structure)
