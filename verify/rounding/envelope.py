"""The validity envelope: up to how many steps the reversed gradient is as right as asked, predicted and measured.

The prediction is that of `revdeq._precision`, the one that `revdeq.plan` stands on; here it is measured, on affine
fixtures whose spectrum is exactly known.

NOTE [What was measured]
Of the 675 settings of `envelope_frame` with integer states beside the others, 567 converge, and each number of steps
that is predicted met its tolerance on three fixtures. The number of steps that meets it is the predicted one in the
median, at most 2.5 times that in nine of ten settings, and at most 16 times (bfloat16, k .99, where f's own roundings
may add up and did not). For STATE_CONSTANT, 6299 more were measured, 1 to 128 steps each: where rounding of the states
leads, no error exceeded the predicted one, and half of them lie below a fifth of it, alike in every format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from revdeq import GradientError, Health, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq._precision import (
    FUNCTION_CONSTANT as FUNCTION_CONSTANT,
    SLIP as SLIP,
    STATE_CONSTANT as STATE_CONSTANT,
    function_error,
    reversal_error,
)
from revdeq.rates import spectral_rate
from verify.case import DTYPES
from verify.rounding.census import has_bitwise_form
from verify.subject import Function, Settings, Subject


Floats = NDArray[np.float64]
Kind = Literal["real", "imaginary", "complex"]

TOLERANCES = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 1e-1}
"""Gradient error that is asked for, by the dtype of f."""

PRECISIONS = (
    ("float64", "float64"),
    ("float32", "float32"),
    ("float32", "float64"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("bfloat16", "float64"),
)
BITWISE = "bitwise"
"""Stands in the place of the state dtype for integer states."""

BITWISE_PRECISIONS = (("float64", BITWISE), ("float32", BITWISE), ("bfloat16", BITWISE))
KINDS: tuple[Kind, ...] = ("real", "imaginary", "complex")
BETAS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.2, 1.5)
CONSTANTS = (0.5, 0.9, 0.99)

CAP = 128
"""Steps beyond which nothing is predicted: the envelope says "at least"."""

_WIDTH, _SAMPLES = 8, 4
_COMPONENTS = 2 * _WIDTH * _SAMPLES
_FARTHEST = 20


@dataclass(frozen=True)
class EnvelopeRow:
    """How far one setting reaches.

    Attributes:
        kind: spectrum of df/dz.
        contraction_constant: k.
        beta: relaxation parameter.
        dtype: of f.
        state_dtype: of the states, or `BITWISE`.
        tolerance: relative error of dL/dW that is asked for.
        num_steps: N, the greatest number of steps that is predicted to meet it, at most `CAP`; 0 where one step is too
            many; None where the iteration diverges.
        predicted: predicted error after N steps.
        measured: greatest measured error after N steps, over the seeds; None where nothing was measured.
        measured_steps: greatest number of steps, sought beyond N, that still meets the tolerance.
    """

    kind: Kind
    contraction_constant: float
    beta: float
    dtype: str
    state_dtype: str
    tolerance: float
    num_steps: int | None
    predicted: float | None
    measured: float | None = None
    measured_steps: int | None = None


def eigenvalues(kind: Kind, contraction_constant: float) -> NDArray[np.complex128]:
    """Return the spectrum of a fixture: 8 values in a line of half-length k, or on the circle of radius k.

    Args:
        kind: "real" and "imaginary" have both signs; "complex" has pairs at angles from .3 to pi - .3.
        contraction_constant: k.
    """
    if kind == "complex":
        upper = contraction_constant * np.exp(1j * np.linspace(0.3, np.pi - 0.3, _WIDTH // 2))
        return np.concatenate([upper, upper.conj()]).astype(np.complex128)
    sizes = np.linspace(1, 0.2, _WIDTH // 2) * contraction_constant
    values = np.concatenate([sizes, -sizes])
    return np.asarray(values if kind == "real" else 1j * values, dtype=np.complex128)


def predicted_errors(beta: float, spectrum: NDArray[np.complex128], dtype: str, state_dtype: str) -> Floats:
    """Return the predicted relative error of dL/dW after 0, 1, ..., `CAP` steps; see `revdeq._precision`.

    Args:
        beta: relaxation parameter, not 1.
        spectrum: eigenvalues of df/dz, which is taken to be normal.
        dtype: of f, a key of `verify.case.DTYPES`.
        state_dtype: of the states, as wide or wider, or `BITWISE`.
    """
    function, eigen = DTYPES[dtype], torch.from_numpy(spectrum)
    if state_dtype == BITWISE:
        return function_error(beta, eigen, CAP, function).numpy()
    return reversal_error(beta, eigen, CAP, function, DTYPES[state_dtype], components=_COMPONENTS).numpy()


def predicted_steps(beta: float, spectrum: NDArray[np.complex128], dtype: str, state_dtype: str) -> int:
    """Return the greatest number of steps up to which the predicted error is within the tolerance, at most `CAP`."""
    exceeded = np.nonzero(~(predicted_errors(beta, spectrum, dtype, state_dtype) <= TOLERANCES[dtype]))[0]
    return int(exceeded[0]) - 1 if exceeded.size else CAP


def measured_error(
    kind: Kind, contraction_constant: float, beta: float, num_steps: int, dtype: str, state_dtype: str, seed: int
) -> float:
    """Return the relative error of dL/dW of an affine fixture, against the unrolled gradient in float64.

    The float64 reference is wrong by some 1e-15, 2^-29 of the smallest tolerance. The fixture's numbers fill the
    significand of `dtype`: round ones would be undone exactly (M3).

    Args:
        kind: spectrum of W, an exactly normal matrix up to rounding.
        contraction_constant: k.
        beta: relaxation parameter.
        num_steps: N.
        dtype: of f.
        state_dtype: of the states, or `BITWISE`.
        seed: of the fixture's random numbers.

    Returns:
        The error; infinite where the reversed numbers left the range of their dtype.
    """
    tensors = _tensors(kind, contraction_constant, dtype, seed)
    reversal = ReversibleAdjoint(verify=False, on_health=refuse_lost)
    bitwise = state_dtype == BITWISE
    solver = Reversible(beta, arithmetic=BITWISE) if bitwise else Reversible(beta, state_dtype=DTYPES[state_dtype])

    def run(function: Function, z0: Tensor, args: Any) -> tuple[Tensor, Tensor]:
        solution: Any = solve(function, z0, args, solver=solver, adjoint=reversal, max_steps=num_steps, throw=False)
        return solution.z1, solution.y1

    try:
        return _relative_error(tensors, beta, num_steps, run)
    except GradientError:
        return math.inf


def refuse_lost(health: Health) -> None:
    """Raise where reversed numbers left the range of their dtypes, so that what came back is no reversed gradient.

    Raises:
        GradientError: the steps were taken again.
    """
    if health.repeated_segments:
        raise GradientError("the reversed numbers left the range of their dtypes.")


def subject_error(
    subject: Subject,
    kind: Kind,
    contraction_constant: float,
    beta: float,
    num_steps: int,
    dtype: str,
    state_dtype: str,
    seed: int,
    device: str = "cpu",
) -> float:
    """Return the same error for any subject and device; see `measured_error`.

    Raises:
        Exception: whatever the subject raises.
    """
    bitwise = state_dtype == BITWISE
    settings = Settings(
        beta=beta,
        num_steps=num_steps,
        adjoint="reversible",
        state_dtype=torch.float64 if bitwise else DTYPES[state_dtype],
        arithmetic="bitwise" if bitwise else "floating",
    )

    def run(function: Function, z0: Tensor, args: Any) -> tuple[Tensor, Tensor]:
        solved = subject.solve(function, z0, args, settings)
        return solved.z1, solved.y1

    tensors = [tensor.to(device) for tensor in _tensors(kind, contraction_constant, dtype, seed)]
    return _relative_error(tensors, beta, num_steps, run)


def envelope_frame(
    *,
    betas: Sequence[float] = BETAS,
    constants: Sequence[float] = CONSTANTS,
    kinds: Sequence[Kind] = KINDS,
    precisions: Sequence[tuple[str, str]] = PRECISIONS,
    seeds: int = 3,
) -> pd.DataFrame:
    """Return the envelope, a row an `EnvelopeRow`, with `safe` and `inside` where it was measured.

    `safe` says that the measured error after N steps is within the tolerance; `inside` is measured_steps over N.

    Args:
        betas: relaxation parameters.
        constants: contraction constants.
        kinds: spectra.
        precisions: pairs of the dtypes of f and of the states; `BITWISE_PRECISIONS` have rows where beta has the form.
        seeds: fixtures to confirm each row by; 0 predicts only.
    """
    rows = [
        _row(kind, k, beta, dtype, state_dtype, seeds)
        for kind, k, beta, (dtype, state_dtype) in product(kinds, constants, betas, precisions)
        if state_dtype != BITWISE or has_bitwise_form(beta)
    ]
    frame = pd.DataFrame([asdict(row) for row in rows])
    confirmed = frame.measured.notna()
    frame["safe"] = (frame.measured <= frame.tolerance).where(confirmed)
    frame["inside"] = (frame.measured_steps / frame.num_steps).where(confirmed)
    return frame


def _row(kind: Kind, k: float, beta: float, dtype: str, state_dtype: str, seeds: int) -> EnvelopeRow:
    spectrum, tolerance = eigenvalues(kind, k), TOLERANCES[dtype]
    if not float(spectral_rate(torch.from_numpy(spectrum), beta).max()) < 1:
        return EnvelopeRow(kind, k, beta, dtype, state_dtype, tolerance, None, None)
    num_steps = predicted_steps(beta, spectrum, dtype, state_dtype)
    predicted = float(predicted_errors(beta, spectrum, dtype, state_dtype)[num_steps])
    if not seeds or not num_steps:
        return EnvelopeRow(kind, k, beta, dtype, state_dtype, tolerance, num_steps, predicted)

    def worst(steps: int) -> float:
        errors = [measured_error(kind, k, beta, steps, dtype, state_dtype, seed) for seed in range(seeds)]
        return math.nan if any(map(math.isnan, errors)) else max(errors)

    measured = worst(num_steps)
    farthest = reach(worst, num_steps, tolerance) if measured <= tolerance else num_steps
    return EnvelopeRow(kind, k, beta, dtype, state_dtype, tolerance, num_steps, predicted, measured, farthest)


def reach(error: Callable[[int], float], num_steps: int, tolerance: float) -> int:
    """Return the greatest number of steps, sought beyond N until one fails, whose error is within the tolerance.

    Args:
        error: number of steps -> error.
        num_steps: N, which is within it.
        tolerance: the greatest error.
    """
    farthest = num_steps
    for steps in _beyond(num_steps):
        if not error(steps) <= tolerance:
            break
        farthest = steps
    return farthest


def _beyond(num_steps: int) -> list[int]:
    """Return step counts beyond N, growing by a quarter, up to the cap or far enough to be surprised."""
    counts = [num_steps]
    while counts[-1] < min(CAP, _FARTHEST * num_steps):
        counts.append(min(CAP, max(counts[-1] + 1, counts[-1] * 5 // 4)))
    return counts[1:]


def _matrix(kind: Kind, contraction_constant: float, generator: np.random.Generator) -> Floats:
    """A normal matrix with the eigenvalues of the fixture: blocks of two, rotated by a random orthogonal matrix."""
    basis, _ = np.linalg.qr(generator.normal(size=(_WIDTH, _WIDTH)))
    core = np.zeros((_WIDTH, _WIDTH))
    for index, value in enumerate(eigenvalues(kind, contraction_constant)[: _WIDTH // 2]):
        pair = (
            [[value.real, 0.0], [0.0, -value.real]]
            if kind == "real"
            else [[value.real, -value.imag], [value.imag, value.real]]
        )
        core[2 * index : 2 * index + 2, 2 * index : 2 * index + 2] = pair
    return basis @ core @ basis.T


def _tensors(kind: Kind, contraction_constant: float, dtype: str, seed: int) -> list[Tensor]:
    """W, b, z0 and the two cotangents of a fixture."""
    generator = np.random.default_rng((seed, KINDS.index(kind)))
    numbers = [_matrix(kind, contraction_constant, generator)]
    numbers += [generator.normal(size=(_SAMPLES, _WIDTH)) for _ in range(4)]
    return [torch.from_numpy(value).to(DTYPES[dtype]) for value in numbers]


def _relative_error(
    tensors: list[Tensor],
    beta: float,
    num_steps: int,
    run: Callable[[Function, Tensor, Any], tuple[Tensor, Tensor]],
) -> float:
    def unrolled(function: Function, z0: Tensor, args: Any) -> tuple[Tensor, Tensor]:
        solution: Any = solve(
            function, z0, args, solver=Reversible(beta), adjoint=UnrolledAdjoint(), max_steps=num_steps, throw=False
        )
        return solution.z1, solution.y1

    got = _weight_gradient(tensors, run)
    exact = _weight_gradient([t.to(torch.float64) for t in tensors], unrolled)
    return float((got.to(torch.float64) - exact).norm() / exact.norm())


def _weight_gradient(tensors: list[Tensor], run: Callable[[Function, Tensor, Any], tuple[Tensor, Tensor]]) -> Tensor:
    weight, bias, z0, cotangent_z, cotangent_y = tensors
    weight = weight.detach().requires_grad_()

    def function(z: Tensor, args: Any) -> Tensor:
        return z @ args[0].T + args[1]

    z1, y1 = run(function, z0, (weight, bias))
    loss = (z1 * cotangent_z).sum() + (y1 * cotangent_y).sum()
    return torch.autograd.grad(loss, weight)[0]
