"""A function that is not one map is refused by every adjoint that evaluates it again, whatever moved it."""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from revdeq import (
    CheckpointedAdjoint,
    GradientError,
    ImplicitAdjoint,
    PhantomAdjoint,
    Reversible,
    ReversibleAdjoint,
    UnrolledAdjoint,
    solve,
)


STEPS = [
    ("default", ReversibleAdjoint(), "floating"),
    ("stored", ReversibleAdjoint(segment=1), "floating"),
    ("segments", ReversibleAdjoint(segment=3), "floating"),
    ("bitwise", ReversibleAdjoint(), "bitwise"),
    ("checkpointed", CheckpointedAdjoint(2), "floating"),
]
FIXED_POINT = [
    ("implicit", ImplicitAdjoint(rtol=1e-3), "floating"),
    ("phantom", PhantomAdjoint(3, 0.5), "floating"),
]
# Bitwise reversal proves that the start comes back, and with tolerances for every sample.
STOPPING: list[dict[str, Any]] = [{"max_steps": 7}, {"max_steps": 40, "rtol": 1e-3, "atol": 1e-3, "throw": False}]


class Cell(nn.Module):
    """A contraction with everything that a script might move between the passes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.2, 0.3, 16).reshape(4, 4))
        self.offset: torch.Tensor
        self.register_buffer("offset", torch.full((4,), 0.125))
        self.gains = [1.0, 0.5]
        self.table = {"shift": 0.25}
        self.drop = nn.Dropout(0.0)
        self.x = torch.ones(3, 4)
        self.inner: Callable[[torch.Tensor], torch.Tensor] = torch.tanh

    def forward(self, z: torch.Tensor, _: Any) -> torch.Tensor:
        value = self.drop(z) @ self.weight * self.gains[0] + self.offset + self.table["shift"] * self.x
        return self.inner(value)


def start(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.linspace(-1.0, 1.0, 12, dtype=dtype).reshape(3, 4)


def run(f: Any, adjoint: Any, arithmetic: Any, stopping: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    return solve(f, start(dtype), (), solver=Reversible(0.75, arithmetic=arithmetic), adjoint=adjoint, **stopping)


def swap_weight(cell: Cell) -> None:
    cell.weight.data = 1.01 * cell.weight.data


def write_weight(cell: Cell) -> None:
    cell.weight.data[0, 0] += 0.01


def write_buffer(cell: Cell) -> None:
    cell.offset.data.mul_(1.5)


def write_through_numpy(cell: Cell) -> None:
    cell.offset.numpy()[1] = 0.25


def set_list(cell: Cell) -> None:
    cell.gains[0] = 0.99


def set_dict(cell: Cell) -> None:
    cell.table["shift"] = 0.26


def set_attribute(cell: Cell) -> None:
    cell.x = 1.5 * cell.x


def set_activation(cell: Cell) -> None:
    cell.inner = torch.sin


def set_mode(cell: Cell) -> None:
    cell.drop.p = 0.5


def second_pass(cell: Cell) -> None:
    cell.x = torch.full((3, 4), 2.0)
    run(cell, ReversibleAdjoint(), "floating", STOPPING[0])


MOVES = [
    swap_weight,
    write_weight,
    write_buffer,
    write_through_numpy,
    set_list,
    set_dict,
    set_attribute,
    set_activation,
    set_mode,
    second_pass,
]


@pytest.mark.parametrize(("name", "adjoint", "arithmetic"), STEPS + FIXED_POINT, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_what_moves_between_the_passes_is_refused(move, name, adjoint, arithmetic):
    for stopping in STOPPING:
        cell = Cell()
        found = run(cell, adjoint, arithmetic, stopping)
        move(cell)
        with pytest.raises((GradientError, RuntimeError), match=r"does not repeat|changed|other random numbers"):
            found.z1.sum().backward()


@pytest.mark.parametrize(("name", "adjoint", "arithmetic"), STEPS + FIXED_POINT, ids=lambda value: str(value)[:12])
def test_what_is_put_back_before_the_backward_pass_is_no_move(name, adjoint, arithmetic):
    cell = Cell()
    found = run(cell, adjoint, arithmetic, STOPPING[0])
    cell.gains[0] = 7.0
    cell.x = 2.0 * cell.x
    cell.gains[0] = 1.0
    cell.x = 0.5 * cell.x
    found.z1.sum().backward()
    assert cell.weight.grad is not None


class Counting:
    """Reads another row of a table at every call, up to the last."""

    def __init__(self, rows: int) -> None:
        self.cell, self.rows, self.calls = Cell(), torch.linspace(0.0, 0.3, rows * 4).reshape(rows, 4), 0

    def __call__(self, z: torch.Tensor, args: Any) -> torch.Tensor:
        self.calls += 1
        return self.cell(z, args) + self.rows[min(self.calls, len(self.rows)) - 1]


class Alternating(Counting):
    """Takes one of two branches by turns, so that an even number of calls ago it was as now."""

    def __call__(self, z: torch.Tensor, args: Any) -> torch.Tensor:
        self.calls += 1
        return self.cell(z, args) * (0.5 if self.calls % 4 in (1, 2) else 0.75)


class Drawing(Counting):
    """Draws from Python's or numpy's generator."""

    def __init__(self, generator: Any) -> None:
        super().__init__(1)
        self.draw = generator.random

    def __call__(self, z: torch.Tensor, args: Any) -> torch.Tensor:
        return self.cell(z, args) * (0.5 if self.draw() < 0.3 else 0.75)


class Remembering(Counting):
    """Adds something of its value before."""

    def __init__(self) -> None:
        super().__init__(1)
        self.before = torch.zeros(3, 4)

    def __call__(self, z: torch.Tensor, args: Any) -> torch.Tensor:
        value = self.cell(z, args) + 0.1 * self.before
        self.before = value.detach()
        return value


class Warming(Counting):
    """Is one map after its first six calls."""

    def __call__(self, z: torch.Tensor, args: Any) -> torch.Tensor:
        self.calls += 1
        return self.cell(z, args) * min(1.0, 0.7 + 0.05 * self.calls)


CALLS: dict[str, Callable[[], Any]] = {
    "counting": lambda: Counting(4),
    "counting far": lambda: Counting(200),
    "alternating": lambda: Alternating(1),
    "python": lambda: Drawing(random.Random(3)),
    "numpy": lambda: Drawing(np.random.default_rng(3)),
    "remembering": Remembering,
    "warming": lambda: Warming(1),
}


@pytest.mark.parametrize(("name", "adjoint", "arithmetic"), STEPS, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("kind", CALLS)
def test_a_function_that_changes_from_call_to_call_is_right_or_refused(kind, name, adjoint, arithmetic):
    for dtype in (torch.float32, torch.float64):
        for stopping in STOPPING:
            wanted = CALLS[kind]()
            wanted.cell.to(dtype)
            want = run(wanted, UnrolledAdjoint(), arithmetic, stopping, dtype)
            want.z1.sum().backward()
            f = CALLS[kind]()
            f.cell.to(dtype)
            with contextlib.suppress(GradientError):
                found = run(f, adjoint, arithmetic, stopping, dtype)
                found.z1.sum().backward()
                torch.testing.assert_close(f.cell.weight.grad, wanted.cell.weight.grad, rtol=1e-6, atol=1e-7)
                continue
            assert f.cell.weight.grad is None


@pytest.mark.parametrize(("name", "adjoint", "arithmetic"), STEPS[:4], ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("kind", ["counting", "counting far", "remembering", "warming"])
def test_the_reversible_adjoint_refuses_them(kind, name, adjoint, arithmetic):
    f = CALLS[kind]()
    found = run(f, adjoint, arithmetic, STOPPING[0])
    with pytest.raises(GradientError, match=r"does not repeat.*(one map|state of its own)"):
        found.z1.sum().backward()
