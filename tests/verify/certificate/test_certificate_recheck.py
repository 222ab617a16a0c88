"""The small re-checker: it proves what was proved, refuses what was not, and needs python-flint alone."""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest
import torch
from flint import arb

from verify.certificate import Failed, certify, recheck
from verify.certificate.proof import texts
from verify.certificate.recheck import expanded, main, power
from verify.certificate.recording import Recording, compressed
from verify.problems import get_problem
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.balls import Balls
from verify.reference.arithmetic.precision import flint_precision


PROGRAM = Path(__file__).resolve().parents[3] / "verify" / "certificate" / "recheck.py"


def piecewise(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.4 * torch.relu(z) - 0.2 * z.clamp(-0.3, 0.3) + x.abs()


@cache
def stored(name: str) -> str:
    if name == "piecewise":
        source = (piecewise, torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor([[0.6, -0.4]]).double())
    else:
        problem = get_problem(name)
        source = (problem.function, *problem.inputs(torch.float64))
    return json.dumps(certify(source, num_steps=2, digits=20, dtypes=()).to_json(), allow_nan=False)


def certificate(name: str) -> dict[str, Any]:
    return json.loads(stored(name))


@pytest.mark.parametrize("name", ["affine-real", "riccati", "dense-softplus", "attention", "piecewise"])
def test_certificate_is_proved_again(name: str) -> None:
    before = flint.ctx.prec
    lines = recheck(certificate(name))
    assert flint.ctx.prec == before
    assert any(line.startswith("fixed point") for line in lines)
    assert any(line.startswith("implicit gradient") for line in lines)
    assert any(line.startswith("N-step gradient") for line in lines)


def shifted(text: str) -> str:
    with flint_precision(200):
        ball = arb(text)
        return (ball + 2 * ball.rad().max(arb(2) ** -60 * abs(ball).max(arb(1)))).str(30)


def shift_solution(proofs: Any) -> None:
    claimed = proofs[0]["fixed_point"]["solution"]
    claimed[1] = shifted(claimed[1])


def shift_implicit(proofs: Any) -> None:
    claimed = proofs[0]["implicit"]["gradient"]["args.W"]
    claimed[3] = shifted(claimed[3])


def shift_steps(proofs: Any) -> None:
    claimed = proofs[1]["n_step"]["gradient"]["z0"]
    claimed[0] = shifted(claimed[0])


def shift_state(proofs: Any) -> None:
    proofs[1]["n_step"]["z"][2] = shifted(proofs[1]["n_step"]["z"][2])


def lower_constant(proofs: Any) -> None:
    proofs[0]["contraction"]["constant"] = "0.5"


def raise_expansion(proofs: Any) -> None:
    proofs[0]["expansion"]["lower"] = "100"


def drop_step(proofs: Any) -> None:
    proofs[1]["n_step"]["num_steps"] = 1


def change_beta(proofs: Any) -> None:
    proofs[1]["n_step"]["beta"] = (0.5 + 2.0**-40).hex()


def move_center(proofs: Any) -> None:
    proofs[0]["fixed_point"]["center"][0] = "1:-2"


def spoil_inverse(proofs: Any) -> None:
    proofs[0]["fixed_point"]["inverses"][0] = [(0.0).hex()] * len(proofs[0]["fixed_point"]["inverses"][0])


def couple_samples(proofs: Any) -> None:
    proofs[0]["fixed_point"]["samples"] = 4


def change_operation(proofs: Any) -> None:
    next(step for step in proofs[0]["program"]["instructions"] if step["op"] == "tanh")["op"] = "sin"


def change_constant(proofs: Any) -> None:
    step = next(step for step in proofs[1]["program"]["instructions"] if step["op"] == "constant")
    step["values"][0] = "3:-1"


def change_pullback(proofs: Any) -> None:
    program = proofs[0]["program"]
    first, end = program["tapes"]["pullback_of_state 1"]["instructions"]
    next(step for step in program["instructions"][first:end] if step["op"] == "subtract")["op"] = "add"


FORGERIES: list[Callable[[Any], None]] = [
    shift_solution,
    shift_implicit,
    shift_steps,
    shift_state,
    lower_constant,
    drop_step,
    change_beta,
    move_center,
    spoil_inverse,
    couple_samples,
    change_operation,
    change_constant,
    change_pullback,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_certificate_fails(forge: Callable[[Any], None]) -> None:
    forged = copy.deepcopy(certificate("dense-tanh"))
    recheck(forged)
    forge(forged["proofs"])
    with pytest.raises(Failed):
        recheck(forged)


def test_forged_expansion_fails() -> None:
    forged = certificate("riccati")
    assert any(line.startswith("no contraction") for line in recheck(forged))
    raise_expansion(forged["proofs"])
    with pytest.raises(Failed, match="at least"):
        recheck(forged)


@cache
def stored_absence() -> str:
    def moved(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return z + x * torch.exp(-z * z)

    source = (moved, torch.zeros(1, 2).double(), torch.tensor([[0.0, 0.5]]).double())
    return json.dumps(certify(source, num_steps=1, digits=15, dtypes=()).to_json(), allow_nan=False)


def test_absence_of_a_fixed_point_is_proved_again() -> None:
    assert "no fixed point: none within 0.125 of the start in every component" in recheck(json.loads(stored_absence()))


@pytest.mark.parametrize(
    ("field", "value"), [("reach", (4.0).hex()), ("component", 0), ("component", -1), ("start", [(3.0).hex()] * 2)]
)
def test_forged_absence_fails(field: str, value: Any) -> None:
    forged = json.loads(stored_absence())
    forged["proofs"][0]["no_fixed_point"][field] = value
    with pytest.raises(Failed, match=r"does not exclude 0|no component|not that of"):
        recheck(forged)


@cache
def stored_direction() -> str:
    problem = get_problem("dense-tanh")
    source = (problem.function, *problem.inputs(torch.float64))
    return json.dumps(certify(source, num_steps=2, digits=15, max_components=1, samples=1).to_json(), allow_nan=False)


def test_directional_derivative_is_proved_again() -> None:
    assert recheck(json.loads(stored_direction())) == ["directional derivative: enclosed along one direction"]


def shift_derivative(proof: Any) -> None:
    proof["derivative"] = shifted(shifted(proof["derivative"]))


def turn_direction(proof: Any) -> None:
    proof["way"][0] = (float.fromhex(proof["way"][0]) + 0.5).hex()


def drop_half_of_the_steps(proof: Any) -> None:
    proof["num_steps"] = 1


@pytest.mark.parametrize("forge", [shift_derivative, turn_direction, drop_half_of_the_steps])
def test_forged_directional_derivative_fails(forge: Callable[[Any], None]) -> None:
    forged = json.loads(stored_direction())
    forge(forged["proofs"][0]["direction"])
    with pytest.raises(Failed, match="directional derivative"):
        recheck(forged)


def test_problem_that_a_narrow_dtype_stores_has_proofs_of_its_own() -> None:
    source = (lambda z, x: 0.3 * torch.tanh(z) + x, torch.zeros(1, 1).double(), torch.full((1, 1), 0.3).double())
    found = certify(source, num_steps=1, digits=15, dtypes=(torch.float64, torch.bfloat16)).to_json()
    lines = recheck(found)
    assert any(line.startswith("implicit gradient of the problem as bfloat16 stores it") for line in lines)
    assert [proof.get("stored_as") for proof in found["proofs"]] == [None, None, "bfloat16", "bfloat16"]


def test_certificate_without_proofs_or_of_another_version_fails() -> None:
    with pytest.raises(Failed, match="no proof"):
        recheck({"schema": "revdeq-certificate", "version": 1, "proofs": []})
    with pytest.raises(Failed, match="version 1"):
        recheck({**certificate("affine-real"), "version": 2})


def test_program_imports_nothing_but_flint_and_the_standard_library() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"flint"}


def test_program_runs_alone_and_its_exit_status_is_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(stored("affine-real"))
    run = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), str(path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "holds: fixed point: 8 components enclosed" in run.stdout


def test_exit_status_is_one_for_a_failure_and_two_for_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = certificate("affine-real")
    lower_constant(forged["proofs"])
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(forged))
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.startswith("fails: the norm of df/dz is bounded by")
    del forged["proofs"][0]["program"]["tapes"]
    path.write_text(json.dumps(forged))
    assert main([str(path)]) == 1
    assert "malformed" in capsys.readouterr().out
    assert main([str(tmp_path / "none.json")]) == 2
    assert main([]) == 2


@pytest.mark.parametrize("numbers", [[], [3], [3, 3, 3], [0, 1, 2, 7, 9, 11, 4], [5, 4, 3, 3, 8]])
def test_runs_of_slots_are_read_back(numbers: list[int]) -> None:
    assert expanded(compressed(numbers)) == numbers


@pytest.mark.parametrize("exponent", [0.0, 1.0, 3.0, -2.0, 0.5, -1.5, 0.3])
def test_power_is_that_of_the_ball_arithmetic(exponent: float) -> None:
    with flint_precision(100):
        assert power(arb(1.75), exponent).overlaps(Balls(100).power(Balls(100).convert(np.array([1.75])), exponent)[0])


def test_recording_encloses_what_balls_enclose_and_asserts_its_branches() -> None:
    ops = Recording(80)
    x = ops.input(ops.balls.convert(np.array([0.5, -1.0])))
    y = ops.where(ops.less(x, ops.convert(np.zeros(2))), ops.negative(x), ops.exp(x))
    with flint_precision(80):
        assert y[0].ball.overlaps(arb(0.5).exp())
    assert y[1].ball == 1
    assert ops.branches == 1
    assert ops.instructions[-3]["outcome"] == "01"
    with pytest.raises(Undecided):
        ops.less(ops.input(np.array([arb(0, 1)], dtype=object)), ops.convert(np.zeros(1)))


def test_claimed_balls_contain_the_proved_ones_with_room() -> None:
    (text,) = texts(np.array([arb(1.0, 2.0**-40)], dtype=object), 15)
    assert arb(text).contains(arb(1.0, 2.0**-39.5))
