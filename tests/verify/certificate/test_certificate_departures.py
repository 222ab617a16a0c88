"""Where torch loses more bits than rounding explains: the first operation that does is named with its module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from verify.certificate import certify
from verify.certificate.departures import first_departure
from verify.reference.graph import register, unregister


F64 = torch.float64


@torch.library.custom_op("departures::rough_tanh", mutates_args=())
def rough_tanh(x: torch.Tensor) -> torch.Tensor:
    """A kernel of tanh that keeps 14 bits."""
    return torch.tanh(x).double().mul(2.0**14).round().div(2.0**14).to(x.dtype)


@rough_tanh.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _keep(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
    ctx.save_for_backward(output)


def _pull(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    (y,) = ctx.saved_tensors
    return gradient * (1 - y * y)


rough_tanh.register_autograd(_pull, setup_context=_keep)


class Rough(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return rough_tanh(z)


class Cell(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.activation, self.last = nn.Linear(4, 4), activation, nn.Linear(4, 4)

    def forward(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.3 * self.last(self.activation(self.first(z))) + x


X = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4)))


@pytest.fixture
def rule() -> Iterator[None]:
    @register("departures.rough_tanh.default")
    def tanh(ops: Any, x: Any) -> Any:
        """The function that the kernel means"""
        return ops.tanh(x)

    yield
    unregister("departures.rough_tanh.default")


@pytest.mark.usefixtures("rule")
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_rough_operation_is_named_with_its_module_and_line(dtype: torch.dtype) -> None:
    found = first_departure(Cell(Rough()).to(dtype), X.to(dtype), X.to(dtype)).first
    assert found is not None
    assert (found.operation, found.module) == ("departures.rough_tanh.default", "activation")
    assert "test_certificate_departures.py" in found.location
    assert 2.0**-18 < found.error < 2.0**-13


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [nn.GELU(), nn.Softmax(-1), nn.LayerNorm(4), nn.Mish()])
def test_torchs_own_operations_are_as_good_as_rounding(activation: nn.Module, dtype: torch.dtype) -> None:
    search = first_departure(Cell(activation).to(dtype), X.to(dtype), X.to(dtype))
    assert search.first is None, str(search.first)
    assert search.checked > 8


@pytest.mark.usefixtures("rule")
def test_certificate_names_it_where_bits_are_missing() -> None:
    found = certify((Cell(Rough()).double(), torch.zeros(2, 4, dtype=F64), X), num_steps=2, digits=15, dtypes=(F64,))
    (sentence,) = found.said["departures"]
    assert sentence.startswith(
        "in float64 the first operation that is worse than its rounding is departures.rough_tanh.default in the module "
        "activation at "
    )
    assert sentence in found.advice


def test_certificate_says_where_no_operation_is_at_fault() -> None:
    def cancels(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return 0.3 * ((1e5 + torch.tanh(z)) - 1e5) + x

    source = cancels, torch.zeros(1, 4, dtype=F64), X[:1]
    found = certify(source, num_steps=2, digits=15, dtypes=(torch.float32,))
    (sentence,) = found.said["departures"]
    assert "is as good as rounding allows" in sentence
    assert sentence.endswith("so the bits are lost to f's sensitivity")
