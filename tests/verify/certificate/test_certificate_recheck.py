"""The small re-checker: it proves what was proved, refuses what was changed, and needs python-flint alone."""

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
from verify.certificate.alone import recheck_program
from verify.certificate.kernel.check import main, sealed
from verify.certificate.kernel.numbers import expanded, packed, power, unpacked
from verify.certificate.proof import texts
from verify.certificate.recording import Recording, compressed
from verify.problems import get_problem
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.balls import Balls
from verify.reference.arithmetic.precision import flint_precision


F64 = torch.float64


def piecewise(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.4 * torch.relu(z) - 0.2 * z.clamp(-0.3, 0.3) + x.abs()


class OnePercent(torch.autograd.Function):
    """A sine with a derivative that is 1 % wrong."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z)
        return z.sin()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        (z,) = ctx.saved_tensors
        return grad_outputs[0] * z.cos() * 1.01


def dense(z: torch.Tensor, args: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.tanh(z @ args["W"] + args["x"])


def without_solution(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return z + x * torch.exp(-z * z)


def wrong_backward(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * OnePercent.apply(z) + x  # type: ignore[operator]


@cache
def stored(name: str) -> str:
    options: dict[str, Any] = {"num_steps": 2, "digits": 20, "dtypes": (F64, torch.bfloat16)}
    if name == "piecewise":
        source: Any = (piecewise, torch.tensor([[0.3, -0.2]], dtype=F64), torch.tensor([[0.6, -0.4]], dtype=F64))
    elif name == "dense":
        args = {"W": torch.tensor([[0.3, 0.1], [-0.2, 0.4]], dtype=F64), "x": torch.tensor([[0.3, 0.4], [0.1, -0.7]])}
        source = (dense, torch.full((2, 2), 0.125, dtype=F64), {**args, "x": args["x"].double()})
    elif name == "wrong backward":
        source = (wrong_backward, torch.zeros(1, 2, dtype=F64), torch.tensor([[0.3, 0.4]], dtype=F64))
    elif name == "no fixed point":
        source = (without_solution, torch.zeros(1, 2, dtype=F64), torch.tensor([[0.0, 0.5]], dtype=F64))
    else:
        problem = get_problem("dense-tanh" if name == "direction" else name)
        source = (problem.function, *problem.inputs(F64))
    if name == "direction":
        options |= {"max_components": 1, "samples": 1}
    return json.dumps(certify(source, **options).to_json(), allow_nan=False)


def certificate(name: str) -> dict[str, Any]:
    return json.loads(stored(name))


NAMES = (
    "affine-real",
    "dense",
    "riccati",
    "dense-softplus",
    "attention",
    "piecewise",
    "wrong backward",
    "no fixed point",
)


@pytest.mark.parametrize("name", [*NAMES, "direction"])
def test_certificate_is_proved_again(name: str) -> None:
    before, whole = flint.ctx.prec, certificate(name)
    lines = recheck(whole)
    assert flint.ctx.prec == before
    assert lines == [f"{entry['answer']}: {entry['claim']}: {entry['sentence']}" for entry in whole["findings"]]


def shifted(text: str) -> str:
    with flint_precision(200):
        ball = arb(text)
        return (ball + 4 * ball.rad().max(arb(2) ** -60 * abs(ball).max(arb(1)))).str(30)


def wider(text: str) -> str:
    with flint_precision(200):
        return arb(arb(text).mid(), 1e-3).str(30)


def blank(text: str) -> str:
    return packed([0.0] * len(unpacked(text)))


def nudged(text: str, place: int = 0) -> str:
    values = unpacked(text)
    values[place] += 0.125
    return packed(values)


Edit = Callable[[Any], Any]


def proof(kind: str, change: Edit) -> Edit:
    return lambda c: change(next(one for one in c["proofs"] if kind in one))


def part(kind: str, change: Edit) -> Edit:
    return lambda c: change(next(one for one in c["proofs"] if kind in one)[kind])


def put(key: Any, value: Any) -> Edit:
    return lambda d: d.__setitem__(key, value(d[key]) if callable(value) else value)


def at(key: Any, change: Edit) -> Edit:
    return lambda d: change(d[key])


def drop(key: Any) -> Edit:
    return lambda d: d.pop(key)


def instruction(operation: str, change: Edit) -> Edit:
    return lambda c: change(next(step for step in c["programs"][0]["instructions"] if step["op"] == operation))


def finding(claim: str, change: Edit) -> Edit:
    return lambda c: change(next(entry for entry in c["findings"] if entry["claim"] == claim))


def invented(claim: str) -> dict[str, str]:
    return {"claim": claim, "answer": "certified", "sentence": "f shortens distances to .001"}


TAMPERED: dict[str, Edit] = {
    # What people read.
    "a finding invented": at("findings", lambda f: f.append(invented("contraction"))),
    "a finding dropped": at("findings", drop(0)),
    "a finding twice": at("findings", lambda f: f.append(dict(f[0]))),
    "findings in another order": at("findings", lambda f: f.reverse()),
    "an answer of a finding": finding("contraction", put("answer", "refuted")),
    "a number in a sentence": finding("contraction", put("sentence", lambda s: s.replace("0.", "0.1", 1))),
    "the digits in a sentence": finding("implicit gradient", put("sentence", lambda s: s.replace("20", "40"))),
    "the name of a claim": finding("implicit gradient", put("claim", "explicit gradient")),
    "the answer": put("answer", "refuted"),
    "bits right of a leaf": at("bits_right", at(1, put("bits", 53.0))),
    "the worst leaf": at("bits_right", lambda rows: [row.__setitem__("worst", not row["worst"]) for row in rows]),
    "an index of bits right": at("bits_right", at(1, put("index", lambda i: [i[0] + 1, *i[1:]]))),
    "what torch is said to have got": at("bits_right", at(1, put("got", 1.5))),
    "what is said to be expected": at("bits_right", at(1, put("expected", shifted))),
    "the name of a leaf in bits right": at("bits_right", at(1, put("leaf", "args.V"))),
    "the dtype in bits right": at("bits_right", at(1, put("dtype", "float16"))),
    "a row of bits right dropped": at("bits_right", drop(1)),
    "a row of bits right added": at("bits_right", lambda rows: rows.append(dict(rows[0]))),
    # Settings.
    "beta": put("beta", 0.9),
    "beta by little": put("beta", 0.5 + 2.0**-40),
    "the number of steps": put("num_steps", 3),
    "the digits": put("digits", 40),
    "the state's shape": at("state", put("z0", [4, 1])),
    "the state's name": at("state", lambda s: s.update({"z": s.pop("z0")})),
    "a leaf dropped": at("leaves", drop("args.W")),
    "a leaf added": at("leaves", lambda d: d.update({"args.V": [1]})),
    "the shape of a leaf": at("leaves", put("args.W", lambda s: [s[0] + 1, *s[1:]])),
    "the loss": put("cotangent_z", nudged),
    "the loss of the other state": put("cotangent_y", nudged),
    # Problems.
    "a weight": at("problems", at(0, at("values", put("args.W", nudged)))),
    "the start": at("problems", at(0, at("values", put("z0", nudged)))),
    "a weight dropped": at("problems", at(0, at("values", drop("args.W")))),
    "what a dtype stores": at("problems", at(1, at("values", put("args.W", nudged)))),
    "whose problem it is": at("problems", at(1, put("stored_as", ""))),
    "a problem dropped": at("problems", drop(1)),
    # Proofs.
    "a proof deleted": at("proofs", drop(0)),
    "the second proof deleted": at("proofs", drop(1)),
    "all proofs deleted": lambda c: c["proofs"].clear(),
    "a proof twice": at("proofs", lambda p: p.append(dict(p[0]))),
    "proofs exchanged": at("proofs", lambda p: p.reverse()),
    "the working precision": at("proofs", at(0, put("bits", 53))),
    "whose proof it is": at("proofs", at(0, put("problem", 1))),
    "the center": part("fixed_point", at("center", put(0, "1:-2"))),
    "the radius": part("fixed_point", put("radius", "1:0")),
    "a radius of nothing": part("fixed_point", put("radius", "0:0")),
    "the inverse": part("fixed_point", at("inverses", put(0, blank))),
    "samples joined": part("fixed_point", put("inverses", lambda i: i[:1])),
    "the tape of the fixed point": part("fixed_point", put("tape", "torch 1")),
    "the solution shifted": proof("fixed_point", at("solution", put(1, shifted))),
    "the solution widened": proof("fixed_point", at("solution", put(1, wider))),
    "a number of the solution dropped": proof("fixed_point", at("solution", drop(1))),
    "a gradient shifted": proof("fixed_point", at("gradient", at("args.W", put(3, shifted)))),
    "a gradient widened": proof("fixed_point", at("gradient", at("args.W", put(3, wider)))),
    "a leaf of a gradient dropped": proof("fixed_point", at("gradient", drop("args.W"))),
    "a leaf of a gradient added": proof("fixed_point", at("gradient", lambda g: g.update({"args.V": ["0"]}))),
    "a gradient dropped": proof("implicit", drop("implicit")),
    "z_N shifted": proof("n_step", at("z", put(2, shifted))),
    "y_N shifted": proof("n_step", at("y", put(2, shifted))),
    "the N-step gradient shifted": proof("n_step", at("gradient", at("z0", put(0, shifted)))),
    "the N-step gradient's leaf dropped": proof("n_step", at("gradient", drop("z0"))),
    "a step dropped": part("n_step", put("tapes", lambda t: t[:2])),
    "torch's backward dropped from the steps": part("n_step", put("torch", None)),
    "torch's backward dropped from the fixed point": part("implicit", put("torch", None)),
    "f in place of torch's backward": part("implicit", put("torch", "f 0")),
    "the constant lowered": part("contraction", put("constant", "0.5")),
    "the constant raised above 1": part("contraction", put("constant", "1.5")),
    "the neighbourhood widened": part("contraction", put("radius", "1:3")),
    "the contraction dropped": proof("contraction", drop("contraction")),
    "singular vectors": part(
        "contraction", at("vectors", at(0, put("left", lambda t: packed([0.0] * len(unpacked(t))))))
    ),
    "the lower norm raised": part("norm", put("lower", "100")),
    "the upper norm lowered": part("norm", put("upper", "0.001")),
    "the spectral radius lowered": part("norm", put("spectral_radius", "0.001")),
    "the norm dropped": proof("norm", drop("norm")),
    "a claim given up besides": at("given_up", lambda g: g.update({"contraction": "no bound"})),
    # The program and the graph.
    "an operation": instruction("tanh", put("op", "sin")),
    "a constant": instruction("constant", at("values", put(0, "3:-1"))),
    "an operand": instruction("tanh", lambda step: step["in"][0].__setitem__(0, 0)),
    "an instruction dropped": lambda c: c["programs"][0]["instructions"].pop(2),
    "an unknown operation": instruction("tanh", put("op", "gamma")),
    "the outputs of a tape": lambda c: c["programs"][0]["tapes"]["f 0"]["outputs"].update({"z0": [0, 4, 1]}),
    "the instructions of a tape": lambda c: c["programs"][0]["tapes"]["f 0"].update({"instructions": [0, 2]}),
    "the derivative that torch's backward has": lambda c: next(
        step
        for step in c["programs"][0]["instructions"][slice(*c["programs"][0]["tapes"]["torch 1"]["instructions"])]
        if step["op"] == "subtract"
    ).__setitem__("op", "add"),
    "a node of the graph": at("graph", at("nodes", drop(-1))),
    "a node added": at("graph", at("nodes", lambda nodes: nodes.append(dict(nodes[-1])))),
    "the operation of a node": lambda c: _node(c, "aten.tanh.default").__setitem__("operation", "aten.sin.default"),
    "what a node reads": at("graph", lambda g: g["nodes"][-1].__setitem__("arguments", [{"value": 0}])),
    "what the graph returns": at("graph", put("outputs", {"z0": 0})),
    # What was measured.
    "a result of torch": at("measured", at(0, at("gradient", put("args.W", nudged)))),
    "a state of torch": at("measured", at(0, put("z", nudged))),
    "a result that is not finite": at("measured", at(0, put("z", lambda t: packed([float("nan")] * len(unpacked(t)))))),
    "a result dropped": at("measured", drop(0)),
    "a leaf of a result dropped": at("measured", at(0, at("gradient", drop("args.W")))),
    "what a result is held to": at("measured", at(0, put("proof", 0))),
    "the dtype of a result": at("measured", at(0, put("dtype", "bfloat16"))),
    "what a dtype stores of bits": at("measured", at(0, put("stored", 24))),
}
"""Edits of a certificate that its proofs contradict, so that they are refused whatever the seal says."""

SEALED: dict[str, Edit] = {
    "the source": put("source", "another:cell"),
    "the scope": put("scope", "the first 2 of 6 samples"),
    "advice": put("advice", ["nothing"]),
    "what was not run": at("not_run", lambda rows: rows.append({"what": "float16", "why": "no"})),
    "the environment": at("environment", put("torch", "9.9")),
    "the time": at("seconds", lambda seconds: seconds.update({"recording the function": 0.0})),
    "the casts": at("casts", lambda rows: rows.append("float32 to float64")),
    "the line of a node": at("graph", at("nodes", at(0, put("location", "elsewhere.py:1: z")))),
    "a constant's shape": at("graph", at("inputs", at(0, put("dtype", "float16")))),
    "something added": lambda c: c.update({"note": "this is proved"}),
    "something missing": drop("environment"),
    "the seal": put("seal", "0" * 64),
    "no seal": drop("seal"),
}
"""Edits of what is written for information, which the seal alone shows."""


def _node(whole: dict[str, Any], operation: str) -> dict[str, Any]:
    return next(node for node in whole["graph"]["nodes"] if node["operation"] == operation)


@pytest.mark.parametrize("what", list(TAMPERED))
def test_tampering_is_refused_even_where_it_is_sealed_again(what: str) -> None:
    changed = certificate("dense")
    TAMPERED[what](changed)
    assert changed != certificate("dense"), "the edit changes nothing"
    changed["seal"] = sealed(changed)
    with pytest.raises((Failed, KeyError, IndexError, TypeError, ValueError)):
        recheck(changed)


@pytest.mark.parametrize("what", list(SEALED))
def test_change_of_information_is_seen_by_the_seal(what: str) -> None:
    changed = certificate("dense")
    before = copy.deepcopy(changed)
    SEALED[what](changed)
    assert changed != before
    with pytest.raises((Failed, KeyError)):
        recheck(changed)


def test_at_least_sixty_kinds_of_tampering_are_tried() -> None:
    assert len(TAMPERED) >= 60


def resealed(whole: dict[str, Any]) -> dict[str, Any]:
    return {**whole, "seal": sealed(whole)}


@pytest.mark.parametrize(
    ("field", "value"), [("reach", (4.0).hex()), ("component", 0), ("component", -1), ("tape", "torch 1")]
)
def test_forged_absence_fails(field: str, value: Any) -> None:
    forged = certificate("no fixed point")
    forged["proofs"][0]["no_fixed_point"][field] = value
    with pytest.raises((Failed, KeyError, TypeError)):
        recheck(resealed(forged))


def test_forged_expansion_fails() -> None:
    forged = certificate("riccati")
    assert any(line.startswith("refuted: contraction") for line in recheck(forged))
    forged["proofs"][0]["norm"]["lower"] = "100"
    with pytest.raises(Failed, match="norm of df/dz lies in"):
        recheck(resealed(forged))


@pytest.mark.parametrize("field", ["derivative", "way", "torch_along"])
def test_forged_directional_derivative_fails(field: str) -> None:
    forged = certificate("direction")
    given = forged["proofs"][0]
    if field == "derivative":
        given[field] = shifted(given[field])
    else:
        given["direction"][field] = nudged(given["direction"][field]) if field == "way" else (1.0).hex()
    with pytest.raises(Failed):
        recheck(resealed(forged))


def test_wrong_backward_cannot_be_passed_off_as_the_derivative() -> None:
    forged = certificate("wrong backward")
    for entry in forged["findings"]:
        entry["answer"] = "certified"
        entry["sentence"] = entry["sentence"].replace("that torch's backward defines ", "")
    forged["answer"] = "certified"
    with pytest.raises(Failed, match="not what follows"):
        recheck(resealed(forged))
    # Without torch's backward the enclosures that were claimed are not those of f.
    forged = certificate("wrong backward")
    forged["proofs"][0]["implicit"]["torch"] = None
    with pytest.raises(Failed, match="is not inside the claimed"):
        recheck(resealed(forged))


def test_problem_that_a_narrow_dtype_stores_has_proofs_of_its_own() -> None:
    found = certificate("wrong backward")
    assert [found["problems"][one["problem"]]["stored_as"] for one in found["proofs"]] == [
        "",
        "",
        "bfloat16",
        "bfloat16",
    ]


def test_certificate_without_claims_or_of_another_version_fails() -> None:
    with pytest.raises(Failed, match="version 2"):
        recheck({**certificate("affine-real"), "version": 1})
    bare = certificate("affine-real")
    bare |= {"proofs": [], "measured": [], "findings": [], "bits_right": [], "answer": "certified"}
    with pytest.raises(Failed, match="nothing is said of the fixed point"):
        recheck(resealed(bare))


def test_program_imports_nothing_but_flint_and_the_standard_library() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(recheck_program())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"flint"}


def test_program_runs_alone_and_its_exit_status_is_the_answer(tmp_path: Path) -> None:
    program, path = tmp_path / "recheck.py", tmp_path / "certificate.json"
    program.write_text(recheck_program())
    path.write_text(stored("affine-real"))

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(program), str(path)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    found = run()
    assert found.returncode == 0, found.stderr
    assert "holds: certified: fixed point: one and only one" in found.stdout
    forged = certificate("affine-real")
    forged["beta"] = 0.75
    path.write_text(json.dumps(forged))
    found = run()
    assert found.returncode == 1, found.stderr
    assert found.stdout.startswith("fails: ")


def test_exit_status_is_one_for_a_failure_and_two_for_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = certificate("affine-real")
    path = tmp_path / "forged.json"
    del forged["programs"][0]["tapes"]
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
    (text,) = texts([arb(1.0, 2.0**-40)], 15)
    assert arb(text).contains(arb(1.0, 2.0**-39.5))
