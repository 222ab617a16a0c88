"""The equilibria on which the study of convergence compares solvers: the zoo, and cells trained on digits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from revdeq import Relaxed, Reversible, UnrolledAdjoint, solve
from revdeq._estimate import Jacobian
from revdeq.nn import DEQ, Dense, MonotoneDEQ, Transformer
from verify.problems import get_problem
from verify.spectrum import DENSE_SIZE, spectrum_of


Eigenvalues = npt.NDArray[np.complex128]

TRAINED = ("trained-dense", "trained-attention", "trained-monotone")
"""Cells trained on scikit-learn's 8 x 8 digits, a class each."""

SETTLING_STEPS = 100
"""Damped steps that bring every problem that converges at all near enough for Newton's method."""

NEWTON_STEPS = 4

_TRAINING_STEPS, _BATCH, _WIDTH, _TOKENS = 60, 64, 32, 8


@dataclass(frozen=True)
class Equilibrium:
    """A fixed-point equation with what is known of it.

    Attributes:
        name: identifies it in the report.
        function: callable of (z, args).
        z0: start state, float64.
        args: what function gets besides z.
        eigenvalues: of df/dz at the fixed point (or near it).
    """

    name: str
    function: Callable[..., Tensor]
    z0: Tensor
    args: Any
    eigenvalues: Eigenvalues


def equilibrium(name: str) -> Equilibrium:
    """Return a problem of the zoo or a trained cell by its name.

    Raises:
        KeyError: neither has that name.
    """
    if name in TRAINED:
        return _trained(name)
    problem = get_problem(name)
    z0, args = problem.inputs(torch.float64)
    known = problem.eigenvalues
    if known is not None:
        return Equilibrium(name, problem.function, z0, args, known.astype(np.complex128))
    return Equilibrium(name, problem.function, z0, args, _eigenvalues(problem.function, z0, args))


def equilibria(names: Sequence[str]) -> list[Equilibrium]:
    """Return several of them."""
    return [equilibrium(name) for name in names]


def _eigenvalues(function: Callable[..., Tensor], z0: Tensor, args: Any) -> Eigenvalues:
    return spectrum_of(function, settled(function, z0, args), args).eigenvalues


def settled(function: Callable[..., Tensor], z0: Tensor, args: Any) -> Tensor:
    """Return the fixed point that damped steps from z0 lead to, with Newton's method at the end where J is small."""
    damped = solve(
        function, z0, args, solver=Relaxed(0.5), adjoint=UnrolledAdjoint(), max_steps=SETTLING_STEPS, throw=False
    )
    z = damped.z1.detach()
    if z.numel() > DENSE_SIZE:
        return z
    for _ in range(NEWTON_STEPS):
        change = jacobian(function, z, args) - torch.eye(z.numel(), dtype=z.dtype)
        with torch.no_grad():
            z = z - torch.linalg.solve(change, (function(z, args) - z).flatten()).view_as(z)
    return z


def jacobian(function: Callable[..., Tensor], z: Tensor, args: Any) -> Tensor:
    """Return df/dz at z as a matrix, row i the derivative of component i."""
    products = Jacobian(function, z, args)
    return torch.stack([products.transposed(row) for row in torch.eye(products.size, dtype=torch.float64)])


@cache
def _trained(name: str) -> Equilibrium:
    """Train a cell for some steps of Adam, always with the same numbers, and take its equilibrium for one digit."""
    images, classes = load_digits(return_X_y=True)
    data = torch.tensor(images, dtype=torch.float32) / 16.0
    labels = torch.tensor(classes)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        layer, encode = _layer(name)
        head = nn.Linear(layer.function.width, 10)
        optimiser = torch.optim.Adam([*encode.parameters(), *layer.parameters(), *head.parameters()], lr=3e-3)
        for step in range(_TRAINING_STEPS):
            chosen = torch.arange(step * _BATCH, (step + 1) * _BATCH) % len(data)
            z = cast(Tensor, layer(encode(data[chosen])))
            logits = head(z.mean(dim=1) if z.ndim == 3 else z)
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits, labels[chosen]).backward()
            optimiser.step()
        x = encode(data[:1]).detach().double()
    cell = layer.function.double().requires_grad_(False)
    z0 = cast(Callable[[Tensor], Tensor], cell.start)(x)
    return Equilibrium(name, cell, z0, x, _eigenvalues(cell, z0, x))


def _layer(name: str) -> tuple[Any, nn.Module]:
    """Return the layer that is trained, and what turns an image of 64 pixels into its input."""
    if name == "trained-dense":
        return DEQ(Dense(_WIDTH, 64), solver=Reversible(0.8), max_steps=4), nn.Identity()
    if name == "trained-monotone":
        return MonotoneDEQ(_WIDTH, 64, rtol=1e-3), nn.Identity()
    rows = nn.Sequential(nn.Unflatten(1, (_TOKENS, 8)), nn.Linear(8, _WIDTH // 2))
    return DEQ(Transformer(_WIDTH // 2, 2), solver=Reversible(0.8), max_steps=4), rows
