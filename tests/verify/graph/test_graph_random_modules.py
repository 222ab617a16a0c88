"""Random small modules of covered operations: torch, mpmath, balls, jets, and differences of the forward graph agree.

Bounds: mpmath at 80 digits lies inside the balls at 130 bits, which are narrow; torch's float64 lies within 2^-53 of
the size of what was computed, times what 16 bits of condition a chain of at most four layers may have; the difference
quotient is right to h^2 = 10^-48.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from flint import arb
from hypothesis import HealthCheck, Phase, given, reject, settings
from torch import nn
from torch.nn import functional as F

from verify.reference.arithmetic import Multiprecision, Undecided
from verify.reference.arithmetic.balls import Balls
from verify.reference.arithmetic.jets import Jets
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Program, trace


F64 = torch.float64
WIDTH = 4


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True, dtype=F64)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.attention(h, h, h, need_weights=False)[0]


class Function(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.function(h)


def image(function: Callable[[Any], Any]) -> Function:
    """A function of images, on states (batch, rows, columns)."""
    return Function(lambda h: function(h[:, None])[:, 0])


LAYERS: dict[str, Any] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH, dtype=F64),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH, dtype=F64)),
    "layer norm": lambda: nn.LayerNorm(WIDTH, dtype=F64),
    "rms norm": lambda: nn.RMSNorm(WIDTH, eps=1e-5, dtype=F64),
    "group norm": lambda: nn.GroupNorm(1, 3, dtype=F64),
    "batch norm": lambda: nn.BatchNorm1d(3, dtype=F64).eval(),
    "attention": Attention,
    "causal": lambda: Function(lambda h: F.scaled_dot_product_attention(h, h, h, is_causal=True)),
    "convolution": lambda: nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular", dtype=F64),
    "transposed": lambda: nn.ConvTranspose1d(3, 3, 3, padding=1, dtype=F64),
    "average": lambda: image(lambda x: F.interpolate(F.avg_pool2d(x, (1, 2)), scale_factor=(1, 2))),
    "maximum": lambda: image(lambda x: F.interpolate(F.max_pool2d(x, (1, 2)), size=(3, WIDTH))),
    "softmax": lambda: nn.Softmax(-1),
    "log softmax": lambda: nn.LogSoftmax(-1),
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "leaky": nn.LeakyReLU,
    "prelu": lambda: nn.PReLU(dtype=F64),
    "hardswish": nn.Hardswish,
    "where": lambda: Function(lambda h: torch.where(h > 0.01, h.sin(), h * h.cos())),
    "mask": lambda: Function(lambda h: h.masked_fill(torch.tensor([True, False, False, True]), 0.5)),
    "concatenate": lambda: Function(lambda h: torch.cat([h[..., 2:], h[..., :2].exp()], -1)),
    "index": lambda: Function(lambda h: h[:, torch.tensor([2, 0, 2])]),
    "roll": lambda: Function(lambda h: h.roll(1, -1) - h.flip(1)),
    "einsum": lambda: Function(lambda h: torch.einsum("bij,bkj,bkl->bil", h.tanh(), h.sin(), h.cos())),
    "reductions": lambda: Function(lambda h: h - h.mean(-1, keepdim=True) + h.amax(1, keepdim=True) * h.std()),
    "norm": lambda: Function(lambda h: h / (1 + h.norm(dim=-1, keepdim=True))),
    "logsumexp": lambda: Function(lambda h: h - h.logsumexp(-1, keepdim=True)),
    "clamp": lambda: Function(lambda h: h.clamp(-0.7, 0.9).pow(3) + h.abs().sqrt()),
}


def number(value: Any) -> arb:
    sign, mantissa, exponent, _ = value._mpf_
    return arb((-int(mantissa) if sign else int(mantissa), int(exponent)))


def check(names: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(*(LAYERS[name]() for name in names))
    generator = np.random.default_rng(seed)
    z = torch.tensor(generator.normal(size=(2, 3, WIDTH)))
    cotangent, way = generator.normal(size=z.shape), generator.normal(size=z.shape)
    traced = trace(lambda z, args: module(z), z)
    arrays = traced.arrays()
    fixed = {name: values for name, values in arrays.items() if name != "z0"}
    at = {"z0": z.numpy(), "cotangent": cotangent}
    balls, digits = Balls(130), Multiprecision(80, strict=False)
    try:
        enclosed = Program(traced.vjp, balls, fixed)(at)
    except Undecided:
        reject()  # a tie, such as the maximum of equal averages, on which balls rightly do not decide
    enclosed["f"] = Program(traced.forward, balls, fixed)({"z0": z.numpy()})["z0"]
    forward = Program(traced.forward, digits, fixed)
    computed = Program(traced.vjp, digits, fixed)(at)
    computed["f"] = forward({"z0": z.numpy()})["z0"]

    start = z.clone().requires_grad_()
    output = module(start)
    output.backward(torch.tensor(cotangent))
    parameters = {f"parameters.module.{name}": parameter.grad for name, parameter in module.named_parameters()}
    expected = {"f": output.detach(), "z0": start.grad, **parameters}
    for name, around in enclosed.items():
        torch_values = expected[name]
        assert torch_values is not None
        size = max(1.0, float(torch_values.abs().max()))
        places = zip(around.flat, computed[name].flat, torch_values.reshape(-1).tolist(), strict=True)
        for ball, value, got in places:
            assert ball.rad() < 1e-12 * size, (names, name)
            assert ball.overlaps(number(value)), (names, name)
            assert abs(float(value) - got) <= 2.0**-37 * size, (names, name)

    h = digits.convert(np.asarray(2.0**-80))
    v, z_exact = digits.convert(way), digits.convert(z.numpy())
    ahead, behind = (
        forward({"z0": digits.add(z_exact, digits.multiply(v, step))})["z0"] for step in (h, digits.negative(h))
    )
    change = digits.sum(digits.multiply(digits.convert(cotangent), digits.subtract(ahead, behind)))[()]
    quotient = change / (2 * h[()])
    pulled = digits.sum(digits.multiply(computed["z0"], v))[()]
    scale = digits.sum(digits.absolute(digits.multiply(computed["z0"], v)))[()]
    # h^2 f''' / 6 = 10^-48 f''' / 6: a chain may have a third derivative of 10^20
    assert abs(quotient - pulled) <= 1e-28 * max(scale, 1), names

    # The derivative carried forward in balls reads the forward graph alone, and encloses the same number.
    jets = Jets(balls)
    moving = jets.jets(balls.convert(z.numpy()), balls.convert(way))
    _, tangents = jets.parts(Program(traced.forward, jets, fixed)({"z0": moving})["z0"])
    assert tangents is not None
    with flint_precision(balls.bits):
        along = sum((ball * weight for ball, weight in zip(tangents.flat, cotangent.flat, strict=True)), arb(0))
        if balls.ties and not along.is_finite():
            reject()  # exactly on a kink, such as the norm of a row that relu has made 0: there is no derivative
        assert along.overlaps(number(pulled)), names
        assert along.rad() <= 1e-12 * max(float(scale), 1.0), names


@pytest.mark.parametrize("name", ["linear", "attention", "maximum", "convolution", "reductions", "clamp"])
def test_layer_agrees_in_torch_mpmath_balls_and_by_differences(name: str) -> None:
    check([name, "tanh"], 1)


# No shrinking: the drawn list of layers is short and is named in the failure.
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4), st.integers(0, 2**16))
def test_random_module_agrees_in_torch_mpmath_balls_and_by_differences(names: list[str], seed: int) -> None:
    check(names, seed)


@pytest.mark.nightly
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4), st.integers(0, 2**16))
def test_many_random_modules_agree_in_torch_mpmath_balls_and_by_differences(names: list[str], seed: int) -> None:
    check(names, seed)


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_layer_agrees_in_torch_mpmath_balls_and_by_differences(name: str) -> None:
    check([name], 2)
    check(["linear", name], 3)
