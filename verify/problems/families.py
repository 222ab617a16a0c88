"""Batches of equilibrium maps of known spectrum or contraction constant: one batch holds every (problem, k) at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from revdeq.rates import step_eigenvalues


Floats = npt.NDArray[np.float64]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fixture:
    """A family of maps f(z) = activation(W z + x), one for each contraction constant k.

    Attributes:
        name: identifies the family.
        spectrum: "real", "imaginary", "general" or "defective", of W.
        normal: whether W is normal, so that its spectral radius is its contraction constant.
        linear: whether the activation is the identity.
        matrix: k and dimension to W.
    """

    name: str
    spectrum: str
    normal: bool
    linear: bool
    matrix: Callable[[float, int], Floats]


@dataclass(frozen=True)
class Batch:
    """Maps of several fixtures and constants side by side; all numbers are exact in bfloat16.

    Attributes:
        names: fixture of each map.
        constants: k of each map, as asked for (rounding W to bfloat16 moves it by 2^-9 at most).
        weights: W, float64 (C, d, d).
        inputs: x, float64 (C, d).
        linear: bool (C,).
        fixed_point: z*, float64 (C, d).
        eigenvalues: of df/dz at z*, complex128 (C, d).
        eigenvectors: their unit eigenvectors, complex128 (C, d, d), the last index counting them.
        jacobian: df/dz at z*, float64 (C, d, d).
        lipschitz: spectral norm of W, float64 (C,).
    """

    names: tuple[str, ...]
    constants: Floats
    weights: Tensor
    inputs: Tensor
    linear: Tensor
    fixed_point: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    jacobian: Tensor
    lipschitz: Floats

    def slowest(self, beta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rate (C,) of the slowest mode of the step at this beta, and coupled states y, z (C, d) along it.

        With K v = kappa v and (lambda, (1, s)) an eigenpair of the 2 x 2 step on v, they are z* plus the
        real parts of v and s v, s = (lambda - a) / (beta kappa), rounded to their dtype, displaced by `displacement`.
        """
        larger, _ = step_eigenvalues(self.eigenvalues, beta)
        slowest = larger.abs().argmax(dim=1)
        index = torch.arange(len(slowest))
        vector = self.eigenvectors[index, :, slowest]
        rate, kappa = larger[index, slowest], self.eigenvalues[index, slowest]
        displaced = self.displacement(dtype)[:, None] * vector * _phase(vector)
        y = self.fixed_point + displaced.real
        z = self.fixed_point + (((rate - (1 - beta)) / (beta * kappa))[:, None] * displaced).real
        return rate.abs(), y.to(dtype).to(torch.float64), z.to(dtype).to(torch.float64)

    def slowest_component(self, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rate (C,) of the slowest mode of the step and the functional that sees this mode alone.

        With u^T K = kappa u^T and lambda the larger eigenvalue of the step on u,

            c(y, z) = p u^T (y - z*) + u^T (z - z*),     p = a beta kappa / (lambda - a)

        is multiplied by lambda in every step near z*, exactly where f is linear, also where K is defective.

        Returns:
            The rate, and the rows p u and u as complex128 (C, d).
        """
        kappas, left = torch.linalg.eig(self.jacobian.mT)
        larger, _ = step_eigenvalues(kappas, beta)
        slowest = larger.abs().argmax(dim=1)
        index = torch.arange(len(slowest))
        rate, kappa, row = larger[index, slowest], kappas[index, slowest], left[index, :, slowest]
        row = row * _phase(row)
        factor = (1 - beta) * beta * kappa / (rate - (1 - beta))
        return rate.abs(), factor[:, None] * row, row

    def displacement(self, dtype: torch.dtype) -> Tensor:
        """Return how far from z* a measurement starts, (C,): as long as z*; for tanh u^(1/4) of that."""
        # Curvature, the square of that, stays below half of the digits.
        return self.fixed_point.norm(dim=1) * torch.where(self.linear, 1.0, (torch.finfo(dtype).eps / 2) ** 0.25)

    def function(self, dtype: torch.dtype, device: str = "cpu") -> Callable[[Tensor], Tensor]:
        """Return the batched map on states (C, d) in the given dtype on the given device."""
        weights, inputs = self.weights.to(device, dtype), self.inputs.to(device, dtype)
        linear = self.linear[:, None].to(device)

        def function(z: Tensor) -> Tensor:
            affine = torch.baddbmm(inputs[:, :, None], weights, z[:, :, None])[:, :, 0]
            return torch.where(linear, affine, torch.tanh(affine))

        return function


def _orthogonal(dimension: int) -> Floats:
    # The orthogonal factor of a fixed, well-mixed matrix: no random numbers, the same on every machine.
    i = np.arange(1, dimension + 1)
    return np.linalg.qr(np.sin(np.outer(i, i) ** 1.3))[0]


def _conjugated(core: Floats, dimension: int) -> Floats:
    basis = _orthogonal(dimension)
    return basis @ core @ basis.T


def _blocks(values: Sequence[complex], dimension: int) -> Floats:
    core = np.zeros((dimension, dimension))
    for j, value in enumerate(values):
        core[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = [[value.real, -value.imag], [value.imag, value.real]]
    return core


def _real(k: float, dimension: int) -> Floats:
    return _conjugated(np.diag(np.linspace(-k, k, dimension)), dimension)


def _positive(k: float, dimension: int) -> Floats:
    return _conjugated(np.diag(np.linspace(k / 8, k, dimension)), dimension)


def _imaginary(k: float, dimension: int) -> Floats:
    return _conjugated(_blocks([1j * v for v in np.linspace(k / 4, k, dimension // 2)], dimension), dimension)


def _general(k: float, dimension: int) -> Floats:
    angles = np.linspace(0.4, 2.6, dimension // 2)
    radii = np.linspace(k, k / 2, dimension // 2)
    return _conjugated(_blocks(list(radii * np.exp(1j * angles)), dimension), dimension)


def _witness(k: float, dimension: int) -> Floats:
    return k * np.eye(dimension)


def _quarter_turn(k: float, dimension: int) -> Floats:
    return _blocks([1j * k] * (dimension // 2), dimension)


def _defective(k: float, dimension: int) -> Floats:
    # Jordan blocks of size 2: double eigenvalues with one eigenvector each.
    return np.diag(np.repeat(np.linspace(k / 2, k, dimension // 2), 2)) + np.diag(
        np.resize([k / 4, 0], dimension - 1), 1
    )


def _triangular(k: float, dimension: int) -> Floats:
    return np.diag(np.linspace(-k, k, dimension)) + np.triu(np.full((dimension, dimension), k / 8), 1)


FIXTURES: tuple[Fixture, ...] = (
    Fixture("real", "real", True, True, _real),
    Fixture("positive", "real", True, True, _positive),
    Fixture("imaginary", "imaginary", True, True, _imaginary),
    Fixture("general", "general", True, True, _general),
    Fixture("witness", "real", True, True, _witness),
    Fixture("quarter-turn", "imaginary", True, True, _quarter_turn),
    Fixture("defective", "defective", False, True, _defective),
    Fixture("triangular", "real", False, True, _triangular),
    Fixture("tanh-real", "real", True, False, _real),
    Fixture("tanh-imaginary", "imaginary", True, False, _imaginary),
    Fixture("tanh-general", "general", True, False, _general),
)


def batch_of(fixtures: Sequence[Fixture], constants: Sequence[float], dimension: int = 8) -> Batch:
    """Build one batch with a map for each fixture and each constant.

    The fixed points are solved for in float64 with the very weights that every dtype uses; for tanh by Newton's method
    from the result of the plain iteration.

    Args:
        fixtures: families of maps.
        constants: contraction constants, 0 <= k; for the tanh families k < 1.
        dimension: of each state, even and at least 2.

    Raises:
        ValueError: no fixture, no constant, or an odd dimension.
    """
    if not fixtures or not constants:
        raise ValueError("a batch needs at least one fixture and one constant")
    if dimension < 2 or dimension % 2:
        raise ValueError(f"dimension is {dimension}; it must be even and at least 2")
    pairs = [(fixture, k) for fixture in fixtures for k in constants]
    weights = torch.tensor(np.stack([fixture.matrix(k, dimension) for fixture, k in pairs]))
    weights = weights.to(torch.bfloat16).to(torch.float64)
    column = torch.cos(torch.arange(dimension, dtype=torch.float64)).to(torch.bfloat16).to(torch.float64)
    inputs = column.expand(len(pairs), dimension).clone()
    linear = torch.tensor([fixture.linear for fixture, _ in pairs])
    fixed_point = _fixed_point(weights, inputs, linear)
    slope = torch.where(
        linear[:, None], 1.0, 1 - torch.tanh((weights @ fixed_point[:, :, None])[:, :, 0] + inputs) ** 2
    )
    jacobian = slope[:, :, None] * weights
    eigenvalues, eigenvectors = torch.linalg.eig(jacobian)
    return Batch(
        tuple(fixture.name for fixture, _ in pairs),
        np.array([k for _, k in pairs]),
        weights,
        inputs,
        linear,
        fixed_point,
        eigenvalues,
        eigenvectors,
        jacobian,
        torch.linalg.matrix_norm(weights, 2).numpy(),
    )


def _phase(vectors: Tensor) -> Tensor:
    """Return the factors (C, 1) that make the largest entry of each vector real, so that its real part is not zero."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return largest.conj() / largest.abs()


def _fixed_point(weights: Tensor, inputs: Tensor, linear: Tensor) -> Tensor:
    identity = torch.eye(weights.shape[1], dtype=torch.float64)
    z = torch.zeros_like(inputs)
    # Damped steps bring tanh close; each Newton step then doubles the digits, and solves the linear maps at once.
    for step in range(60):
        affine = (weights @ z[:, :, None])[:, :, 0] + inputs
        value = torch.where(linear[:, None], affine, torch.tanh(affine))
        if step < 50:
            z = torch.where(linear[:, None], z, (z + value) / 2)
            continue
        slope = torch.where(linear[:, None], 1.0, 1 - value * value)
        z = z + torch.linalg.solve(identity - slope[:, :, None] * weights, value - z)
    return z
