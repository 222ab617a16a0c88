"""What a certificate says, and the file that holds it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verify.certificate.answers import Answer, Finding


SCHEMA = "revdeq-certificate"
VERSION = 1


class CertificateError(ValueError):
    """A certificate file cannot be read; the message says which, why and what to do."""


@dataclass(frozen=True)
class LeafBits:
    """Bits right of one leaf of one torch result.

    Attributes:
        dtype: of the run.
        device: device type.
        adjoint: "reversible" or "implicit".
        target: "n-step" or "fixed-point": what it was compared with.
        leaf: "z1" or the leaf of the gradient.
        bits: right, of the leaf's greatest component; rigorous.
        stored: bits that the dtype stores.
        index: of the worst component.
        got: what torch returned there.
        expected: the truth there.
        worst: whether this is the worst leaf of its gradient.
    """

    dtype: str
    device: str
    adjoint: str
    target: str
    leaf: str
    bits: float
    stored: int
    index: tuple[int, ...]
    got: float
    expected: str
    worst: bool


@dataclass(frozen=True)
class Certificate:
    """Everything that `certify` found.

    Attributes:
        source: "module:factory" or the name of what was given.
        replay: the command that makes it again.
        scope: "whole", "the first k of B samples" or "one direction".
        beta: relaxation parameter.
        num_steps: N.
        digits: decimal digits that every enclosure has at least.
        bits: working precision at which it succeeded or gave up.
        state: leaf name -> shape.
        leaves: leaf name -> shape, of the gradient.
        operations: the operations of f, by name, with counts.
        casts: casts between floating dtypes in f, which were dropped on purpose.
        ties: comparisons decided between equal exact numbers: f was evaluated exactly on a kink there, and torch's
            one-sided convention was followed.
        findings: the claims and their answers.
        contraction: {"constant", "radius", "lower", "upper", "spectral_radius", "eigenvalues"} or None.
        values: claims' enclosures as decimal strings, for the page: {"z_star": ..., "implicit": ..., "n_step": ...}.
        confirmations: derivatives by differences beside those certified.
        bits_right: one row for each leaf of each torch result.
        not_run: results that could not be had, {"what", "why"}.
        advice: what to change to do better, sentences.
        seconds: stage -> seconds, information only.
        environment: versions of what made it.
        graph: the recorded graph of f, plain JSON.
        proofs: what `recheck.py` proves again.
    """

    source: str
    replay: str
    scope: str
    beta: float
    num_steps: int
    digits: int
    bits: int
    state: dict[str, list[int]]
    leaves: dict[str, list[int]]
    operations: dict[str, int]
    casts: tuple[str, ...]
    ties: int
    findings: tuple[Finding, ...]
    contraction: dict[str, Any] | None
    values: dict[str, Any]
    confirmations: tuple[dict[str, Any], ...]
    bits_right: tuple[LeafBits, ...]
    not_run: tuple[dict[str, str], ...]
    advice: tuple[str, ...]
    seconds: dict[str, float]
    environment: dict[str, str]
    graph: dict[str, Any] = field(repr=False)
    proofs: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def answer(self) -> Answer:
        """Refuted if a finding is, else undecided if one is, else certified; undecided where there is none."""
        answers = {finding.answer for finding in self.findings}
        for answer in (Answer.REFUTED, Answer.UNDECIDED):
            if answer in answers:
                return answer
        return Answer.CERTIFIED if answers else Answer.UNDECIDED

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; floats that JSON cannot hold are the strings "inf", "-inf" and "nan"."""
        fields = asdict(self)
        fields["findings"] = [
            {"claim": finding.claim, "answer": finding.answer.value, "sentence": finding.sentence}
            for finding in self.findings
        ]
        return {"schema": SCHEMA, "version": VERSION, "answer": self.answer.value, **_plain(fields)}

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: the folder does not exist or cannot be written to.
        """
        text = json.dumps(self.to_json(), indent=None, separators=(",", ":"), allow_nan=False) + "\n"
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def read_certificate(path: Path) -> dict[str, Any]:
    """The parsed file, its schema and version checked.

    Raises:
        CertificateError: it is missing, is not JSON, or is of another schema or version.
    """
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CertificateError(
            f"{path} cannot be read ({error.strerror}); give a file that revdeq certify wrote"
        ) from error
    except ValueError as error:
        raise CertificateError(f"{path} is not JSON ({error}); give a file that revdeq certify wrote") from error
    if not isinstance(parsed, dict) or parsed.get("schema") != SCHEMA or parsed.get("version") != VERSION:
        raise CertificateError(f"{path} is not a {SCHEMA} of version {VERSION}; make it again with this version")
    return parsed
