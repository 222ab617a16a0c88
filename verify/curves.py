"""The curves of the report: errors against evaluations and steps, with what theory and rounding predict for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from verify.case import Case
from verify.plan import CurveKey, PlannedCurve
from verify.problems import get_problem
from verify.reference import difference
from verify.reference.arithmetic.protocol import Array
from verify.result import Curve
from verify.subject import Adjoint
from verify.trial.counted import kept_bytes
from verify.trial.decay import iterates, predicted_rate, steps_to_fall
from verify.trial.observation import observe
from verify.trial.ratio import rms
from verify.trial.trial import Trial, to_numpy


PRECISIONS = (("float64", "float64"), ("float32", "float64"), ("float32", "float32"), ("bfloat16", "bfloat16"))
"""(dtype of f, dtype of the states)."""

TARGETS = ("n-step", "fixed-point")
MEMORY_ADJOINTS: tuple[Adjoint, ...] = ("reversible", "unrolled", "implicit")
PREDICTED: tuple[Adjoint, str] = ("reversible", "n-step")
"""The adjoint and the target whose error is predicted."""

ERROR_AXES = ("evaluations of f, forward (count)", "relative error of the gradient")
RECONSTRUCTION_AXES = ("number of steps N", "error of the rebuilt start, relative to the final state")
CONVERGENCE_AXES = ("number of steps n", "relative distance of z_n from the fixed point")
MEMORY_AXES = ("number of steps N", "bytes kept between forward and backward")

SOLVER = "reversible"
MEMORY_BETA = 0.5
MEMORY_STEPS = (1, 2, 4, 8, 16, 32)
MOST_ITERATES = 400
MOST_POINTS = 64

TrialOf = Callable[[Case], Trial]


def measure_curves(
    problem: str, beta: float, device: str, steps: Sequence[int], trial_of: TrialOf, judged: Container[int] = ()
) -> list[Curve]:
    """All curves of a problem and a beta.

    Args:
        problem: name of the problem.
        beta: relaxation parameter.
        device: device type.
        steps: step counts at which curves have points.
        trial_of: case -> trial, so that what the checks observed is not observed again.
        judged: the step counts at which the gate judges, where what rounding does is predicted too.
    """
    curves: list[Curve] = []
    for dtype, state_dtype in PRECISIONS:
        trials = [trial_of(Case(problem, beta, n, dtype, state_dtype, device)) for n in steps]
        curves += _error_curves(trials, judged)
        curves.append(_reconstruction_curve(trials, judged))
        curves.append(_convergence_curve(trials[0]))
    if beta == MEMORY_BETA:
        probe = trial_of(Case(problem, beta, MEMORY_STEPS[0], device=device))
        curves += [_memory_curve(probe, adjoint) for adjoint in MEMORY_ADJOINTS]
    return curves


def planned_curves(
    problem: str, beta: float, device: str, steps: Sequence[int]
) -> Iterator[tuple[CurveKey, PlannedCurve]]:
    """The curves of a problem and a beta; see `measure_curves`."""

    def key(name: str, dtype: str, state_dtype: str, adjoint: str = "", target: str = "") -> CurveKey:
        return name, problem, SOLVER, adjoint, target, beta, dtype, state_dtype, device

    for dtype, state_dtype in PRECISIONS:
        evaluations, numbers = tuple(2.0 * n for n in steps), tuple(float(n) for n in steps)
        for adjoint in error_adjoints(problem):
            for target in TARGETS:
                exact = (adjoint, target) == PREDICTED
                yield (
                    key("error-vs-evaluations", dtype, state_dtype, adjoint, target),
                    PlannedCurve(ERROR_AXES, evaluations, exact),
                )
        yield key("reconstruction", dtype, state_dtype, "reversible"), PlannedCurve(RECONSTRUCTION_AXES, numbers, True)
        yield key("convergence", dtype, state_dtype), PlannedCurve(CONVERGENCE_AXES)
    if beta == MEMORY_BETA:
        numbers = tuple(float(n) for n in MEMORY_STEPS)
        for adjoint in MEMORY_ADJOINTS:
            flat = adjoint == PREDICTED[0]
            yield key("memory", "float64", "float64", adjoint), PlannedCurve(MEMORY_AXES, numbers, flat)


def error_adjoints(problem: str) -> tuple[Adjoint, ...]:
    """The adjoints whose error is drawn: the implicit one where the fixed point attracts."""
    adjoints: tuple[Adjoint, ...] = ("reversible", "default", "implicit")
    return adjoints if get_problem(problem).contracts else adjoints[:2]


def _error_curves(trials: Sequence[Trial], judged: Container[int]) -> list[Curve]:
    """Relative error of the whole gradient, for the exact and the implicit adjoint, to both targets."""
    curves: list[Curve] = []
    for adjoint in error_adjoints(trials[0].case.problem):
        for target in TARGETS:
            points = [_error(trial, adjoint, target) for trial in trials]
            predicted = None
            if (adjoint, target) == PREDICTED:
                predicted = tuple(_predicted_error(trial, judged) for trial in trials)
            curves.append(
                _curve(
                    trials[0].case,
                    name="error-vs-evaluations",
                    adjoint=adjoint,
                    target=target,
                    axes=ERROR_AXES,
                    x=tuple(2.0 * trial.case.num_steps for trial in trials),
                    y=tuple(error for error, _ in points),
                    predicted=predicted,
                    band=tuple(uncertainty for _, uncertainty in points),
                )
            )
    return curves


def _error(trial: Trial, adjoint: Adjoint, target: str) -> tuple[float, float]:
    """(||g - reference|| / ||reference||, uncertainty of the reference likewise), NaN where there is no gradient."""
    case = trial.case
    if target == "n-step":
        step = trial.references.n_step(trial.problem, case.beta, case.num_steps)
        expected, uncertainty = step.gradient, step.uncertainty
    else:
        fixed = trial.references.fixed_point(trial.problem)
        expected, uncertainty = fixed.gradient, fixed.uncertainty
    # A fixed point does not depend on its start: z0 is left out wherever an implicit gradient takes part.
    leaves = [leaf for leaf in expected if leaf != "z0" or (target == "n-step" and adjoint != "implicit")]
    size = math.hypot(*(_norm(expected[leaf]) for leaf in leaves))
    doubt = math.hypot(*(uncertainty[leaf] * math.sqrt(expected[leaf].size) for leaf in leaves)) / size
    gradients = _gradients(trial, adjoint)
    total = 0.0
    for leaf in leaves:
        got = gradients.get(leaf)
        if got is None:
            return math.nan, doubt
        total = math.hypot(total, float(np.linalg.norm(difference(got, expected[leaf]))))
    return total / size, doubt


def _gradients(trial: Trial, adjoint: Adjoint) -> dict[str, NDArray[np.float64] | None]:
    """The subject's gradients; none where it refuses, which the curve shows as a gap.

    The implicit ones are asked for to three quarters of the digits of f's dtype: the checks want more room between the
    tolerance and rounding, which in a narrow dtype leaves nothing of the gradient.
    """
    try:
        if adjoint == "implicit":
            case = trial.case
            settings = trial.settings(adjoint, tolerance=(2.0 * case.unit_roundoff) ** 0.75)
            seen = observe(trial.subject, trial.problem, settings, case.torch_dtype, case.device)
        else:
            seen = trial.observe(adjoint)
    except (ArithmeticError, RuntimeError):
        return {}
    return {leaf: None if value is None else to_numpy(value) for leaf, value in seen.gradients.items()}


def _predicted_error(trial: Trial, judged: Container[int]) -> float:
    """What rounding alone does to the whole gradient, relative; NaN at step counts that the gate does not judge."""
    case = trial.case
    if case.num_steps not in judged:
        return math.nan
    expected = trial.references.n_step(trial.problem, case.beta, case.num_steps).gradient
    spread = trial.scale().gradient
    scale = math.hypot(*(spread[leaf] * math.sqrt(value.size) for leaf, value in expected.items()))
    return scale / math.hypot(*(_norm(value) for value in expected.values()))


def _reconstruction_curve(trials: Sequence[Trial], judged: Container[int]) -> Curve:
    """Error of the rebuilt start relative to the final states."""
    measured: list[float] = []
    predicted: list[float] = []
    for trial in trials:
        case = trial.case
        rebuilt = trial.subject.reconstruct(
            trial.problem.function, *trial.problem.inputs(case.torch_dtype, case.device), trial.settings("reversible")
        )
        start = np.stack([trial.problem.z0, trial.problem.z0])
        found, final = (np.stack([to_numpy(state) for state in pair]) for pair in (rebuilt[-1], rebuilt[0]))
        size = rms(final)
        measured.append(rms(found - start) / size)
        predicted.append(trial.scale().round_trip[0] / size if case.num_steps in judged else math.nan)
    return _curve(
        trials[0].case,
        name="reconstruction",
        adjoint="reversible",
        axes=RECONSTRUCTION_AXES,
        x=tuple(float(trial.case.num_steps) for trial in trials),
        y=tuple(measured),
        predicted=tuple(predicted),
    )


def _convergence_curve(trial: Trial) -> Curve:
    """Distance of the iterates from the fixed point, with the line that the spectral rate predicts."""
    star = trial.references.fixed_point(trial.problem)
    rate = predicted_rate(trial)
    states = iterates(trial, min(steps_to_fall(rate, 1e-18, MOST_POINTS), MOST_ITERATES), may_refuse=True)
    size = _norm(star.z_star)
    errors = np.array([np.linalg.norm(difference(to_numpy(state), star.z_star)) / size for state in states])
    chosen = np.unique(np.linspace(0, len(errors) - 1, MOST_POINTS).astype(int))
    predicted = None
    near = np.flatnonzero(errors <= 1e-2)
    if 0 < rate < 1 and near.size:
        # The line is laid through the first point below 1 %, where the start-up is over.
        anchor = int(near[0])
        predicted = tuple(float(errors[anchor] * rate ** (int(n) - anchor)) for n in chosen)
    return _curve(
        trial.case,
        name="convergence",
        axes=CONVERGENCE_AXES,
        x=tuple(float(n) for n in chosen),
        y=tuple(float(errors[n]) for n in chosen),
        predicted=predicted,
        band=tuple(star.uncertainty["z"] * math.sqrt(star.z_star.size) / size for _ in chosen),
    )


def _memory_curve(trial: Trial, adjoint: Adjoint) -> Curve:
    """Bytes alive between forward and backward."""
    kept = [float(kept_bytes(trial, trial.settings(adjoint, num_steps=steps))) for steps in MEMORY_STEPS]
    return _curve(
        trial.case,
        name="memory",
        adjoint=adjoint,
        axes=MEMORY_AXES,
        x=tuple(float(steps) for steps in MEMORY_STEPS),
        y=tuple(kept),
        predicted=tuple(kept[0] for _ in kept) if adjoint == "reversible" else None,
    )


def _curve(
    case: Case,
    *,
    name: str,
    axes: tuple[str, str],
    x: tuple[float, ...],
    y: tuple[float, ...],
    adjoint: str = "",
    target: str = "",
    predicted: tuple[float, ...] | None = None,
    band: tuple[float, ...] | None = None,
) -> Curve:
    return Curve(
        name=name,
        problem=case.problem,
        solver=case.solver,
        adjoint=adjoint,
        target=target,
        beta=case.beta,
        dtype=case.dtype,
        state_dtype=case.state_dtype,
        device=case.device,
        x_name=axes[0],
        y_name=axes[1],
        x=x,
        y=y,
        predicted=predicted,
        band=band,
    )


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))
