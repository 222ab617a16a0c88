"""A random search for a second derivative that is wrong: a small fixed part by day, another seed every night.

The seed of a night is its date, or the number in REVDEQ_SEED; a failure prints the settings that failed.
"""

import datetime
import os
import random
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from revdeq import Reversible, ReversibleAdjoint, UnrolledAdjoint, solve


BY_DAY = 12
BY_NIGHT = 1500


class Setting(NamedTuple):
    """One draw."""

    cell: str
    seed: int
    dtype: torch.dtype
    beta: float
    num_steps: int
    segment: int | None
    batch_dims: Any


def drawn(draw: random.Random, cells: tuple[str, ...]) -> Setting:
    return Setting(
        draw.choice(cells),
        draw.randrange(2**20),
        draw.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16]),
        draw.choice([0.1, 0.3, 0.5, 0.8, 0.95, 1.2, 1.5]),
        draw.choice([1, 2, 3, 5, 8, 13, 30]),
        draw.choice([None, None, 1, 3]),
        draw.choice([None, None, 0]),
    )


def second_derivatives(setting: Setting, case: Any, adjoint: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the gradients of a random combination of all first gradients, at the numbers of the setting's dtype."""
    z0, *parameters = (t.to(setting.dtype).to(dtype).requires_grad_() for t in (case.z0, *case.parameters))
    solver = Reversible(setting.beta)
    how: Any = {"solver": solver, "max_steps": setting.num_steps, "throw": False, "batch_dims": setting.batch_dims}
    s: Any = solve(case.function, z0, parameters, adjoint=adjoint, **how)
    g = torch.Generator().manual_seed(setting.seed)

    def like(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=g, dtype=torch.float64).to(setting.dtype).to(dtype)

    leaves = (z0, *parameters)
    first: Any = torch.autograd.grad(
        [s.z1, s.y1], leaves, [like(s.z1), like(s.y1)], create_graph=True, allow_unused=True
    )
    first = [t for t in first if t is not None and t.requires_grad]
    second: Any = torch.autograd.grad(
        first, leaves, [like(t) for t in first], allow_unused=True, materialize_grads=True
    )
    return tuple(t.double() for t in second)


def ratio(setting: Setting, zoo: Any) -> float:
    """Return the greatest error of a leaf over that of the recorded loop, or one rounding of the leaf.

    Zero where the recorded loop is not finite, as for numbers beyond the range of a narrow dtype.
    """
    case, _ = zoo.case(setting.cell, setting.seed)
    recorded = second_derivatives(setting, case, UnrolledAdjoint(), setting.dtype)
    if not all(bool(t.isfinite().all()) for t in recorded):
        return 0.0
    found = second_derivatives(setting, case, ReversibleAdjoint(segment=setting.segment), setting.dtype)
    exact = second_derivatives(setting, case, UnrolledAdjoint(), torch.float64)
    eps = torch.finfo(setting.dtype).eps
    ratios = [
        float((f - e).norm() / torch.maximum((r - e).norm(), eps * e.norm()).clamp(min=1e-300))
        for f, r, e in zip(found, recorded, exact, strict=True)
    ]
    return max(ratios)


def search(seed: int, count: int, zoo: Any) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        setting = drawn(draw, zoo.cells)
        assert ratio(setting, zoo) <= 3.0, setting


def test_a_fixed_search_finds_no_second_derivative_worse_than_the_recorded_loop(zoo: Any):
    search(1, BY_DAY, zoo)


@pytest.mark.nightly
def test_another_search_every_night_finds_no_second_derivative_worse(zoo: Any):
    search(int(os.environ.get("REVDEQ_SEED", datetime.date.today().strftime("%Y%m%d"))), BY_NIGHT, zoo)
