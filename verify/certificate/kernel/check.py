"""Checks a whole certificate."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import flint

from verify.certificate.kernel.claims import check_claims
from verify.certificate.kernel.code import Code
from verify.certificate.kernel.conclusions import conclusions
from verify.certificate.kernel.drawn import check_graph
from verify.certificate.kernel.numbers import Failed
from verify.certificate.kernel.problem import Problem, Proved
from verify.certificate.kernel.prove import prove
from verify.certificate.kernel.sets import SET_SCHEMA, SET_VERSION, check_set_claims, prove_set, set_findings


SCHEMA, VERSION = "revdeq-certificate", 2
"""What the file says it is."""


def sealed(certificate: dict[str, Any]) -> str:
    """SHA-256 of everything in the file but the seal itself."""
    rest = {key: value for key, value in certificate.items() if key != "seal"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def recheck(certificate: dict[str, Any]) -> list[str]:
    """Prove every claim again, and see that the file says what follows from that and nothing else.

    Args:
        certificate: the parsed file.

    Returns:
        A line for each claim, with its answer.

    Raises:
        Failed: a claim is not proved, or what the file says is not what follows.
    """
    if certificate.get("schema") == SET_SCHEMA:
        return recheck_set(certificate)
    if certificate.get("schema") != SCHEMA or certificate.get("version") != VERSION:
        raise Failed(f"this is not a {SCHEMA} of version {VERSION}")
    before = flint.ctx.prec
    try:
        codes = [Code(program) for program in certificate["programs"]]
        proved: list[Proved] = []
        for proof in certificate["proofs"]:
            flint.ctx.prec = proof["bits"]
            given = certificate["problems"][proof["problem"]]
            problem, code = Problem(certificate, given), codes[given["program"]]
            part = prove(problem, code, proof)
            check_claims(problem, code, proof, part)
            proved.append(part)
    finally:
        flint.ctx.prec = before
    check_graph(certificate, codes[0] if codes else None)
    derived = conclusions(certificate, proved)
    for key in ("answer", "findings", "bits_right"):
        if not same(derived[key], certificate[key]):
            raise Failed(f"the {key.replace('_', ' ')} of the file are not what follows from its proofs")
    if certificate["seal"] != sealed(certificate):
        raise Failed("the seal does not fit: something in the file was changed after it was written")
    return [f"{entry['answer']}: {entry['claim']}: {entry['sentence']}" for entry in derived["findings"]]


def recheck_set(certificate: dict[str, Any]) -> list[str]:
    """`recheck` for a certificate of a set of inputs."""
    if certificate.get("version") != SET_VERSION:
        raise Failed(f"this is not a {SET_SCHEMA} of version {SET_VERSION}")
    proved = None
    if certificate["proof"] is not None:
        proved = prove_set(certificate)
        check_set_claims(certificate, proved)
    findings = set_findings(certificate, proved)
    if not same(findings, certificate["findings"]):
        raise Failed("the findings of the file are not what follows from its proof")
    if certificate["seal"] != sealed(certificate):
        raise Failed("the seal does not fit: something in the file was changed after it was written")
    return [f"{entry['answer']}: {entry['claim']}: {entry['sentence']}" for entry in findings]


def same(derived: Any, stated: Any) -> bool:
    """Whether two parsed values are equal; floats to a millionth, for another version may round them differently."""
    if isinstance(derived, dict) and isinstance(stated, dict):
        return derived.keys() == stated.keys() and all(same(value, stated[key]) for key, value in derived.items())
    if isinstance(derived, list) and isinstance(stated, list):
        return len(derived) == len(stated) and all(map(same, derived, stated))
    if isinstance(derived, float) and isinstance(stated, (int, float)):
        return abs(derived - stated) <= 1e-6 * max(1.0, abs(derived))
    return type(derived) is type(stated) and derived == stated


def main(arguments: list[str]) -> int:
    """Check the file that is named."""
    if len(arguments) != 1:
        print("usage: python recheck.py certificate.json", file=sys.stderr)
        return 2
    try:
        certificate = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"cannot read {arguments[0]}: {error}", file=sys.stderr)
        return 2
    try:
        lines = recheck(certificate)
    except Failed as failure:
        print(f"fails: {failure}")
        return 1
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, AttributeError, struct.error) as error:
        print(f"fails: the certificate is malformed ({type(error).__name__}: {error})")
        return 1
    print("\n".join(line if line.startswith("undecided") else f"holds: {line}" for line in lines))
    return 0
