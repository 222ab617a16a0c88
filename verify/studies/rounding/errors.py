"""Errors of every mode against the number of steps: of the rebuilt start, and of the gradient to both targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from revdeq.rates import step_matrix
from verify.case import DTYPES
from verify.problems import get_problem
from verify.problems.problem import Problem
from verify.reference import difference, fixed_point, n_step
from verify.reference.arithmetic.protocol import Array
from verify.result import Curve
from verify.rounding.envelope import BITWISE, CAP, SLIP, predicted_errors
from verify.studies.rates import equilibrium
from verify.studies.rounding.modes import Mode, ModeName, gradients, modes_of, rebuilt_error
from verify.trial.observation import bind
from verify.trial.trial import to_numpy


Floats = NDArray[np.float64]

BETAS = (0.5, 0.8, 1.25)
"""With a bitwise form: 1 - 1/2, 1 - 1/5, 1 + 1/4; the first two are the paper's."""

FUNCTION_DTYPES = ("float64", "float32", "bfloat16")
"""Of f: those for which the envelope names a tolerance."""

STUDIED: tuple[ModeName, ...] = ("floating", "wide", "bitwise", "checkpointed", "default", "implicit")
"""The modes that are compared; unrolled has the gradient of checkpointed to the bit."""

STEPS_NAME = "number of steps N"
REBUILT_NAME = "error of the rebuilt start, relative to the final state"
GRADIENT_NAME = "relative error of the whole gradient"


@dataclass(frozen=True)
class _Setting:
    """One line of the study."""

    problem: Problem
    mode: Mode
    beta: float
    dtype: str
    eigenvalues: NDArray[np.complex128]

    @property
    def state_dtype(self) -> str:
        return str(self.mode.state_dtype(DTYPES[self.dtype])).removeprefix("torch.")


def error_curves(problems: Sequence[str], steps: Sequence[int]) -> Iterator[Curve]:
    """Measure the modes on problems of the zoo.

    Args:
        problems: their names.
        steps: numbers of steps N, increasing.

    Yields:
        "mode-reconstruction" for the modes that reverse; "mode-gradient-error" for every mode and target, the implicit
        one to the fixed point's gradient without z0, on which that does not depend. The curve's `adjoint` is the name
        of the mode. NaN stands where backward refused a gradient whose numbers had overflowed.
    """
    for name in problems:
        eigenvalues = equilibrium(name).eigenvalues
        for beta in BETAS:
            for dtype in FUNCTION_DTYPES:
                for mode in modes_of(DTYPES[dtype], STUDIED):
                    setting = _Setting(get_problem(name), mode, beta, dtype, eigenvalues)
                    if mode.reverses:
                        yield _reconstruction(setting, steps)
                    yield from _gradient(setting, steps)


def _reconstruction(setting: _Setting, steps: Sequence[int]) -> Curve:
    z0, args = setting.problem.inputs(DTYPES[setting.dtype])
    function = setting.problem.function
    found = [rebuilt_error(setting.mode, setting.beta, n, function, z0, args) for n in steps]
    predicted = None
    if setting.mode.name != "bitwise":
        growth = rebuilt_growth(setting.beta, setting.eigenvalues, setting.dtype, setting.state_dtype, 2 * z0.numel())
        predicted = [float(growth[n]) if n <= CAP else math.nan for n in steps]
    return _curve(setting, "mode-reconstruction", REBUILT_NAME, steps, found, predicted)


def rebuilt_growth(
    beta: float, eigenvalues: NDArray[np.complex128], dtype: str, state_dtype: str, components: int
) -> Floats:
    """Predict the relative error of the rebuilt start after 0, 1, ..., `CAP` steps.

        states as narrow as f   A u_s R_N,   R_k = max_kappa ||M^k|| A^(2k),   A = 1/|1 - beta|        (T6)
        wider states            u_s A^N while f repeats itself; from the step n on where one component may be rounded
                                otherwise, u_s A^(n+1) >= q 2 u_f / D, also 2 u_f A R_(N-n)

    Args:
        beta: relaxation parameter, not 1.
        eigenvalues: of df/dz, which is taken to be normal.
        dtype: of f.
        state_dtype: of the states.
        components: D, numbers in both states together.

    References:
        `revdeq._precision`, NOTE [The prediction], whose errors of the states these are at the start.
    """
    function, state = (float(torch.finfo(DTYPES[name]).eps) / 2 for name in (dtype, state_dtype))
    amplified = 1.0 / abs(1.0 - beta)
    step = step_matrix(torch.from_numpy(eigenvalues), beta)
    power = torch.eye(2, dtype=torch.complex128).expand_as(step)
    norms: list[float] = []
    for _ in range(CAP + 1):
        norms.append(float(torch.linalg.matrix_norm(power, 2).max()))
        power = power @ step
    order = np.arange(CAP + 1, dtype=np.float64)
    with np.errstate(over="ignore"):
        growth: Floats = np.asarray(norms, dtype=np.float64) * np.power(amplified, 2.0 * order)
        if state == function:
            return amplified * state * growth
        rebuilt: Floats = state * np.power(amplified, order)
        slips = np.nonzero(rebuilt * amplified >= SLIP * 2.0 * function / components)[0]
        if slips.size:
            first = int(slips[0])
            rebuilt[first:] = np.maximum(rebuilt[first:], 2.0 * function * amplified * growth[: CAP + 1 - first])
        return rebuilt


