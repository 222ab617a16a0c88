"""Certificates of a box of inputs: what they claim holds of inputs drawn from it, and nothing in them can be edited."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flint import arb, arb_mat

from verify.certificate import Answer, Failed, SetCertificate, certify_set, recheck
from verify.certificate.kernel.check import sealed
from verify.certificate.kernel.numbers import packed, unpacked
from verify.certificate.kernel.sets import euclidean_norm


F64 = torch.float64
Map = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CENTER = torch.tensor([[0.3, -0.4, 0.2]], dtype=F64)


_drawn = np.random.default_rng(0)
W = 0.6 * torch.linalg.qr(torch.from_numpy(_drawn.normal(size=(4, 4))))[0]
U = torch.from_numpy(_drawn.normal(size=(4, 3)))
READOUT = torch.from_numpy(_drawn.normal(size=(3, 4))), torch.from_numpy(_drawn.normal(size=3))


def smooth(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(z @ W.T + x @ U.T)


def kinked(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(z @ W.T + x @ U.T)


def detached(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * smooth(z, x) + 0.3 * torch.sin(3 * z).detach()


@cache
def found(function: Map, radius: float) -> SetCertificate:
    return certify_set((function, torch.zeros(1, 4, dtype=F64), CENTER), radius=radius, readout=READOUT)


def equilibrium(function: Map, x: torch.Tensor) -> torch.Tensor:
    z = torch.zeros(1, 4, dtype=F64)
    for _ in range(400):
        z = function(z, x)
    return z


@pytest.mark.parametrize("function", [smooth, kinked, detached])
@pytest.mark.parametrize("radius", [1e-3, 3e-3, 1e-2])
def test_claims_hold_of_drawn_inputs(function: Map, radius: float) -> None:
    whole = found(function, radius)
    assert whole.findings[0].answer is Answer.CERTIFIED
    assert whole.lipschitz is not None
    balls = [arb(text) for text in whole.said["solution"]]
    generator = torch.Generator().manual_seed(1)
    inputs = [CENTER + radius * (2 * torch.rand(1, 3, generator=generator, dtype=F64) - 1).sign() for _ in range(8)]
    states = [equilibrium(function, x) for x in inputs]
    weight, bias = READOUT
    for z in states:
        assert all(ball.contains(value) for ball, value in zip(balls, z.ravel().tolist(), strict=True))
        if whole.robust:
            assert int((z @ weight.T + bias).argmax()) == whole.decision
    for x, y, z, w in zip(inputs, inputs[1:], states, states[1:], strict=False):
        for norm, kind in (("greatest", float("inf")), ("euclidean", 2)):
            moved, by = (float(torch.linalg.vector_norm(part, kind)) for part in (z - w, x - y))
            assert moved <= whole.lipschitz[norm] * by + 1e-12


def test_decision_is_certified_near_and_undecided_far() -> None:
    assert found(smooth, 1e-3).robust
    far = found(smooth, 3e-2)
    assert far.robust or far.findings[-1].answer is Answer.UNDECIDED


def test_jump_within_the_box_is_undecided_and_says_so() -> None:
    def jumps(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return smooth(z, x) + 0.1 * (x[:, :1] > 0.305).to(F64)

    whole = certify_set((jumps, torch.zeros(1, 4, dtype=F64), CENTER), radius=0.01)
    assert [(one.claim, one.answer) for one in whole.findings] == [("equilibrium for every input", Answer.UNDECIDED)]
    assert "comparison in f is not decided for all inputs" in whole.findings[0].sentence
    assert recheck(json.loads(json.dumps(whole.said)))[0].startswith("undecided")
    assert (
        certify_set((jumps, torch.zeros(1, 4, dtype=F64), CENTER), radius=0.004).findings[0].answer is Answer.CERTIFIED
    )


def test_inputs_without_an_equilibrium_are_not_certified() -> None:
    """z = z - z^2 + x has one near sqrt(x) for x > 0 alone."""
    source = (lambda z, x: z - z * z + x), torch.full((1, 1), 0.3, dtype=F64), torch.full((1, 1), 0.09, dtype=F64)
    assert certify_set(source, radius=0.1).findings[0].answer is Answer.UNDECIDED
    assert certify_set(source, radius=0.01).findings[0].answer is Answer.CERTIFIED


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c.__setitem__(key, value(c[key]) if callable(value) else value)


def inside(part: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda c: c[part].__setitem__(key, value(c[part][key]) if callable(value) else value)


def scaled(factor: float) -> Callable[[str], str]:
    return lambda text: packed([factor * value for value in unpacked(text)])


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a wider radius": put("radius", 0.02),
    "a narrower radius": put("radius", 0.005),
    "no radius": put("radius", 0.0),
    "another leaf": put("leaf", "z0"),
    "another input": inside("values", "args", scaled(1.1)),
    "a lesser Lipschitz bound": inside("lipschitz", "euclidean", "0.5"),
    "a greater Lipschitz bound": inside("lipschitz", "greatest", "50"),
    "a greater margin": put("margins", lambda margins: [str(10.0)] * len(margins)),
    "no margins": put("margins", lambda _: []),
    "another decision": put("decision", lambda decision: (decision + 1) % 3),
    "another readout": inside("readout", "weight", scaled(-1.0)),
    "a solution elsewhere": put("solution", lambda texts: ["5.0 +/- 0.1", *texts[1:]]),
    "a solution left out": put("solution", lambda texts: texts[1:]),
    "a box of states too narrow": inside("proof", "radii", scaled(0.5)),
    "no preconditioner": inside("proof", "preconditioner", scaled(0.0)),
    "another center": inside("proof", "center", lambda texts: ["1:0", *texts[1:]]),
    "a finding changed": put("findings", lambda all: [{**all[0], "sentence": "all is well"}, *all[1:]]),
    "a finding left out": put("findings", lambda all: all[:1]),
    "the proof deleted": put("proof", None),
    "an instruction deleted": inside("program", "instructions", lambda all: all[:-1]),
}


@pytest.mark.parametrize("what", list(EDITS))
def test_edit_is_refused_even_where_it_is_sealed_again(what: str) -> None:
    whole = copy.deepcopy(found(smooth, 1e-2).said)
    recheck(whole)
    EDITS[what](whole)
    whole["seal"] = sealed(whole)
    with pytest.raises((Failed, KeyError, IndexError, ValueError, TypeError)):
        recheck(whole)


def test_program_that_is_written_beside_it_proves_it_alone(tmp_path: Path) -> None:
    found(kinked, 1e-2).write(tmp_path)
    run = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "recheck.py"), str(tmp_path / "certificate.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines()[0].startswith("holds: certified: equilibrium for every input")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "radius is 0.0; it must be positive"),
        ({"radius": float("nan")}, "radius is nan"),
        ({"radius": 0.1, "leaf": "x"}, "there is no leaf 'x'; there are args"),
        ({"radius": 0.1, "readout": (torch.ones(2, 3), torch.ones(2))}, r"give a weight of shape \(classes, 4\)"),
    ],
)
def test_wrong_request_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify_set((smooth, torch.zeros(1, 4, dtype=F64), CENTER), **options)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 1), (4, 4)])
def test_euclidean_norm_is_hardly_above_that_of_the_middle(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    bound = euclidean_norm(arb_mat(*shape, values.ravel().tolist()))
    norm = float(np.linalg.norm(values, 2))
    assert norm <= float(bound.upper()) <= 1.02 * norm
    assert euclidean_norm(arb_mat(2, 2)) == 0
