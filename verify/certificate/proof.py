"""The part of a certificate that a stranger can check: what the kernel reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import NDArray

from verify.certificate.contraction import Contraction
from verify.certificate.kernel.numbers import packed
from verify.certificate.kernel.problem import Problem, Proved
from verify.certificate.recorder import Recorder
from verify.certificate.recording import exact_text
from verify.certificate.stages import Part, Task
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Traced


def problem_json(traced: Traced, stored_as: str, program: int) -> dict[str, Any]:
    """The numbers of a problem: every real input of f, exactly."""
    arrays = traced.arrays()
    real = [entry.name for entry in traced.forward.inputs if entry.type.is_real]
    values = {name: _doubles(arrays[name]) for name in real}
    return {"stored_as": stored_as, "program": program, "values": values}


def _doubles(values: NDArray[np.float64]) -> str:
    return packed(values.ravel().tolist())


def task_of(traced: Traced, head: dict[str, Any]) -> Task:
    """A task by itself, with a program of its own.

    Args:
        traced: the function.
        head: what `posed.head_json` gives.
    """
    return Task(traced, Recorder(traced), Problem(head, problem_json(traced, "", 0)), "")


def texts(balls: Iterable[arb], digits: int) -> list[str]:
    """Balls as decimal strings that contain them, at so many digits, with twice their radius.

    The room is for a re-checker whose sums run in another order, so that its radii differ in the last places.
    """
    with flint_precision(int(3.33 * digits) + 64):
        return [arb(ball.mid(), 2 * ball.rad()).str(digits) for ball in balls]


def gradient_texts(gradient: Mapping[str, list[arb]], digits: int) -> dict[str, list[str]]:
    """Every leaf's balls as decimal strings."""
    return {name: texts(balls, digits) for name, balls in gradient.items()}


def proof_of(part: Part, problem: int, digits: int, *, main: bool) -> dict[str, Any] | None:
    """What a stranger needs to prove a part again, or None where nothing was proved.

    Args:
        part: what was proved.
        problem: its place among the certificate's problems.
        digits: of the claims.
        main: whether it claims anything itself, rather than only being what torch's results are held to.
    """
    if part.proved is None:
        return None
    proof: dict[str, Any] = {"problem": problem, "bits": part.proved.bits}
    if part.absence is not None:
        reach, component = part.absence.reach.hex(), part.absence.component
        return {**proof, "no_fixed_point": {"tape": part.absence.tape, "reach": reach, "component": component}}
    if part.enclosure is not None:
        proof |= _fixed_point(part)
        if main:
            proof["solution"] = texts(part.proved.state, digits)
    if part.steps is not None:
        proof["n_step"] = {"tapes": [run.tape for run in part.steps.runs], "torch": part.torch}
        if main:
            proof |= {"z": texts(part.proved.state, digits), "y": texts(part.proved.y, digits)}
    if main and part.proved.gradient is not None:
        proof["gradient"] = gradient_texts(part.proved.truth, digits)
    return proof


def _fixed_point(part: Part) -> dict[str, Any]:
    found, near = part.enclosure, part.contraction
    assert found is not None
    assert part.proved is not None
    proof: dict[str, Any] = {
        "fixed_point": {
            "tape": found.tape,
            "center": [exact_text(ball) for ball in found.center],
            "radius": exact_text(found.radius),
            "inverses": [_doubles(block) for block in found.inverses],
        }
    }
    if part.proved.gradient is not None:
        proof["implicit"] = {"torch": part.torch[0] if part.torch else None}
    return proof if near is None else {**proof, **_contraction(near)}


def _contraction(near: Contraction) -> dict[str, Any]:
    with flint_precision(64):
        proof: dict[str, Any] = {
            "norm": {
                "lower": _below(near.lower).str(12),
                "upper": _above(near.upper).str(12),
                "spectral_radius": _above(near.spectral_radius).str(12) if near.spectral_radius.is_finite() else "inf",
                "vectors": [{"left": _doubles(left), "right": _doubles(right)} for left, right in near.vectors],
                "eigenvectors": [{"real": _doubles(x.real), "imaginary": _doubles(x.imag)} for x in near.eigenvectors],
            },
            "no_contraction": near.otherwise,
        }
        if near.expansion is not None:
            proof["expansion"] = {
                "tape": near.expansion.tape,
                "radius": exact_text(arb(near.radius)),
                "point": _doubles(near.expansion.point),
                "vector": _doubles(near.expansion.vector),
                "lower": _below(near.expansion.lower).str(12),
            }
        for key, bound in (("contraction", near.near), ("nearby", near.nearby)):
            if bound is not None:
                proof[key] = {
                    "tape": bound.tape,
                    "radius": exact_text(arb(bound.radius)),
                    "constant": _above(bound.constant).str(12),
                    "vectors": [{"left": _doubles(left), "right": _doubles(right)} for left, right in bound.vectors],
                }
    return proof


def _above(bound: arb) -> arb:
    """The bound with room for a re-checker whose radii, 30 bits long, are rounded in another order."""
    return (bound * (1 + arb(2) ** -20)).upper()


def _below(bound: arb) -> arb:
    return (bound * (1 - arb(2) ** -20)).lower()


def known_gradient(proved: Proved, state: Mapping[str, int]) -> dict[str, int]:
    """The leaves that torch's gradient is held to, with their sizes; the start's under their own names."""
    sizes = {name: len(balls) for name, balls in proved.truth.items()}
    return {**(state if sizes.pop("z0", None) is not None else {}), **sizes}
