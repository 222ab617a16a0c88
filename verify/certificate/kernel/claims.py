"""Sees that what a certificate claims is what its proofs give."""

from __future__ import annotations

from typing import Any

import flint
from flint import arb, arb_mat

from verify.certificate.kernel.code import Code
from verify.certificate.kernel.enclosures import scales
from verify.certificate.kernel.fixed_points import (
    NORM_BITS,
    ball_radius,
    jacobian,
    norm_bound,
    spectral_bound,
    stretch,
    stretch_at,
)
from verify.certificate.kernel.machine import Machine
from verify.certificate.kernel.numbers import Failed, exact, number, unpacked
from verify.certificate.kernel.problem import Problem, Proved


def check_claims(problem: Problem, code: Code, proof: dict[str, Any], proved: Proved) -> None:
    """See that what a proof gives lies inside what it claims, that nothing else is claimed, and nothing too widely."""
    if "solution" in proof:
        contained({"z": proof["solution"]}, {"z": proved.state}, problem.digits)
    if "z" in proof:
        contained({"z": proof["z"], "y": proof["y"]}, {"z": proved.state, "y": proved.y}, problem.digits)
    if "gradient" in proof:
        contained(proof["gradient"], proved.truth, problem.digits)
    if proved.derivative is not None and not arb(proof["derivative"]).contains(proved.derivative):
        raise Failed(f"the derivative {proved.derivative} is not inside the claimed {proof['derivative']}")
    if "norm" in proof:
        with flint.ctx.workprec(NORM_BITS):
            check_norm(proof["norm"], proved.blocks)
    if "expansion" in proof:
        check_expansion(Machine(code, problem.values), proof["fixed_point"], proof["expansion"])
    for key in ("contraction", "nearby"):
        if key in proof:
            check_contraction(Machine(code, problem.values), proof["fixed_point"], proof[key])


def contained(claimed: dict[str, list[str]], proved: dict[str, list[arb]], digits: int) -> None:
    """See that the claimed balls contain the proved ones, are the same in number, and hardly wider."""
    if list(claimed) != list(proved):
        raise Failed(f"claimed are {', '.join(claimed)} where {', '.join(proved)} are proved")
    room, every = arb(10) ** (1 - digits), scales(proved)
    for name, texts in claimed.items():
        for place, (text, ball) in enumerate(zip(texts, proved[name], strict=True)):
            if not arb(text).contains(ball):
                raise Failed(f"{name}[{place}]: {ball.str(20)} is not inside the claimed {text}")
            # A decimal text has up to one digit less than its ball, and twice its radius.
            if not arb(text).rad() <= 100 * ball.rad() + room * every[name]:
                raise Failed(f"{name}[{place}]: the claimed {text} is wider than what is proved, {ball.str(20)}")


def check_norm(norm: dict[str, Any], blocks: list[arb_mat]) -> None:
    """The bounds of ||K||_2 at the fixed point, of its sample where they are greatest, and of its eigenvalues."""
    upper, lower = arb(0), arb(0)
    for block, vectors in zip(blocks, norm["vectors"], strict=True):
        left, right = square(vectors["left"], block.nrows()), square(vectors["right"], block.nrows())
        upper = upper.max(norm_bound(block, left, right))
        lower = lower.max(stretch(block, [right[row, 0] for row in range(block.nrows())]).lower())
    spectral = arb(0)
    if norm["spectral_radius"] != "inf":
        for block, vectors in zip(blocks, norm["eigenvectors"], strict=True):
            spectral = spectral.max(spectral_bound(block, unpacked(vectors["real"]), unpacked(vectors["imaginary"])))
    if not (upper <= arb(norm["upper"]).upper() and lower >= arb(norm["lower"]).lower()):
        raise Failed(
            f"the norm of df/dz lies in [{lower}, {upper}], not in the claimed {norm['lower']}, {norm['upper']}"
        )
    if norm["spectral_radius"] != "inf" and not spectral <= arb(norm["spectral_radius"]).upper():
        raise Failed(f"the eigenvalues lie within {spectral}, not within the claimed {norm['spectral_radius']}")


def check_contraction(machine: Machine, fixed: dict[str, Any], proof: dict[str, Any]) -> None:
    """||K||_2 over the neighbourhood is at most the claimed constant, for every sample."""
    radius = ball_radius(number(proof["radius"]))
    region = [arb(number(text), radius) for text in fixed["center"]]
    over = machine.run(proof["tape"], region)
    with flint.ctx.workprec(NORM_BITS):
        blocks = jacobian(machine, over, len(fixed["inverses"]))
        for block, vectors in zip(blocks, proof["vectors"], strict=True):
            size = block.nrows()
            bound = norm_bound(block, square(vectors["left"], size), square(vectors["right"], size))
            if not bound <= arb(proof["constant"]).upper():
                raise Failed(f"the norm of df/dz is bounded by {bound}, not by the claimed {proof['constant']}")
    if not arb(proof["constant"]).upper() < 1:
        raise Failed(f"a constant of {proof['constant']} is no contraction")


def check_expansion(machine: Machine, fixed: dict[str, Any], proof: dict[str, Any]) -> None:
    """||K v|| is at least what is claimed times ||v||, at a point of the neighbourhood."""
    radius, point = number(proof["radius"]), exact(proof["point"])
    for x, text in zip(point, fixed["center"], strict=True):
        if not abs(x - number(text)) <= radius:
            raise Failed("the point at which f expands is not in the neighbourhood")
    ratio = stretch_at(machine, machine.run(proof["tape"], point), exact(proof["vector"]))
    if not (ratio >= arb(proof["lower"]).lower() >= 1):
        raise Failed(f"f stretches by {ratio} there, not by the claimed {proof['lower']}")


def square(text: str, size: int) -> arb_mat:
    """A square matrix of exact float64 numbers."""
    return arb_mat(size, size, exact(text))
