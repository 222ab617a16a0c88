"""Drawn modules with jumps, detached parts and wrong backwards: no claim that is certified of them is false.

By day a few fixed ones; every night two thousand others, whose seed is its date, or the number in REVDEQ_SEED. What is
claimed is held against the forward function itself: f is evaluated in mpmath, past torch's backward and past
the kernel, at points drawn in the neighbourhood that a claim is about, and differentiated by differences.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flint import arb
from numpy.typing import NDArray

from verify.certificate import Answer, Certificate, certify, recheck
from verify.certificate.kernel.numbers import unpacked
from verify.reference.arithmetic import Multiprecision
from verify.reference.graph import Program, Traced, trace


F64 = torch.float64
Unary = Callable[[torch.Tensor], torch.Tensor]


class Scaled(torch.autograd.Function):
    """A sine whose backward is a few per cent wrong."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z)
        return z.sin()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        (z,) = ctx.saved_tensors
        return grad_outputs[0] * z.cos() * 1.04


def _quiet(part: Unary) -> Unary:
    def computed(z: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return part(z)

    return computed


SMOOTH: tuple[Unary, ...] = (
    torch.tanh,
    torch.sin,
    lambda z: z * torch.sigmoid(z),
    lambda z: torch.nn.functional.softplus(z) - 0.5,
    lambda z: torch.softmax(z, -1),
    lambda z: z / torch.sqrt(1 + (z * z).sum(-1, keepdim=True)),
    lambda z: torch.atan(z),
)
BENT: tuple[Unary, ...] = (torch.relu, torch.abs, lambda z: z.clamp(-0.2, 0.3), lambda z: torch.sort(z, -1).values)


def jump(generator: np.random.Generator) -> Unary:
    at, size = float(generator.uniform(-0.5, 0.5)), float(generator.uniform(-0.3, 0.3))
    kinds: tuple[Unary, ...] = (
        lambda z: size * (z > at).to(F64),
        lambda z: torch.where(z > at, z + size, z),
        lambda z: size * torch.floor(8 * z),
        lambda z: size * torch.sign(z - at),
        lambda z: size * torch.round(4 * z),
        lambda z: size * torch.nn.functional.one_hot(torch.argmax(z, -1), z.shape[-1]).to(F64),
        lambda z: size * (8 * z).to(torch.int64).to(F64),
    )
    return kinds[generator.integers(len(kinds))]


def cut(generator: np.random.Generator, part: Unary) -> Unary:
    kinds: tuple[Unary, ...] = (
        lambda z: part(z).detach(),
        lambda z: part(z.detach()),
        _quiet(part),
        lambda z: z + (part(z) - z).detach(),
        lambda z: part(z).data,
        lambda z: Scaled.apply(part(z)),  # type: ignore[no-any-return]
    )
    return kinds[generator.integers(len(kinds))]


def drawn(seed: int) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    parts: list[Unary] = []
    for _ in range(int(generator.integers(1, 4))):
        pool = SMOOTH if generator.random() < 0.6 else BENT
        part = pool[generator.integers(len(pool))]
        kind = generator.random()
        parts.append(cut(generator, part) if kind < 0.35 else jump(generator) if kind < 0.65 else part)
    weights = torch.from_numpy(generator.uniform(-0.4, 0.4, (len(parts), 2, 2)))

    def function(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        for part, weight in zip(parts, weights, strict=True):
            z = (z + part(z)) @ weight
        return z + x

    start = (
        torch.zeros(1, 2, dtype=F64) if generator.random() < 0.5 else torch.from_numpy(generator.normal(size=(1, 2)))
    )
    return function, start, torch.from_numpy(generator.uniform(-1, 1, (1, 2)))


class Forward:
    """f in mpmath, from its forward graph."""

    def __init__(self, traced: Traced) -> None:
        self.ops = Multiprecision(60, strict=False)
        arrays = {name: values for name, values in traced.arrays().items() if name != "z0"}
        self.arrays = {name: self.ops.convert(values) for name, values in arrays.items()}
        self.program = Program(traced.forward, self.ops, {})

    def value(self, z: Any, **moved: Any) -> Any:
        return self.program({"z0": z, **self.arrays, **moved})["z0"]


H = 1e-20
"""Steps of the differences, in 60 digits."""


def implicit_slopes(f: Forward, center: NDArray[np.float64], weights: list[float]) -> list[float]:
    """d<c, z*>/dx by differences of the equilibrium, which chord steps from the certified one find in 60 digits."""
    h = f.ops.context.mpf(H)
    at = f.ops.convert(center)

    def moved(values: Any, place: int, by: Any) -> Any:
        other = values.copy()
        other[0, place] = other[0, place] + by
        return other

    columns = [f.ops.to_float64((f.value(moved(at, k, h)) - f.value(moved(at, k, -h))) / (2 * h)) for k in range(2)]
    inverse = f.ops.convert(np.linalg.inv(np.eye(2) - np.concatenate(columns).T))
    slopes: list[float] = []
    for place in range(2):
        ends: list[Any] = []
        for sign in (1, -1):
            z = at
            for _ in range(8):
                z = z - (z - f.value(z, args=moved(f.arrays["args"], place, sign * h))) @ inverse.T
            ends.append(sum(a * b for a, b in zip(z.ravel(), weights, strict=True)))
        slopes.append(float((ends[0] - ends[1]) / (2 * h)))
    return slopes


def false_claims(found: Certificate, traced: Traced, generator: np.random.Generator) -> list[str]:
    """The certified claims that the forward function contradicts."""
    answers = {finding.claim: finding for finding in found.findings}
    f, wrong = Forward(traced), list[str]()
    context = f.ops.context
    if answers["fixed point"].answer is Answer.CERTIFIED:
        center = np.array([[float(arb(text).mid()) for text in found.values["z_star"]]])
        residual = np.abs(f.ops.to_float64(f.value(f.ops.convert(center))) - center).max()
        if residual > 1e-12:
            wrong.append(f"fixed point: |f(z) - z| = {residual}")
        if answers["contraction"].answer is Answer.CERTIFIED:
            assert found.contraction is not None
            for _ in range(24):
                z, w = (center + found.contraction["radius"] * generator.uniform(-1, 1, (1, 2)) for _ in range(2))
                apart = f.ops.to_float64(f.value(f.ops.convert(z))) - f.ops.to_float64(f.value(f.ops.convert(w)))
                if np.linalg.norm(apart) > found.contraction["constant"] * np.linalg.norm(z - w) * (1 + 1e-9):
                    wrong.append(f"contraction: {np.linalg.norm(apart) / np.linalg.norm(z - w)}")
                    break
        claim = answers["implicit gradient"]
        if claim.answer is Answer.CERTIFIED and "torch's backward defines" not in claim.sentence:
            slopes = implicit_slopes(f, center, unpacked(found.said["cotangent_z"]))
            stated = [float(arb(text).mid()) for text in found.values["implicit"]["args"]]
            if not np.allclose(slopes, stated, rtol=1e-10, atol=1e-10):
                wrong.append(f"implicit gradient: differences give {slopes}, claimed is {stated}")
    claim = answers["N-step gradient"]
    if claim.answer is Answer.CERTIFIED and "torch's backward defines" not in claim.sentence:
        weights = unpacked(found.said["cotangent_z"])
        h = context.mpf(10) ** -20
        for place in range(2):
            values: list[Any] = []
            for sign in (1, -1):
                x = f.arrays["args"].copy()
                x[0, place] = x[0, place] + sign * h
                y = z = f.ops.convert(traced.arrays()["z0"])
                for _ in range(found.num_steps):
                    y = (y + f.value(z, args=x)) / 2
                    z = (z + f.value(y, args=x)) / 2
                values.append(sum(a * b for a, b in zip(z.ravel(), weights, strict=True)))
            slope = float((values[0] - values[1]) / (2 * h))
            stated = float(arb(found.values["n_step"]["args"][place]).mid())
            if abs(slope - stated) > 1e-10 * max(1.0, abs(stated)):
                wrong.append(f"N-step gradient: differences give {slope}, claimed is {stated}")
    return wrong


def look_for_a_false_claim(seed: int) -> None:
    source = drawn(seed)
    found = certify(source, beta=0.5, num_steps=2, digits=20, dtypes=(), max_bits=300)
    assert not false_claims(found, trace(*source), np.random.default_rng(seed)), seed
    recheck(json.loads(json.dumps(found.to_json(), allow_nan=False)))


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_no_drawn_module_has_a_false_claim(first: int) -> None:
    for seed in range(first, first + 6):
        look_for_a_false_claim(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(0, 2000, 50))
def test_no_module_of_two_thousand_has_a_false_claim(first: int) -> None:
    night = int(os.environ.get("REVDEQ_SEED", datetime.date.today().strftime("%Y%m%d")))
    for number in range(first, first + 50):
        look_for_a_false_claim(10_000 * night + number)
