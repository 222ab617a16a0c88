"""Questions to the kernel of a certificate, each answered well where the kernel is right."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from flint import arb

from verify.certificate import Failed, certify, certify_set
from verify.certificate.kernel import bits, check, sets
from verify.certificate.kernel.check import sealed
from verify.certificate.kernel.numbers import packed, unpacked
from verify.certificate.posed import head_json
from verify.certificate.proof import task_of
from verify.certificate.settings import Settings
from verify.certificate.stages import fixed_point_part, n_step_part
from verify.problems import get_problem
from verify.reference.fixed_point import fixed_point
from verify.reference.graph import trace
from verify.reference.n_step import n_step


F64 = torch.float64
Z, X = torch.zeros(1, 2, dtype=F64), torch.tensor([[0.3, -0.4]], dtype=F64)


class OnePercent(torch.autograd.Function):
    """A sine whose backward is 1 % wrong, by its second argument alone."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z, x)
        return z.sin() + x.sin()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, x = ctx.saved_tensors
        return grad_outputs[0] * z.cos(), grad_outputs[0] * x.cos() * 1.01


def answers(function: Any, z: torch.Tensor = Z, x: torch.Tensor = X) -> dict[str, str]:
    found = certify((function, z, x), num_steps=2, digits=15, dtypes=(), max_bits=200)
    return {finding.claim: finding.answer.value for finding in found.findings}


def honest_cell_is_certified() -> bool:
    w = torch.tensor([[0.3, 0.1], [-0.2, 0.4]], dtype=F64)
    found = answers(lambda z, x: torch.tanh(z @ w + x) / (2 + z * z))
    return set(found.values()) == {"certified"}


def jump_is_not_a_contraction() -> bool:
    found = answers(lambda z, x: 0.5 * z + 0.3 * (z > 0.403).to(F64) + x, Z, 0 * X + 0.2)
    return found["contraction"] != "certified"


def bend_is_not_a_contraction() -> bool:
    found = answers(lambda z, x: 0.2 * z + 1.5 * torch.relu(z - 0.501) + x, Z, 0 * X + 0.4)
    return found["contraction"] != "certified"


def wrong_backward_is_not_confirmed() -> bool:
    found = answers(lambda z, x: 0.3 * OnePercent.apply(z, x))
    return found["N-step gradient confirmed"] == "refuted" and found["implicit gradient confirmed"] == "refuted"


def kink_has_no_derivative() -> bool:
    return answers(lambda z, x: torch.where(z > 0, 0.5 * z, 0.2 * z) + x * x)["N-step gradient"] == "undecided"


def gradients_are_those_of_the_reference() -> bool:
    problem, settings = get_problem("dense-tanh"), Settings(beta=0.25, num_steps=2, digits=20)
    traced = trace(problem.function, *problem.inputs(F64))
    cotangents = {"z0": problem.cotangent_z}, {"z0": problem.cotangent_y}
    task = task_of(traced, head_json(traced, settings, cotangents))
    at, after = fixed_point(problem, 30), n_step(problem, 0.25, 2, 30)
    pairs = [
        (fixed_point_part(task, settings, main=False).proved, at.gradient, at.uncertainty),
        (n_step_part(task, settings, 1.0).proved, after.gradient, after.uncertainty),
    ]
    return all(
        proved is not None
        and not proved.unknown
        and all(
            ball.overlaps(arb(str(value), 1e-25 + uncertainty[leaf]))
            for leaf, balls in proved.truth.items()
            for ball, value in zip(balls, gradient[leaf].ravel().tolist(), strict=True)
        )
        for proved, gradient, uncertainty in pairs
    )


@cache
def written(name: str) -> str:
    """An honest certificate, made before any fault is planted."""
    w = torch.tensor([[0.3, 0.1], [-0.2, 0.4]], dtype=F64)
    functions: dict[str, Any] = {
        "dense": lambda z, x: torch.tanh(z @ w + x),
        "absent": lambda z, x: z + x.abs() * torch.exp(-z * z),
    }
    found = certify((functions[name], Z, X), num_steps=2, digits=15, dtypes=(F64,))
    return json.dumps(found.to_json(), allow_nan=False)


def edited(name: str, edit: Callable[[dict[str, Any]], None], *, seal: bool = True) -> bool:
    """Whether the re-checker holds the honest certificate to be right, and the edited one not."""
    whole = json.loads(written(name))
    try:
        check.recheck(copy.deepcopy(whole))
    except Failed:
        return False
    edit(whole)
    if seal:
        whole["seal"] = sealed(whole)
    try:
        check.recheck(whole)
    except (Failed, KeyError, IndexError, ValueError):
        return True
    return False


