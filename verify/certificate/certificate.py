"""What a certificate says, and the file that holds it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flint import arb

from verify.certificate.answers import Answer, Finding
from verify.certificate.kernel.check import SCHEMA, VERSION, sealed
from verify.certificate.kernel.numbers import number


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
        bits: right, of the leaf's greatest component (of all leaves', if the leaf vanishes beside them); rigorous.
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


class Certificate:
    """Everything that `certify` found.

    Args:
        said: what the file holds, but for its schema and seal.

    Attributes:
        said: the same. What people read ("answer", "findings", "bits_right") follows from the rest by the kernel's
            `conclusions`; "source", "replay", "operations", "casts", "cuts", "advice", "not_run", "seconds" and
            "environment" are for information.
    """

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said

    @property
    def source(self) -> str:
        """Module:factory, or the name of what was given."""
        return self.said["source"]

    @property
    def scope(self) -> str:
        """Whole, "the first k of B samples" or "one direction: ..."."""
        return self.said["scope"]

    @property
    def beta(self) -> float:
        """The relaxation parameter."""
        return self.said["beta"]

    @property
    def num_steps(self) -> int:
        """N."""
        return self.said["num_steps"]

    @property
    def digits(self) -> int:
        """Decimal digits that every enclosure has at least."""
        return self.said["digits"]

    @property
    def bits(self) -> int:
        """Working precision at which it succeeded or gave up."""
        return self.said["bits"]

    @property
    def state(self) -> dict[str, list[int]]:
        """Shape of every leaf of the state."""
        return self.said["state"]

    @property
    def proofs(self) -> list[dict[str, Any]]:
        """What the re-checker proves again."""
        return self.said["proofs"]

    @property
    def not_run(self) -> list[dict[str, str]]:
        """Results that could not be had, {"what", "why"}."""
        return self.said["not_run"]

    @property
    def advice(self) -> list[str]:
        """What to change to do better."""
        return self.said["advice"]

    @property
    def answer(self) -> Answer:
        """Refuted if a finding is, else undecided if one is, else certified."""
        return Answer(self.said["answer"])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The claims and their answers."""
        return tuple(
            Finding(entry["claim"], Answer(entry["answer"]), entry["sentence"]) for entry in self.said["findings"]
        )

    @property
    def bits_right(self) -> tuple[LeafBits, ...]:
        """One row for each leaf of each torch result."""
        return tuple(
            LeafBits(
                dtype=row["dtype"],
                device=row["device"],
                adjoint=row["adjoint"],
                target=row["target"],
                leaf=row["leaf"],
                bits=float(row["bits"]),
                stored=row["stored"],
                index=tuple(row["index"]),
                got=float(row["got"]),
                expected=row["expected"],
                worst=row["worst"],
            )
            for row in self.said["bits_right"]
        )

    def _main(self, kind: str) -> dict[str, Any] | None:
        return next((proof for proof in self.proofs if kind in proof and proof["problem"] == 0), None)

    @property
    def contraction(self) -> dict[str, Any] | None:
        """{"constant", "radius", "lower", "upper", "spectral_radius", "eigenvalues"}, or None without a fixed point.

        The spectral radius is infinite where it was not bounded apart from the norm, that is where the norm may be less
        than 1. The constant is that of the neighbourhood if there is one, else that at the fixed point, with radius 0.
        """
        proof = self._main("norm")
        if proof is None:
            return None
        norm = proof["norm"]
        near = proof.get("contraction", {"constant": norm["upper"], "radius": "0:0"})
        return {
            "constant": float(arb(near["constant"]).upper()),
            "radius": float(number(near["radius"])),
            "lower": float(arb(norm["lower"]).lower()),
            "upper": float(arb(norm["upper"]).upper()),
            "spectral_radius": float(arb(norm["spectral_radius"]).upper()),
            "eigenvalues": self.said["eigenvalues"],
        }

    @property
    def values(self) -> dict[str, Any]:
        """The claimed enclosures as decimal strings: "z_star", "implicit", "z_n", "n_step"."""
        found: dict[str, Any] = {}
        for kind, state, gradient in (("fixed_point", "z_star", "implicit"), ("n_step", "z_n", "n_step")):
            proof = self._main(kind)
            if proof is not None:
                found[state] = proof["solution" if kind == "fixed_point" else "z"]
                if "gradient" in proof:
                    found[gradient] = proof["gradient"]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, sealed; floats that JSON cannot hold are the strings "inf", "-inf" and "nan"."""
        plain = {"schema": SCHEMA, "version": VERSION, **_plain(self.said)}
        return {**plain, "seal": sealed(plain)}

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
