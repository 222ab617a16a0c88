"""The parts of a certificate, each at a precision that rises until the enclosure is narrow enough or it gives up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flint import arb

from revdeq.rates import worst_rate
from verify.certificate.approximate import FloatMap, approximate_fixed_point
from verify.certificate.contraction import Contraction, contraction
from verify.certificate.fixed_point import Absence, Enclosure, batch_of, enclose_fixed_point, refute_fixed_point
from verify.certificate.kernel.code import Run
from verify.certificate.kernel.numbers import Failed, OtherBranch
from verify.certificate.kernel.problem import Problem, Proved
from verify.certificate.kernel.prove import compare_implicit, compare_steps, prove_implicit, prove_steps
from verify.certificate.kernel.steps import Steps
from verify.certificate.recorder import Recorder
from verify.certificate.settings import Settings
from verify.certificate.state_map import StateMap, all_finite, box, first_clause
from verify.reference.arithmetic import Undecided
from verify.reference.arithmetic.precision import flint_precision
from verify.reference.graph import Traced, UnsupportedOperationError


REACHES = (1e6, 1e3, 10.0, 1.0, 0.125)
"""Distances from z0 within which a fixed point is proved to be absent, largest first, where none was found."""


BRANCHES_ON_COTANGENT = "torch's backward compares numbers that depend on its cotangent, so no one tape of it holds"


@dataclass
class Part:
    """One part of a certificate, as far as it was proved.

    Attributes:
        function: f in balls at the last precision.
        proved: what the re-checker will find of it, or None.
        given_up: claim -> why nothing is said of it.
        torch: the tapes of torch's backward, or None where it could not be compared.
        enclosure, contraction, absence: of the fixed point.
        steps: of the N steps.
    """

    function: StateMap
    proved: Proved | None = None
    given_up: dict[str, str] = field(default_factory=dict[str, str])
    torch: list[str] | None = None
    enclosure: Enclosure | None = None
    contraction: Contraction | None = None
    absence: Absence | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class Task:
    """A problem to be proved.

    Attributes:
        traced: the function at the problem's values.
        recorder: of its program.
        problem: its numbers, as the re-checker reads them.
        uncovered: why torch's backward cannot be compared, or "".
    """

    traced: Traced
    recorder: Recorder
    problem: Problem
    uncovered: str


def precisions(first: int, last: int) -> Iterator[int]:
    """Working precisions, doubled until the last."""
    bits = first
    while bits < last:
        yield bits
        bits *= 2
    yield last


def fixed_point_part(task: Task, settings: Settings, *, main: bool = True, with_torch: bool = True) -> Part:
    """Find a fixed point in floating arithmetic, prove it, and enclose the implicit gradient.

    Args:
        task: the problem.
        settings: precision, size limits.
        main: whether to bound the contraction constant, too.
        with_torch: whether to compare torch's backward.
    """
    function = StateMap(task.traced, task.recorder, settings.first_bits, settings.progress)
    width = function.size // batch_of(function)
    if width > settings.max_width:
        sentence = (
            f"not attempted: {width} components per sample, above max_width = {settings.max_width}; raise max_width "
            "and allow for one pullback in balls for each component"
        )
        return Part(function, given_up={"fixed point": sentence})
    start = approximate_fixed_point(
        FloatMap(task.traced), function if function.size <= 4 * settings.max_width else None
    )
    if start is None:
        absence = next(filter(None, (refute_fixed_point(function, reach) for reach in REACHES)), None)
        if absence is not None:
            return Part(function, Proved("no_fixed_point", function.bits), absence=absence)
        return Part(function, given_up={"fixed point": _not_found(function)})
    part, reason = Part(function), ""
    for bits in precisions(settings.first_bits, settings.max_bits):
        if bits != function.bits:
            function = StateMap(task.traced, task.recorder, bits, settings.progress)
        enclosure, reason = enclose_fixed_point(function, start)
        if enclosure is None:
            if "singular" in reason:
                break
            continue
        before = part.proved.unknown if part.proved is not None else None
        part = Part(function, Proved("fixed_point", bits), enclosure=enclosure)
        if _implicit(task, part, with_torch, before):
            break
    if part.proved is None or part.enclosure is None:
        return Part(function, given_up={"fixed point": f"given up at {function.bits} bits: {reason}"})
    if main:
        part.contraction = contraction(part.function, part.enclosure)
    return part


def _implicit(task: Task, part: Part, with_torch: bool, before: dict[str, str] | None) -> bool:
    """Enclose the implicit gradient; whether more precision would not help."""
    proved, enclosure, machine = part.proved, part.enclosure, part.function.machine
    assert proved is not None
    assert enclosure is not None
    region = box(enclosure.center, enclosure.radius)
    try:
        at = part.function.run("torch", enclosure.solution) if with_torch and not task.uncovered else None
    except (Undecided, UnsupportedOperationError) as undecided:
        at = None
        part.given_up["implicit gradient confirmed"] = f"torch's backward is unknown there ({first_clause(undecided)})"
    with flint_precision(proved.bits):
        proved.state, proved.blocks = enclosure.solution, enclosure.blocks
        try:
            w, back = prove_implicit(machine, task.problem, proved, enclosure.tape, region)
        except Failed as failed:
            part.given_up["implicit gradient"] = f"given up at {proved.bits} bits: {failed}"
            return False
        if at is not None:
            try:
                compare_implicit(machine, task.problem, proved, w, back, at)
                part.torch = [at.tape]
            except OtherBranch:
                proved.without_torch()
                part.given_up["implicit gradient confirmed"] = BRANCHES_ON_COTANGENT
    if task.uncovered:
        part.given_up["implicit gradient confirmed"] = task.uncovered
    return not proved.unknown or _is_on_a_kink(part.function, proved.unknown, before)


def _is_on_a_kink(function: StateMap, unknown: dict[str, str], before: dict[str, str] | None) -> bool:
    """Whether two equal numbers were compared, and twice the precision knew no more leaves than half of it."""
    exactly = function.machine.kinks > 0 or function.machine.ties > 0
    return exactly and "wide" not in unknown.values() and unknown == before


def _not_found(function: StateMap) -> str:
    try:
        finite = all_finite(function.value(function.point(function.start)))
    except Undecided:
        finite = True
    if not finite:
        return "f(z0) is not finite, so the search for a fixed point cannot begin; give a z0 inside the domain of f"
    return (
        "no fixed point was found from z0, neither by averaged iteration nor by Newton's method; start nearer to one, "
        "or make f a contraction"
    )


def n_step_part(task: Task, settings: Settings, contraction_constant: float, *, with_torch: bool = True) -> Part:
    """Enclose z_N and the N-step gradient.

    The precision starts at no less than 64 + 2 N log2 rho(Rv) bits (T7), though the states are kept here, not rebuilt.

    Args:
        task: the problem.
        settings: beta, N, precision.
        contraction_constant: of f, for the starting precision.
        with_torch: whether to compare torch's backward.
    """
    rho = worst_rate(settings.beta, contraction_constant) / (1 - settings.beta) ** 2
    grown = 64 + math.ceil(2 * settings.num_steps * math.log2(max(1.0, rho)))
    first = min(max(settings.first_bits, grown), settings.max_bits)
    part, reason = Part(StateMap(task.traced, task.recorder, first, settings.progress)), ""
    for bits in precisions(first, settings.max_bits):
        function = StateMap(task.traced, task.recorder, bits, settings.progress)
        proved = Proved("n_step", bits)
        try:
            with flint_precision(bits):
                steps = prove_steps(function.machine, task.problem, proved, _counted(function, settings))
        except Undecided as undecided:
            part, reason = Part(function), f"a step meets a kink ({first_clause(undecided)})"
            continue
        if not all_finite([*steps.z, *steps.y]):
            part, reason = Part(function), "f is not finite at a state on the way, or not known to be"
            continue
        before = part.proved.unknown if part.proved is not None else None
        part = Part(function, proved, steps=steps)
        if not proved.unknown or _is_on_a_kink(function, proved.unknown, before):
            break
    if part.proved is None or part.steps is None:
        part.given_up["N-step gradient"] = f"given up at {part.function.bits} bits: {reason}"
    elif with_torch:
        _compare_steps(task, part, part.proved, part.steps)
    return part


def _counted(function: StateMap, settings: Settings) -> Callable[[int, list[arb]], Run]:
    def evaluate(k: int, at: list[arb]) -> Run:
        function.progress(f"enclosing the N steps: step {k // 2 + 1} of {settings.num_steps} at {function.bits} bits")
        return function.run("f", at)

    return evaluate


def _compare_steps(task: Task, part: Part, proved: Proved, steps: Steps) -> None:
    claim = "N-step gradient confirmed"
    if task.uncovered:
        part.given_up[claim] = task.uncovered
        return
    try:
        runs = [part.function.run("torch", at) for at in steps.points]
    except (Undecided, UnsupportedOperationError) as undecided:
        part.given_up[claim] = f"torch's backward is unknown at a step ({first_clause(undecided)})"
        return
    with flint_precision(proved.bits):
        try:
            compare_steps(part.function.machine, task.problem, proved, runs)
        except OtherBranch:
            proved.without_torch()
            part.given_up[claim] = BRANCHES_ON_COTANGENT
            return
    part.torch = [run.tape for run in runs]
