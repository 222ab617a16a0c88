"""The parts of a certificate, each at a precision that rises until the enclosure is narrow enough or it gives up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flint import arb
from numpy.typing import NDArray

from revdeq.rates import worst_rate
from verify.certificate.answers import Answer, Finding
from verify.certificate.approximate import FloatMap, approximate_fixed_point
from verify.certificate.contraction import Contraction, contraction
from verify.certificate.fixed_point import Absence, Enclosure, enclose_fixed_point, refute_fixed_point
from verify.certificate.implicit import implicit_gradient
from verify.certificate.n_step import Steps, n_steps
from verify.certificate.settings import Settings
from verify.certificate.state_map import StateMap, all_finite, first_clause, greatest_radius, greatest_size
from verify.reference.arithmetic import Array, Undecided
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Traced


REACHES = (1e6, 1e3, 10.0, 1.0, 0.125)
"""Distances from z0 within which a fixed point is proved to be absent, largest first, where none was found."""


@dataclass(frozen=True)
class FixedPointStage:
    """The fixed point, its contraction constant and its implicit gradient, as far as they were proved.

    Attributes:
        findings: the answers.
        enclosure: of the fixed point, or None.
        contraction: near it, or None.
        gradient: implicit, by leaf, or None.
        function: f in balls at the last precision.
        absence: the proof that there is none near z0, or None.
    """

    findings: tuple[Finding, ...]
    enclosure: Enclosure | None
    contraction: Contraction | None
    gradient: dict[str, Array] | None
    function: StateMap
    absence: Absence | None = None


@dataclass(frozen=True)
class StepsStage:
    """The N-step map and its gradient, as far as they were proved."""

    findings: tuple[Finding, ...]
    steps: Steps | None
    function: StateMap


def precisions(first: int, last: int) -> Iterator[int]:
    """Working precisions, doubled until the last."""
    bits = first
    while bits < last:
        yield bits
        bits *= 2
    yield last


def is_narrow(balls: Mapping[str, Array], digits: int) -> bool:
    """Whether every leaf's radius is at most 10^-digits of its greatest component (of all leaves', if it is 0)."""
    if not all(all_finite(leaf) for leaf in balls.values()):
        return False
    with flint_precision(64):
        greatest = max((float(greatest_size(leaf)) for leaf in balls.values()), default=0.0)
        for leaf in balls.values():
            size = greatest_size(leaf)
            scale = size if size > greatest * 2.0**-60 else arb(greatest)
            if not greatest_radius(leaf) <= scale * arb(10) ** -digits:
                return False
    return True


def fixed_point_stage(
    traced: Traced, settings: Settings, cotangent: NDArray[np.float64], *, with_contraction: bool
) -> FixedPointStage:
    """Find a fixed point in floating arithmetic, prove it, and enclose the implicit gradient.

    Args:
        traced: the function.
        settings: digits, precision, size limits.
        cotangent: c of <c, z*>, flat.
        with_contraction: whether to bound the contraction constant, too.
    """
    function = StateMap(traced, settings.first_bits, settings.progress)
    width = function.size // max(1, _batch(traced))
    if width > settings.max_width:
        sentence = (
            f"not attempted: {width} components per sample, above max_width = {settings.max_width}; raise max_width "
            "and allow for one pullback in balls for each component"
        )
        return FixedPointStage((Finding("fixed point", Answer.UNDECIDED, sentence),), None, None, None, function)
    start = approximate_fixed_point(FloatMap(traced), newton=function.size <= 4 * settings.max_width)
    if start is None:
        absence = next(filter(None, (refute_fixed_point(function, reach) for reach in REACHES)), None)
        finding = _not_found(function) if absence is None else absence.finding
        return FixedPointStage((finding,), None, None, None, function, absence)
    reason = ""
    enclosure: Enclosure | None = None
    for bits in precisions(settings.first_bits, settings.max_bits):
        if bits != function.ops.bits:
            function = StateMap(traced, bits, settings.progress)
        enclosure, reason = enclose_fixed_point(function, start)
        if enclosure is None:
            if "singular" in reason:
                break
            continue
        gradient = implicit_gradient(function, enclosure, function.ops.convert(cotangent))
        if gradient is not None and is_narrow({**gradient, "z*": enclosure.solution}, settings.digits):
            near = contraction(function, enclosure) if with_contraction else None
            found = (Finding("fixed point", Answer.CERTIFIED, reason),)
            found += (near.finding,) if near is not None else ()
            sentence = f"the gradient of <c, z*> is enclosed to {settings.digits} digits at {bits} bits"
            found += (Finding("implicit gradient", Answer.CERTIFIED, sentence),)
            return FixedPointStage(found, enclosure, near, gradient, function)
        reason = f"{reason}, but the implicit gradient is wider than {settings.digits} digits"
    if enclosure is not None:
        claims = (
            Finding("fixed point", Answer.CERTIFIED, "one and only one fixed point near the center, enclosed"),
            Finding("implicit gradient", Answer.UNDECIDED, f"given up at {function.ops.bits} bits: {reason}"),
        )
        near = contraction(function, enclosure) if with_contraction else None
        claims += (near.finding,) if near is not None else ()
        return FixedPointStage(claims, enclosure, near, None, function)
    undecided = Finding("fixed point", Answer.UNDECIDED, f"given up at {function.ops.bits} bits: {reason}")
    return FixedPointStage((undecided,), None, None, None, function)


def _batch(traced: Traced) -> int:
    shapes = [traced.values[name].shape for name in traced.state]
    return int(shapes[0][0]) if len(shapes) == 1 and len(shapes[0]) >= 2 else 1


def _not_found(function: StateMap) -> Finding:
    try:
        finite = all_finite(function.value(function.ops.convert(function.start)))
    except Undecided:
        finite = True
    if not finite:
        return Finding(
            "fixed point",
            Answer.UNDECIDED,
            "f(z0) is not finite, so the search for a fixed point cannot begin; give a z0 inside the domain of f",
        )
    return Finding(
        "fixed point",
        Answer.UNDECIDED,
        "no fixed point was found from z0, neither by averaged iteration nor by Newton's method; start nearer to one, "
        "or make f a contraction",
    )


def n_step_stage(
    traced: Traced,
    settings: Settings,
    cotangents: tuple[NDArray[np.float64], NDArray[np.float64]],
    contraction_constant: float,
) -> StepsStage:
    """Enclose z_N and the N-step gradient.

    The precision starts at no less than 64 + 2 N log2 rho(Rv) bits (T7), though the states are kept here, not rebuilt.

    Args:
        traced: the function.
        settings: beta, N, digits, precision.
        cotangents: dL/dz_N and dL/dy_N, flat.
        contraction_constant: of f, for the starting precision.
    """
    rho = worst_rate(settings.beta, contraction_constant) / (1 - settings.beta) ** 2
    grown = 64 + math.ceil(2 * settings.num_steps * math.log2(max(1.0, rho)))
    first = min(max(settings.first_bits, grown), settings.max_bits)
    function = StateMap(traced, first, settings.progress)
    reason = ""
    for bits in precisions(first, settings.max_bits):
        function = StateMap(traced, bits, settings.progress) if bits != function.ops.bits else function
        balls = [function.ops.convert(cotangent) for cotangent in cotangents]
        try:
            steps = n_steps(function, settings.beta, settings.num_steps, balls[0], balls[1])
        except Undecided as undecided:
            reason = f"a step meets a kink ({first_clause(undecided)})"
            continue
        if is_narrow({**steps.gradient, "z_N": steps.z}, settings.digits):
            sentence = (
                f"z_{settings.num_steps} and its gradient are enclosed to {settings.digits} digits at {bits} bits"
            )
            return StepsStage((Finding("N-step gradient", Answer.CERTIFIED, sentence),), steps, function)
        wide = f"the enclosure is wider than {settings.digits} digits"
        reason = wide if all_finite(steps.z) else "f is not finite at a state on the way, or not known to be"
    finding = Finding("N-step gradient", Answer.UNDECIDED, f"given up at {function.ops.bits} bits: {reason}")
    return StepsStage((finding,), None, function)