def halved(text: str) -> str:
    return packed([value / 2 for value in unpacked(text)])


def proof_of(whole: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in whole["proofs"] if kind in one)


def say(whole: dict[str, Any], claim: str, sentence: Callable[[str], str]) -> None:
    finding = next(one for one in whole["findings"] if one["claim"] == claim)
    finding["sentence"] = sentence(finding["sentence"])


def forged_box(whole: dict[str, Any]) -> None:
    """A box that Krawczyk's operator does not map into itself: narrower than the rounding."""
    proof_of(whole, "fixed_point")["fixed_point"]["radius"] = "1:-400"
    say(whole, "fixed point", lambda _: f"one and only one fixed point within {2.0**-400:.1e} of the center, enclosed")


def forged_vectors(whole: dict[str, Any]) -> None:
    """Singular vectors that are too short, and the constant that they seem to prove."""
    near = proof_of(whole, "contraction")["contraction"]
    near["vectors"][0]["left"] = halved(near["vectors"][0]["left"])
    before = float(arb(near["constant"]).upper())
    near["constant"] = repr(0.75 * before)
    after = float(arb(near["constant"]).upper())
    say(whole, "contraction", lambda text: text.replace(f"{before:.6g}", f"{after:.6g}"))


def forged_absence(whole: dict[str, Any]) -> None:
    """A fixed point is said to be absent where nothing is known."""
    proof = proof_of(whole, "no_fixed_point")["no_fixed_point"]
    before, proof["reach"] = float.fromhex(proof["reach"]), (1e30).hex()
    say(whole, "fixed point", lambda text: text.replace(f"{before:g}", "1e+30"))


def forged_graph(whole: dict[str, Any]) -> None:
    """A drawn node that reads another value than its program does."""
    graph = whole["graph"]
    place = [entry["name"] for entry in graph["inputs"]].index("args")
    node = next(one for one in graph["nodes"] if one["operation"] == "aten.add.Tensor")
    node["arguments"][0] = {"value": place}


def omitted(whole: dict[str, Any]) -> None:
    """Nothing is said of the N steps."""
    whole["proofs"] = [one for one in whole["proofs"] if "n_step" not in one]
    whole["findings"] = [one for one in whole["findings"] if "N-step" not in one["claim"]]
    whole["measured"] = whole["bits_right"] = []


def narrow_box_of_states_is_refused() -> bool:
    whole = json.loads(written_set())
    sets.prove_set(whole)
    whole["proof"]["radii"] = halved(whole["proof"]["radii"])
    try:
        sets.prove_set(whole)
    except Failed:
        return True
    return False


def decision_counts_how_far_the_logits_move() -> bool:
    found = [certify_set((half, Z, X), radius=radius, readout=READOUT).said["margins"] for radius in (1e-3, 0.05)]
    return float(arb(found[1][0]).mid()) < float(arb(found[0][0]).mid()) - 0.1


def half(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.tanh(z) + x


READOUT = torch.eye(2, dtype=F64), torch.zeros(2, dtype=F64)


@cache
def written_set() -> str:
    return json.dumps(certify_set((half, Z, X), radius=0.01, readout=READOUT).said)


def wide_truth_has_no_bits() -> bool:
    return bits.bits_of("x", [1.0], [arb(1.0, 0.25)], [1], None)["bits"] == 2.32


QUESTIONS: dict[str, Callable[[], bool]] = {
    "honest cell": honest_cell_is_certified,
    "jump": jump_is_not_a_contraction,
    "bend": bend_is_not_a_contraction,
    "wrong backward": wrong_backward_is_not_confirmed,
    "kink": kink_has_no_derivative,
    "reference": gradients_are_those_of_the_reference,
    "forged box": lambda: edited("dense", forged_box),
    "forged vectors": lambda: edited("dense", forged_vectors),
    "forged absence": lambda: edited("absent", forged_absence),
    "forged sentence": lambda: edited("dense", lambda whole: say(whole, "fixed point", lambda _: "all is well")),
    "forged width": lambda: edited("dense", lambda whole: proof_of(whole, "n_step")["z"].__setitem__(0, "[+/- 1e3]")),
    "forged value": lambda: edited(
        "dense", lambda whole: proof_of(whole, "n_step")["z"].__setitem__(0, "[5 +/- 1e-16]")
    ),
    "forged graph": lambda: edited("dense", forged_graph),
    "omission": lambda: edited("dense", omitted),
    "unsealed": lambda: edited("dense", lambda whole: whole["advice"].append("more"), seal=False),
    "wide truth": wide_truth_has_no_bits,
    "narrow box of states": narrow_box_of_states_is_refused,
    "moving logits": decision_counts_how_far_the_logits_move,
}
