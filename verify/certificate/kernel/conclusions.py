"""Everything that people read, derived from what was proved and measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import flint
from flint import arb

from verify.certificate.kernel.bits import bits_of_run
from verify.certificate.kernel.enclosures import wide_leaves
from verify.certificate.kernel.numbers import Failed, number
from verify.certificate.kernel.problem import Proved


def conclusions(certificate: dict[str, Any], proved: list[Proved]) -> dict[str, Any]:
    """Everything that people read, from what was proved and measured: answer, findings, bits right.

    Args:
        certificate: the parsed file, or what will be it.
        proved: what its proofs give, in their order.

    Raises:
        Failed: a claim is neither proved nor given up.
    """
    before = flint.ctx.prec
    flint.ctx.prec = 256
    try:
        found = _findings(certificate, proved)
        answers = {entry["answer"] for entry in found}
        answer = next((one for one in ("refuted", "undecided") if one in answers), "certified")
        rows = [row for run in certificate["measured"] for row in bits_of_run(certificate, run, proved[run["proof"]])]
    finally:
        flint.ctx.prec = before
    return {"answer": answer, "findings": found, "bits_right": rows}


def _findings(certificate: dict[str, Any], proved: list[Proved]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    given_up: dict[str, str] = dict(certificate["given_up"])

    def say(claim: str, answer: str, sentence: str) -> None:
        if claim in given_up:
            raise Failed(f"the claim {claim!r} is given up and proved")
        found.append({"claim": claim, "answer": answer, "sentence": sentence})

    for proof, part in zip(certificate["proofs"], proved, strict=True):
        if certificate["problems"][proof["problem"]]["stored_as"]:
            continue
        for claim, answer, sentence in _said_of(certificate, proof, part):
            say(claim, answer, sentence)
    said = {entry["claim"] for entry in found} | set(given_up)
    missing = [claim for claim in _due(certificate, proved) if claim not in said]
    if missing:
        raise Failed(f"nothing is said of the {missing[0]}")
    found += [{"claim": claim, "answer": "undecided", "sentence": text} for claim, text in given_up.items()]
    found.sort(key=lambda entry: (*CLAIMS, *DIRECTION_CLAIMS, entry["claim"]).index(entry["claim"]))
    return found


CLAIMS = (
    "fixed point",
    "contraction",
    "implicit gradient",
    "N-step gradient",
    "implicit gradient confirmed",
    "N-step gradient confirmed",
)


DIRECTION_CLAIMS = ("N-step directional derivative",)


def _due(certificate: dict[str, Any], proved: list[Proved]) -> Iterator[str]:
    """The claims of which something must be said."""
    yield "fixed point"
    yield DIRECTION_CLAIMS[0] if certificate["scope"].startswith("one direction") else "N-step gradient"
    for proof, part in zip(certificate["proofs"], proved, strict=True):
        if not certificate["problems"][proof["problem"]]["stored_as"]:
            if part.kind == "fixed_point":
                yield from ("contraction", "implicit gradient")
            if part.gradient is not None:
                yield "implicit gradient confirmed" if part.kind == "fixed_point" else "N-step gradient confirmed"


def _said_of(certificate: dict[str, Any], proof: dict[str, Any], part: Proved) -> Iterator[tuple[str, str, str]]:
    digits: int = certificate["digits"]
    if part.kind == "no_fixed_point":
        given = proof["no_fixed_point"]
        yield (
            "fixed point",
            "refuted",
            f"f has no fixed point within {float.fromhex(given['reach']):g} of z0 in every component: there f(z) - z "
            f"keeps its sign in component {given['component']}; further away nothing is known",
        )
    if part.kind == "fixed_point":
        radius = float(number(proof["fixed_point"]["radius"]))
        yield (
            "fixed point",
            "certified",
            f"one and only one fixed point within {radius:.1e} of the center, enclosed",
        )
        yield from _of_contraction(proof)
        if part.gradient is not None:
            yield from _of_gradient(certificate, part, "implicit gradient", "the gradient of <c, z*>", digits)
    if part.kind == "n_step":
        what = f"the gradient of z_{certificate['num_steps']}"
        yield from _of_gradient(certificate, part, "N-step gradient", what, digits)
    if part.kind == "direction":
        yield _of_direction(certificate, proof, part)


def _of_direction(certificate: dict[str, Any], proof: dict[str, Any], part: Proved) -> tuple[str, str, str]:
    sentence = f"along one seeded direction it is enclosed to {certificate['digits']} digits at {part.bits} bits"
    along = proof["direction"]["torch_along"]
    if along is not None and part.derivative is not None:
        size = part.derivative.abs_upper()
        distance = (arb(float.fromhex(along)) - part.derivative).abs_upper() / (size if size > 0 else arb(1))
        agreed = math.inf if distance == 0 else -math.log10(float(distance))
        sentence += f"; torch's float64 gradient agrees with it in {agreed:.1f} digits"
    return DIRECTION_CLAIMS[0], "certified", sentence


def _of_contraction(proof: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    norm = proof["norm"]
    lower, upper = float(arb(norm["lower"]).lower()), float(arb(norm["upper"]).upper())
    if "contraction" in proof:
        constant = float(arb(proof["contraction"]["constant"]).upper())
        radius = float(number(proof["contraction"]["radius"]))
        yield (
            "contraction",
            "certified",
            f"f shortens distances to {constant:.6g} of theirs or less within {radius:.1e} of it (Euclidean norm)",
        )
    elif arb(norm["lower"]).lower() >= 1:
        spectral = float(arb(norm["spectral_radius"]).upper())
        tail = (
            f"all eigenvalues lie within {spectral:.6g}, so iterating converges from nearby all the same"
            if spectral < 1
            else "an eigenvalue may lie outside the unit circle, so plain iteration need not converge"
        )
        yield (
            "contraction",
            "refuted",
            f"f is not a contraction at its fixed point: ||df/dz||_2 is at least {lower:.6g}; {tail}",
        )
    else:
        sentence = f"||df/dz||_2 at the fixed point lies in [{lower:.6g}, {upper:.6g}]; {proof['no_contraction']}"
        if "expansion" in proof:
            at_least = float(arb(proof["expansion"]["lower"]).lower())
            radius = float(number(proof["expansion"]["radius"]))
            sentence = (
                f"f is not a contraction within {radius:.1e} of its fixed point: at a point there ||df/dz||_2 is at "
                f"least {at_least:.6g}; at the fixed point it lies in [{lower:.6g}, {upper:.6g}]"
            )
        if "nearby" in proof:
            constant = float(arb(proof["nearby"]["constant"]).upper())
            radius = float(number(proof["nearby"]["radius"]))
            sentence += f"; within {radius:.1e} of it f shortens distances to {constant:.6g} of theirs or less"
        yield "contraction", "refuted" if "expansion" in proof else "undecided", sentence


def _of_gradient(
    certificate: dict[str, Any], part: Proved, claim: str, what: str, digits: int
) -> Iterator[tuple[str, str, str]]:
    kinks = [name for name, why in part.unknown.items() if why == "kink"]
    wide = [name for name, why in part.unknown.items() if why == "wide"]
    to = f"enclosed to {digits} digits at {part.bits} bits"
    cuts = "; ".join(certificate["cuts"])
    if part.torch is not None:
        yield from _of_torch(part, claim, what, to, cuts, digits)
        return
    if kinks:
        others = "; of the other leaves " + f"{what} is {to}" if len(part.unknown) < len(part.gradient or {}) else ""
        yield (
            claim,
            "undecided",
            f"f stands exactly on a kink in the direction of {', '.join(kinks)}, or too near to one to tell, so it has "
            f"no derivative there{others}; start elsewhere than on the kink",
        )
    elif wide:
        yield claim, "undecided", f"given up at {part.bits} bits: it is wider than {digits} digits by {', '.join(wide)}"
    else:
        yield claim, "certified", f"{what}, by f's forward graph, is {to}"
    if part.agreement is None:
        return
    if len(part.unknown) == len(part.gradient or {}):
        sentence = "no leaf's derivative is known, so torch's backward cannot be compared with it"
        yield f"{claim} confirmed", "undecided", f"{sentence}; start elsewhere than exactly on a kink"
    elif part.agreement.agree:
        left = f", but for {', '.join(part.unknown)}" if part.unknown else ""
        yield (
            f"{claim} confirmed",
            "certified",
            f"torch's backward agrees with the derivative of the forward graph in {digits} digits{left}",
        )
    else:
        sentence = f"torch's backward and the derivative of the forward graph are not known to agree to {digits} digits"
        yield f"{claim} confirmed", "undecided", sentence


def _of_torch(part: Proved, claim: str, what: str, to: str, cuts: str, digits: int) -> Iterator[tuple[str, str, str]]:
    """The claims where torch's backward is not the derivative of the forward graph."""
    assert part.agreement is not None
    assert part.agreement.apart is not None
    assert part.torch is not None
    where = f"; see {cuts}" if cuts else ""
    wide = wide_leaves(part.torch, digits)
    if wide:
        yield claim, "undecided", f"the gradient that torch's backward defines is wider than asked by {', '.join(wide)}"
    else:
        of = what.removeprefix("the gradient ")
        yield (
            claim,
            "certified",
            f"the gradient {of} that torch's backward defines is {to}; it is not that of f{where}",
        )
    name, place, own, other = part.agreement.apart
    yield (
        f"{claim} confirmed",
        "refuted",
        f"torch's derivative is not that of the function: at {name}[{place}] its backward gives {other.str(17)} where "
        f"the forward graph has {own.str(17)}; look for a custom backward, a detach or no_grad{where}",
    )
