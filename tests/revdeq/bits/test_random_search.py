"""A random search for a gradient that is silently wrong: a small fixed part by day, another seed every night.

The seed of a night is its date, or the number in REVDEQ_SEED; a failure prints it with the settings that failed.
"""

import datetime
import os
import random
from typing import Any, NamedTuple

import pytest
import torch

from revdeq import GradientError, Reversible, ReversibleAdjoint
from revdeq._schedule import chebyshev_schedule


BY_DAY = 60
BY_NIGHT = 4000
DTYPES = [torch.float32] * 4 + [torch.bfloat16, torch.float16, torch.float64]


class Setting(NamedTuple):
    """One draw."""

    cell: str
    seed: int
    dtype: torch.dtype
    state_dtype: torch.dtype | None
    beta: Any
    segment: int | None
    loss: str
    scale: float
    stopping: dict[str, Any]


def drawn(draw: random.Random, cells: tuple[str, ...], losses: tuple[str, ...]) -> Setting:
    """Draw what to try: any map, dtype, beta or betas, depth, segments, loss, size of the start and way of stopping."""
    num_steps = draw.choice([1, 2, 3, 5, 8, 12, 24, 48, 100])
    kind = draw.choice(["number"] * 5 + ["chebyshev", "uneven", "adaptive"])
    betas: dict[str, Any] = {
        "number": draw.choice([0.1, 0.3, 0.5, 0.5, 0.7, 0.8, 0.8, 0.9, 0.95, 1.05, 1.25, 1.5, 1.9, 1.99]),
        "chebyshev": chebyshev_schedule(num_steps, draw.choice([0.5, 0.9, 0.99])),
        "uneven": tuple((draw.uniform(0.05, 0.95), draw.choice([0.4, 1.3])) for _ in range(num_steps)),
        "adaptive": "adaptive",
    }
    tolerance = draw.choice([1e-1, 1e-2, 1e-4])
    stopping: dict[str, Any] = {"max_steps": num_steps}
    if draw.random() < 0.4:
        stopping |= {"rtol": tolerance, "atol": tolerance * draw.choice([0.0, 1.0])}
    dtype = draw.choice(DTYPES)
    return Setting(
        draw.choice(cells),
        draw.randrange(2**20),
        dtype,
        draw.choice([None, None, None, torch.promote_types(dtype, torch.float32)]),
        betas[kind],
        draw.choice([None, None, None, 1, 2, 3, 7, 200]),
        draw.choice(losses),
        draw.choice([1.0, 1.0, 0.0, 2.0**-10, 2.0**6]),
        stopping,
    )


def found_wrong(setting: Setting, zoo: Any) -> list[int]:
    """Return which leaves of one setting differ from those of stored inputs, in the plain loop where there is one."""
    case, g = zoo.case(setting.cell, setting.seed)
    case = case._replace(z0=setting.scale * case.z0)
    cotangent = zoo.cotangents(setting.loss, g, case.z0)
    solver = Reversible(setting.beta, state_dtype=setting.state_dtype)

    def run(segment: int | None) -> tuple[Any, list[torch.Tensor]] | None:
        adjoint = ReversibleAdjoint(segment=segment)
        try:
            return zoo.reversed(case, solver, cotangent, setting.dtype, adjoint, **setting.stopping)
        except GradientError as error:
            if "the loss depends on it" not in str(error):
                raise
            return None  # a sample that diverged has no gradient, and the loss depends on all of them

    found, stored = run(setting.segment), run(1)
    if found is None or stored is None:
        return [] if found is stored else [-1]
    assert found[0].health.verified
    wrong = zoo.differing(found[1], stored[1])
    if not wrong and setting.state_dtype is None and "rtol" not in setting.stopping and setting.beta != "adaptive":
        betas = (
            setting.beta if isinstance(setting.beta, tuple) else [(setting.beta,) * 2] * setting.stopping["max_steps"]
        )
        wrong = zoo.differing(found[1], zoo.stored(case, betas, cotangent, setting.dtype))
    return wrong


def search(seed: int, count: int, zoo: Any) -> list[Setting]:
    draw = random.Random(seed)
    return [s for s in (drawn(draw, zoo.cells, zoo.losses) for _ in range(count)) if found_wrong(s, zoo)]


@pytest.mark.parametrize("part", range(4))
def test_no_gradient_is_silently_wrong_by_day(part, zoo):
    assert search(part, BY_DAY // 4, zoo) == []


@pytest.mark.nightly
def test_no_gradient_is_silently_wrong_by_night(zoo):
    seed = int(os.environ.get("REVDEQ_SEED", datetime.date.today().strftime("%Y%m%d")))
    assert search(seed, BY_NIGHT, zoo) == [], f"REVDEQ_SEED={seed}"


def test_the_search_finds_a_planted_fault(zoo, monkeypatch: pytest.MonkeyPatch):
    import revdeq.adjoint.anchored as anchored

    monkeypatch.setattr(anchored, "fingerprint", lambda leaves: torch.zeros((), dtype=torch.int64))
    assert sum(len(search(part, BY_DAY // 4, zoo)) for part in range(2)) > 2
