"""A certificate for a whole box of inputs: equilibria, how far they move, and what a classifier decides there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flint import arb
from numpy.typing import NDArray

from verify.certificate.alone import recheck_program
from verify.certificate.answers import Answer, Finding
from verify.certificate.approximate import FloatMap, approximate_fixed_point
from verify.certificate.fixed_point import Enclosure, enclose_fixed_point
from verify.certificate.kernel.check import sealed
from verify.certificate.kernel.fixed_points import NORM_BITS, jacobian
from verify.certificate.kernel.numbers import Failed, OtherBranch, packed
from verify.certificate.kernel.prove import moved
from verify.certificate.kernel.sets import (
    SET_DIGITS,
    SET_SCHEMA,
    SET_VERSION,
    Neighbourhood,
    ProvedSet,
    readout_of,
    set_findings,
    slopes_by,
)
from verify.certificate.linear_algebra import exact_matrix, float_matrix
from verify.certificate.posed import check_finite
from verify.certificate.recorder import Recorder
from verify.certificate.recording import exact_text
from verify.certificate.source import source_from
from verify.certificate.state_map import StateMap, first_clause
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import check_covered, trace
from verify.reference.graph.conversion import exact_values


BITS = 128
"""Of the fixed point in the middle; over the boxes `NORM_BITS` are taken."""

INFLATIONS = 16
ROOM = 1.0625
"""How often a box of states is widened until Krawczyk's operator maps it into itself, and by how much more than that
reaches."""

LEAST, MOST = 2.0**-40, 2.0**20
"""Between what the radii of the box of states are looked for."""


@dataclass(frozen=True)
class SetCertificate:
    """What is proved for every input of a box.

    Attributes:
        said: what the file holds.
    """

    said: dict[str, Any]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The claims with their answers."""
        return tuple(
            Finding(entry["claim"], Answer(entry["answer"]), entry["sentence"]) for entry in self.said["findings"]
        )

    @property
    def lipschitz(self) -> dict[str, float] | None:
        """Bounds of |z*(x) - z*(x')| / |x - x'| in the "greatest" and the "euclidean" norm, if proved."""
        given = self.said["lipschitz"]
        return None if given is None else {norm: float(arb(text).upper()) for norm, text in given.items()}

    @property
    def decision(self) -> int | None:
        """The class of the greatest logit in the middle of the box."""
        return self.said["decision"]

    @property
    def robust(self) -> bool:
        """Whether the decision is certified for the whole box."""
        return any(found.claim == "decision" and found.answer is Answer.CERTIFIED for found in self.findings)

    def write(self, folder: str | Path) -> None:
        """Write certificate.json and recheck.py into a folder, which is made."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.said, allow_nan=False)
        (folder / "certificate.json").write_text(text, encoding="utf-8")
        (folder / "recheck.py").write_text(recheck_program(), encoding="utf-8")


def certify_set(
    source: str | Callable[[], Any] | tuple[Callable[[Any, Any], Any], Any, Any],
    *,
    radius: float,
    leaf: str = "args",
    readout: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> SetCertificate:
    """Certify the equilibria of f for every input within a radius of the given one.

    Args:
        source: "module:factory", a factory, or its result (function, z0, args); z0 is where the search begins.
        radius: how far each component of the leaf may be from its value, > 0, in units of the leaf.
        leaf: the input that is moved: "args", "args.name", or any other leaf of a certificate.
        readout: weight of shape (classes, n) and bias of shape (classes,) of logits W z + b of the flat state; their
            numbers are taken exactly.

    Returns:
        The certificate, whose findings are certified or undecided.

    Raises:
        SourceError, TracingError, UnsupportedOperationError: as `certify`.
        ValueError: the radius is not positive, there is no such leaf, or the readout has another shape.

    References:
        E. Wong, J. Z. Kolter, arXiv 1711.00851 (certified decisions); C. Pabbaraju, E. Winston, J. Z. Kolter,
        Estimating Lipschitz constants of monotone deep equilibrium models, ICLR 2021.
    """
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius is {radius!r}; it must be positive and finite")
    given = source_from(source)
    traced = trace(given.function, given.z0, given.args, with_backward=False)
    check_finite(traced)
    check_covered(traced.forward)
    recorder = Recorder(traced)
    function = StateMap(traced, recorder, BITS)
    if leaf not in function.machine.values:
        raise ValueError(f"there is no leaf {leaf!r}; there are {', '.join(function.machine.values)}")
    said: dict[str, Any] = {
        "schema": SET_SCHEMA,
        "version": SET_VERSION,
        "source": given.name,
        "leaf": leaf,
        "radius": float(radius),
        "values": {
            name: packed(exact_values(traced.values[name]).ravel().tolist()) for name in function.machine.values
        },
        "readout": _readout(readout, function.size),
        "proof": None,
        "given_up": "",
        **dict.fromkeys(("solution", "lipschitz", "decision")),
        "margins": [],
    }
    proved: ProvedSet | None = None
    start = approximate_fixed_point(FloatMap(traced), function)
    enclosure, reason = (None, "no fixed point was found from z0") if start is None else _enclosed(function, start)
    if enclosure is None:
        said["given_up"] = f"{reason}; start nearer to one"
    else:
        proved = _over_inputs(function, enclosure, said)
    said["program"] = recorder.program()
    said["findings"] = set_findings(said, proved)
    # As a reader of the file will have it, so that the seal is that of what he reads.
    said = json.loads(json.dumps(said, allow_nan=False))
    return SetCertificate({**said, "seal": sealed(said)})


def _enclosed(function: StateMap, start: Any) -> tuple[Enclosure | None, str]:
    found, reason = enclose_fixed_point(function, start, samples=1)
    return found, f"the fixed point of the given input is not proved: {reason}"


def _readout(given: tuple[torch.Tensor, torch.Tensor] | None, size: int) -> dict[str, str] | None:
    if given is None:
        return None
    weight, bias = given
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or weight.shape[1] != size or len(bias) < 2:
        raise ValueError(
            f"the readout has shapes {tuple(weight.shape)} and {tuple(bias.shape)}; give a weight of shape "
            f"(classes, {size}), for the state has {size} components, and a bias of shape (classes,)"
        )
    return {
        "weight": packed(exact_values(weight).ravel().tolist()),
        "bias": packed(exact_values(bias).ravel().tolist()),
    }


def _over_inputs(function: StateMap, enclosure: Enclosure, said: dict[str, Any]) -> ProvedSet | None:
    """Widen a box of states until Krawczyk's operator maps it into itself for every input."""
    leaf, radius, point = said["leaf"], arb(said["radius"]), enclosure.solution
    with flint_precision(NORM_BITS):
        around = moved(function.machine, leaf, radius)
        radii: NDArray[np.float64] = np.full(function.size, LEAST)
        for _ in range(INFLATIONS):
            allowed = [arb(r) for r in radii.tolist()]
            region = [z + arb(0, r) for z, r in zip(point, allowed, strict=True)]
            try:
                tape = function.recorder.record("f", NORM_BITS, region, around.values)
                run = around.run(tape, region)
            except (Undecided, OtherBranch) as undecided:
                why = f"a comparison in f is not decided for all inputs ({first_clause(undecided)})"
                said["given_up"] = f"{why}; a smaller radius may be decided"
                return None
            derivative = jacobian(around, run, 1)[0]
            system: NDArray[np.float64] = np.eye(function.size) - float_matrix(derivative)
            if not np.all(np.isfinite(system)) or np.linalg.matrix_rank(system) < function.size:
                break
            inverse: NDArray[np.float64] = np.asarray(np.linalg.inv(system), np.float64)
            near = Neighbourhood(derivative, slopes_by(around, run, leaf), exact_matrix(inverse))
            if all(r < most for r, most in zip(near.spread(radius, allowed), allowed, strict=True)):
                try:
                    proved = ProvedSet(point, near.slopes(), radius, allowed, readout_of(said, function.size))
                except Failed:
                    break
                _claim(said, enclosure, {"around": tape, "radii": radii, "preconditioner": inverse}, proved)
                return proved
            wider = _wider(near, float(radius), radii)
            if not np.all(wider < MOST):
                break
            radii = np.maximum(radii, wider)
    said["given_up"] = (
        "no box of states was found that Krawczyk's operator maps into itself for all inputs; give a smaller radius"
    )
    return None