def _gradient(setting: _Setting, steps: Sequence[int]) -> Iterator[Curve]:
    dtype = DTYPES[setting.dtype]
    cotangents = setting.problem.cotangents(dtype)
    found: list[dict[str, Tensor | None] | None] = []
    for n in steps:
        function, z0, args, leaves = bind(setting.problem, "args", dtype, "cpu")
        found.append(gradients(setting.mode, setting.beta, n, function, z0, args, leaves, cotangents))
    exact = [_expected_after(setting.problem, setting.beta, n, setting.mode.name == "implicit") for n in steps]
    fixed = _expected_at_fixed_point(setting.problem)
    points = [
        [_error(got, one) for got, one in zip(found, exact, strict=True)],
        [_error(got, fixed) for got in found],
    ]
    for target, errors in zip(("n-step", "fixed-point"), points, strict=True):
        predicted = _predicted(setting, steps) if target == "n-step" else None
        y, band = [error for error, _ in errors], [doubt for _, doubt in errors]
        yield _curve(setting, "mode-gradient-error", GRADIENT_NAME, steps, y, predicted, target, band)


def _predicted(setting: _Setting, steps: Sequence[int]) -> list[float] | None:
    """Return what the model says: of reversal, or of f's own roundings alone where the states are kept to the bit.

    The default takes the better of both, and what the implicit gradient lacks is no rounding.
    """
    if setting.mode.name in ("default", "implicit"):
        return None
    state_dtype = setting.state_dtype if setting.mode.name in ("floating", "wide") else BITWISE
    errors = predicted_errors(setting.beta, setting.eigenvalues, setting.dtype, state_dtype)
    return [float(errors[n]) if n <= CAP else math.nan for n in steps]


@dataclass(frozen=True)
class _Expected:
    """The reference's gradient: each leaf as a float64 array and what is left of it, its norm, and its uncertainty."""

    leaves: Mapping[str, tuple[Floats, Floats]]
    size: float
    uncertainty: float

    @staticmethod
    def of(gradient: Mapping[str, Array], uncertainty: Mapping[str, float], without_start: bool) -> _Expected:
        kept = {leaf: value for leaf, value in gradient.items() if not (leaf == "z0" and without_start)}
        high = {leaf: value.astype(np.float64) for leaf, value in kept.items()}
        size = math.hypot(*(norm(value) for value in high.values()))
        doubt = math.hypot(*(uncertainty[leaf] * math.sqrt(value.size) for leaf, value in kept.items()))
        leaves = {leaf: (high[leaf], -difference(high[leaf], value)) for leaf, value in kept.items()}
        return _Expected(leaves, size, doubt / size)


@lru_cache(maxsize=64)
def _expected_after(problem: Problem, beta: float, num_steps: int, without_start: bool) -> _Expected:
    step = n_step(problem, beta, num_steps)
    return _Expected.of(step.gradient, step.uncertainty, without_start)


@lru_cache(maxsize=8)
def _expected_at_fixed_point(problem: Problem) -> _Expected:
    fixed = fixed_point(problem)
    return _Expected.of(fixed.gradient, fixed.uncertainty, True)


def _error(got: Mapping[str, Tensor | None] | None, expected: _Expected) -> tuple[float, float]:
    """(||g - reference|| / ||reference||, the reference's uncertainty likewise); NaN where a gradient is missing."""
    total = 0.0
    for leaf, (high, low) in expected.leaves.items():
        value = None if got is None else got[leaf]
        if value is None:
            return math.nan, expected.uncertainty
        total = math.hypot(total, norm((to_numpy(value) - high) - low))
    return total / expected.size, expected.uncertainty


def norm(values: Floats) -> float:
    """The 2-norm, scaled so that squares neither overflow nor vanish; NaN or infinite where a component is."""
    largest = float(np.max(np.abs(values)))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(values / largest))


def _curve(
    setting: _Setting,
    name: str,
    y_name: str,
    x: Sequence[int],
    y: Sequence[float],
    predicted: Sequence[float] | None,
    target: str = "",
    band: Sequence[float] | None = None,
) -> Curve:
    labels: dict[str, Any] = {
        "problem": setting.problem.name, "solver": "reversible", "adjoint": setting.mode.name, "target": target,
        "beta": setting.beta, "dtype": setting.dtype, "state_dtype": setting.state_dtype, "device": "cpu",
    }  # fmt: skip
    return Curve(
        name=name, **labels, x_name=STEPS_NAME, y_name=y_name, x=tuple(map(float, x)), y=tuple(y),
        predicted=None if predicted is None else tuple(predicted), band=None if band is None else tuple(band),
    )  # fmt: skip
