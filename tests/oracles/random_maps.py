"""Random maps z A + c and tanh(z A + c) by families of A: normal ones, and such as are far from normal."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


Map = Callable[[Tensor], Tensor]
FAR_FROM_NORMAL = ("triangular", "jordan", "toeplitz", "grcar", "kahan")
OTHERS = ("random", "symmetric", "skew", "stochastic", "similar", "outlier")
FAMILIES = (*FAR_FROM_NORMAL, *OTHERS)


def matrix(family: str, size: int, generator: torch.Generator) -> Tensor:
    """Draw a matrix, float64; its spectral radius is below 1 but for "skew", which reaches 1.4 i."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    sign = 1 if between(0, 1) < 0.5 else -1
    if family == "triangular":
        eigenvalues = between(0.1, 0.95) * (2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1)
        diagonal = eigenvalues if sign > 0 else torch.full_like(eigenvalues, between(-0.9, 0.9))
        return torch.triu(normal(size, size), 1) * between(0.1, 1) * between(0, 2 / size**0.5) + torch.diag(diagonal)
    if family == "jordan":
        eye, above = torch.eye(size, dtype=torch.float64), torch.ones(size - 1, dtype=torch.float64).diag(1)
        return sign * between(0.05, 0.95) * eye + between(0.1, 1) * above
    if family == "toeplitz":
        bands = range(-int(between(1, 3)), int(between(1, 4)) + 1)
        return _scaled(sum(float(normal(1)) * _band(size, k) for k in bands), between(0.2, 0.95))
    if family == "grcar":
        return _scaled(sum(_band(size, k) for k in range(int(between(2, 5)) + 1)) - _band(size, -1), between(0.2, 0.95))
    if family == "kahan":
        angle = between(0.2, 1.4)
        rows = math.sin(angle) ** torch.arange(size, dtype=torch.float64)
        upper = torch.eye(size, dtype=torch.float64) - math.cos(angle) * torch.ones(size, size).triu(1)
        return _scaled(rows[:, None] * upper, between(0.2, 0.95))
    if family == "random":
        return _scaled(normal(size, size), between(0.3, 0.98))
    if family == "symmetric":
        drawn = normal(size, size)
        return _scaled(drawn + drawn.T, between(0.3, 0.99))
    if family == "skew":
        drawn = normal(size, size)
        return _scaled(drawn - drawn.T, between(0.3, 1.4))
    if family == "stochastic":
        drawn = torch.rand(size, size, generator=generator, dtype=torch.float64)
        return between(0.5, 0.98) * drawn / drawn.sum(dim=1, keepdim=True)
    if family == "similar":
        basis, values = normal(size, size), 2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1
        return basis @ (between(0.3, 0.95) * torch.diag(values)) @ torch.linalg.inv(basis)
    assert family == "outlier"
    direction = normal(size)
    direction = direction / direction.norm()
    return _scaled(normal(size, size), between(0.1, 0.5)) + sign * between(0.4, 0.95) * torch.outer(
        direction, direction
    )


def draw(family: str, curved: bool, seed: int) -> tuple[Map, Tensor]:
    """Return a map of one of the families, and the start z0 = 0, 1 to 5 samples of 3 to 79 components."""
    generator = torch.Generator().manual_seed(seed)
    size, samples = (int(torch.randint(*ends, (), generator=generator)) for ends in ((3, 80), (1, 6)))
    weight = matrix(family, size, generator).T
    scale = 10 ** (2.3 * float(torch.rand((), generator=generator)) - 2)
    inputs = scale * torch.randn(samples, size, generator=generator, dtype=torch.float64)
    z0 = torch.zeros(samples, size, dtype=torch.float64)
    if curved:
        return lambda z: torch.tanh(z @ weight + inputs), z0
    return lambda z: z @ weight + inputs, z0


def evaluations(function: Map, z0: Tensor, beta: float, tolerances: tuple[float, ...], most: int) -> list[float]:
    """Return how many evaluations of f the reversible iteration takes to each residual, relative to the first."""
    y = z = z0
    taken = [math.inf] * len(tolerances)
    initial = float((function(z0) - z0).norm())
    for n in range(most // 2 + 1):
        value = function(z)
        residual = float((value - z).norm())
        taken = [
            2 * n if residual <= tolerance * initial and count == math.inf else count
            for count, tolerance in zip(taken, tolerances, strict=True)
        ]
        if math.inf not in taken or not math.isfinite(residual):
            break
        y = (1 - beta) * y + beta * value
        z = (1 - beta) * z + beta * function(y)
    return taken


def _band(size: int, offset: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.float64).triu(offset).tril(offset)


def _scaled(drawn: Tensor | float, radius: float) -> Tensor:
    square = torch.as_tensor(drawn)
    greatest = float(torch.linalg.eigvals(square).abs().max())
    return square * (radius / greatest) if greatest > 1e-12 else square