def _wider(near: Neighbourhood, radius: float, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least radii that would do if the derivatives over them were those that were found, with some room."""
    remainder, moves = (
        np.array([float(abs(entry).upper()) for entry in matrix.entries()]).reshape(len(radii), -1)
        for matrix in (near.remainder, near.moves)
    )
    from_inputs = moves.sum(1) * radius
    if np.all(np.isfinite(remainder)) and np.max(np.abs(np.linalg.eigvals(remainder))) < 1:
        return np.asarray(ROOM * np.linalg.solve(np.eye(len(radii)) - remainder, from_inputs) + LEAST, np.float64)
    return np.asarray(ROOM * (from_inputs + remainder @ radii), np.float64)


def _claim(said: dict[str, Any], enclosure: Enclosure, box: dict[str, Any], proved: ProvedSet) -> None:
    said["proof"] = {
        "bits": BITS,
        "tape": enclosure.tape,
        "center": [exact_text(ball) for ball in enclosure.center],
        "radius": exact_text(enclosure.radius),
        "inverse": packed(enclosure.inverses[0].ravel().tolist()),
        "around": box["around"],
        "radii": packed(box["radii"].tolist()),
        "preconditioner": packed(box["preconditioner"].ravel().tolist()),
    }
    # A re-checker's sums may run in another order, so there is room in the last places.
    room = arb(2) ** -20
    # In full: a decimal text of the digits that are sure alone would be several times as wide.
    with flint_precision(NORM_BITS):
        said["solution"] = [(ball + arb(0, ball.rad() * room)).str(SET_DIGITS, more=True) for ball in proved.state]
    said["lipschitz"] = {norm: (bound * (1 + room)).str(SET_DIGITS) for norm, bound in proved.lipschitz.items()}
    said["decision"] = proved.decision
    said["margins"] = [(margin - abs(margin) * room).str(SET_DIGITS) for margin in proved.margins.values()]
