"""For a model too large for a whole certificate: the N-step loss's derivative along one direction, enclosed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flint import arb
from numpy.typing import NDArray

from verify.certificate.answers import Answer, Finding
from verify.certificate.confirmation import direction_of
from verify.certificate.proof import direction_proof, texts
from verify.certificate.settings import Settings
from verify.certificate.source import Source
from verify.certificate.stages import precisions
from verify.certificate.state_map import first_clause
from verify.certificate.torch_run import TorchRunError, run_in_torch
from verify.reference.arithmetic import Array, Undecided
from verify.reference.arithmetic.balls import Balls, filled
from verify.reference.arithmetic.jets import Jets
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Program, Traced


@dataclass(frozen=True)
class Direction:
    """A derivative along one direction, and how near torch's gradient comes to it.

    Attributes:
        findings: of the derivative, and that the rest was not attempted.
        row: {"claim", "by_differences", "certified", "digits", "error_estimate"}, for the page.
        bits: working precision.
        ties: comparisons between equal numbers.
        proofs: for the re-checker.
        not_run: results that could not be had.
    """

    findings: tuple[Finding, ...]
    row: dict[str, Any] | None
    bits: int
    ties: int
    proofs: tuple[dict[str, Any], ...]
    not_run: list[dict[str, str]]


@dataclass(frozen=True)
class DirectionalDerivative:
    """d/dt of <cotangent_z, z_N> + <cotangent_y, y_N> at theta + t v.

    Attributes:
        value: a ball.
        scale: an upper bound of the sum of the absolute values of its terms.
        visited: the points at which f was evaluated, flat, with the derivatives there.
    """

    value: arb
    scale: arb
    visited: tuple[tuple[Array, Array], ...]


def directional_derivative(
    traced: Traced,
    ops: Balls,
    beta: float,
    num_steps: int,
    cotangents: tuple[NDArray[np.float64], NDArray[np.float64]],
    direction: Mapping[str, NDArray[np.float64]],
) -> DirectionalDerivative:
    """Differentiate N steps forward in balls: the forward graph alone is read, no pullback.

    Args:
        traced: the recorded function.
        ops: the balls.
        beta: relaxation parameter, at its stored bits.
        num_steps: N.
        cotangents: dL/dz_N and dL/dy_N, flat.
        direction: v, for every leaf.

    Raises:
        Undecided: a comparison on the way cannot be decided.
    """
    jets, arrays = Jets(ops), traced.arrays()
    moving = {name: jets.jets(ops.convert(arrays[name]), ops.convert(way)) for name, way in direction.items()}
    others = {name: moving.get(name, values) for name, values in arrays.items() if name not in traced.state}
    forward = Program(traced.forward, jets, others)
    with flint_precision(max(ops.bits, 64)):
        a, b = jets.jets(filled([1 - arb(beta)], ()), None), jets.jets(filled([arb(beta)], ()), None)
    visited: list[tuple[Array, Array]] = []

    def flat(state: Mapping[str, Array]) -> tuple[Array, Array]:
        values, tangents = jets.parts(np.concatenate([state[name].reshape(-1) for name in traced.state]))
        return values, ops.convert(np.zeros(values.shape)) if tangents is None else tangents

    def half(old: Mapping[str, Array], at: Mapping[str, Array]) -> dict[str, Array]:
        visited.append(flat(at))
        image = forward(at)
        return {name: jets.add(jets.multiply(a, old[name]), jets.multiply(b, image[name])) for name in old}

    y = z = {name: moving[name] for name in traced.state}
    for _ in range(num_steps):
        y = half(y, z)
        z = half(z, y)
    total, scale = arb(0), arb(0)
    for state, weights in ((z, cotangents[0]), (y, cotangents[1])):
        terms = ops.multiply(flat(state)[1], ops.convert(weights)).tolist()
        with flint_precision(ops.bits):
            total = total + sum(terms, arb(0))
            scale = (scale + sum((abs(term) for term in terms), arb(0))).abs_upper()
    return DirectionalDerivative(total, scale, tuple(visited))


def certify_direction(
    source: Source,
    traced: Traced,
    settings: Settings,
    cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    flat: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Direction:
    """Enclose the derivative of the N-step loss along a seeded direction, and compare float64's gradient with it.

    Args:
        source: the problem for torch.
        traced: the same, recorded.
        settings: beta, N, digits and precision.
        cotangents: by state leaf.
        flat: the same, flat.
    """
    claim = "N-step directional derivative"
    size = sum(traced.values[name].numel() for name in traced.state)
    rest = Finding(
        "fixed point",
        Answer.UNDECIDED,
        f"not attempted: the state has {size} components, above max_components = {settings.max_components}; give "
        "fewer samples or a smaller state for a whole certificate",
    )
    direction = direction_of(traced, traced.leaves)
    reason, bits, found = "", settings.first_bits, None
    for bits in precisions(settings.first_bits, settings.max_bits):
        settings.progress(f"differentiating along one direction at {bits} bits")
        ops = Balls(bits)
        try:
            found = directional_derivative(traced, ops, settings.beta, settings.num_steps, flat, direction)
        except Undecided as undecided:
            reason = f"a step meets a kink ({first_clause(undecided)})"
            continue
        if ops.ties:
            reason = f"f was evaluated exactly on a kink ({ops.ties} comparisons of equal numbers)"
            break
        if found.value.rad() <= found.scale * arb(10) ** -settings.digits:
            return _compared(source, traced, settings, cotangents, flat, direction, found, ops, rest)
        reason = f"the enclosure is wider than {settings.digits} digits"
    given_up = Finding(claim, Answer.UNDECIDED, f"given up at {bits} bits: {reason}")
    return Direction((given_up, rest), None, bits, 0, (), [])


def _compared(
    source: Source,
    traced: Traced,
    settings: Settings,
    cotangents: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    flat: tuple[NDArray[np.float64], NDArray[np.float64]],
    direction: Mapping[str, NDArray[np.float64]],
    found: DirectionalDerivative,
    ops: Balls,
    rest: Finding,
) -> Direction:
    claim, beta, num_steps = "N-step directional derivative", settings.beta, settings.num_steps
    proof = direction_proof(traced, ops.bits, beta, flat, direction, found.visited, found.value, settings.digits)
    (shown,) = texts(filled([found.value], (1,)), settings.digits)
    sentence = f"along one seeded direction it is enclosed to {settings.digits} digits at {ops.bits} bits"
    row: dict[str, Any] = {"claim": claim, "by_differences": "not taken", "certified": shown, "digits": 0.0}
    row["error_estimate"] = float(found.value.rad())
    not_run: list[dict[str, str]] = []
    try:
        run = run_in_torch(source, traced, torch.float64, "cpu", beta, num_steps, cotangents, "reversible")
    except TorchRunError as failure:
        not_run.append({"what": "float64 reversible on cpu", "why": str(failure)})
    else:
        got = math.fsum(
            float(part) for name in traced.leaves for part in (run.gradient[name] * direction[name]).ravel()
        )
        with flint_precision(ops.bits):
            size = found.value.abs_upper()
            distance = (arb(got) - found.value).abs_upper() / (size if size > 0 else arb(1))
        row["digits"] = math.inf if distance == 0 else -math.log10(float(distance))
        row["by_differences"] = f"not taken; torch's float64 gradient gives {got!r}"
        sentence += f"; torch's float64 gradient agrees with it in {row['digits']:.1f} digits"
    findings = (Finding(claim, Answer.CERTIFIED, sentence), rest)
    return Direction(findings, row, ops.bits, ops.ties, (proof,), not_run)
