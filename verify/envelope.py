"""The validity envelope: up to how many steps the reversed gradient is as right as asked, predicted and measured.

NOTE [The prediction]
Reversal rebuilds the states of its k-th step with an error d_k, and the cotangents that meet them have shrunk to
||M^k||, M the step on an eigenvector of df/dz (`revdeq.rates.step_matrix`), A = 1/|1 - beta|:

    error(N) = C_f u_f + C_s A max_kappa sum_{k<N} ||M^k|| d_k

    states as narrow as f    d_k = u_s R_k,    R_k = ||M^k|| A^(2k)                 (the sum is then that of G^k, M1)
    wider states             d_k = u_s A^k     while f, which rounds to a coarser grid, meets the very numbers of the
                                               forward pass and repeats itself: only a = 1 - beta acts on the error;
                             d_k = max(u_s A^k, 2 u_f A R_(k-n))    from step n on, at which u_s A^(n+1) reaches
                                               q 2 u_f / D, so that of D components one may be rounded otherwise.

A rebuilt state beyond the range of f's dtype ends the envelope too, even where cotangents would have hidden its error.

Over 5625 solves (beta .25 to 1.5; k .5, .9, .99; real, imaginary and complex spectra; 1 to 128 steps) the error of
reversal was .0013 to .29 times its sum, half of them within .01 to .09, alike for float64, float32 and bfloat16, and
no error of all 5625 exceeded C_f u_f + .3 times the sum. Beyond n the error jumps by orders of magnitude within a
step or two: there the envelope is near in steps and not in the error. Of the 414 settings of `envelope_frame` that
converge, all are safe; the greatest number of steps that meets the tolerance is 1.2 times the predicted one in the
median, at most twice in nine of ten, and more than 20 times in two (bfloat16 states, imaginary spectra, 1 or 2 steps
predicted).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from revdeq import GradientError, Reversible, ReversibleAdjoint, UnrolledAdjoint, solve
from revdeq.rates import spectral_rate, step_matrix
from verify.case import DTYPES


Floats = NDArray[np.float64]
Kind = Literal["real", "imaginary", "complex"]

STATE_CONSTANT = 0.3
"""C_s: the greatest that was measured, see NOTE [The prediction]."""

FUNCTION_CONSTANT = 8.0
"""C_f: the error of the unrolled gradient in units roundoff of f, its 99th percentile; the median is 2."""

SLIP = 0.1
"""q: the chance, from which on a component may be rounded otherwise in reverse."""

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
KINDS: tuple[Kind, ...] = ("real", "imaginary", "complex")
BETAS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.2, 1.5)
CONSTANTS = (0.5, 0.9, 0.99)

CAP = 128
"""Steps beyond which nothing is predicted: the envelope says "at least"."""

# States and the sums inside f are at most some 2^10 times the relative error that stands for them here.
_ROOM = 2.0**-10

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
        state_dtype: of the states.
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
    """Return the predicted relative error of dL/dW after 0, 1, ..., `CAP` steps; see NOTE [The prediction].

    Args:
        beta: relaxation parameter, not 1.
        spectrum: eigenvalues of df/dz, which is taken to be normal.
        dtype: of f, a key of `verify.case.DTYPES`.
        state_dtype: of the states, as wide or wider.
    """
    function, state = (float(torch.finfo(DTYPES[name]).eps) / 2 for name in (dtype, state_dtype))
    retained = abs(1.0 - beta)
    step = step_matrix(torch.from_numpy(spectrum), beta)
    power = torch.eye(2, dtype=torch.complex128).expand_as(step)
    norms: list[Floats] = []
    for _ in range(CAP):
        norms.append(torch.linalg.matrix_norm(power, 2).numpy())
        power = power @ step
    decay = np.stack(norms)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        growth = decay / (retained ** (2.0 * np.arange(CAP)))[:, None]
        own = np.broadcast_to((state / retained ** np.arange(CAP))[:, None], growth.shape)
        rebuilt = state * growth
        if state < function:
            rebuilt = own.copy()
            slips = np.nonzero(own[:, 0] / retained >= SLIP * 2 * function / _COMPONENTS)[0]
            if slips.size:
                first = int(slips[0])
                rebuilt[first:] = np.maximum(own[first:], 2 * function / retained * growth[: CAP - first])
        # Balanced settings (G = 1) keep their gradient while the states leave the range of f's dtype (T6).
        rebuilt[~(rebuilt / retained <= _ROOM * torch.finfo(DTYPES[dtype]).max)] = np.inf
        sums = np.nan_to_num(np.cumsum(decay * rebuilt, axis=0), nan=np.inf).max(axis=1)
        errors = FUNCTION_CONSTANT * function + STATE_CONSTANT / retained * sums
    return np.concatenate([[0.0], errors])


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
        state_dtype: of the states.
        seed: of the fixture's random numbers.

    Returns:
        The error; infinite where the reversed numbers left the range of their dtype.
    """
    generator = np.random.default_rng((seed, KINDS.index(kind)))
    numbers = [_matrix(kind, contraction_constant, generator)]
    numbers += [generator.normal(size=(_SAMPLES, _WIDTH)) for _ in range(4)]
    tensors = [torch.from_numpy(value).to(DTYPES[dtype]) for value in numbers]
    reversal = ReversibleAdjoint(min_bits=0, on_untrusted="raise")
    try:
        got = _weight_gradient(tensors, Reversible(beta, state_dtype=DTYPES[state_dtype]), reversal, num_steps)
    except GradientError:
        return math.inf  # min_bits is 0: only numbers that left their range are refused
    exact = _weight_gradient([t.to(torch.float64) for t in tensors], Reversible(beta), UnrolledAdjoint(), num_steps)
    return float((got.to(torch.float64) - exact).norm() / exact.norm())


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
        precisions: pairs of the dtypes of f and of the states.
        seeds: fixtures to confirm each row by; 0 predicts only.
    """
    rows = [
        _row(kind, k, beta, dtype, state_dtype, seeds)
        for kind, k, beta, (dtype, state_dtype) in product(kinds, constants, betas, precisions)
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

    measured, farthest = worst(num_steps), num_steps
    for steps in _beyond(num_steps) if measured <= tolerance else []:
        if not worst(steps) <= tolerance:
            break
        farthest = steps
    return EnvelopeRow(kind, k, beta, dtype, state_dtype, tolerance, num_steps, predicted, measured, farthest)


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


def _weight_gradient(tensors: list[Tensor], solver: Reversible, adjoint: Any, num_steps: int) -> Tensor:
    weight, bias, z0, cotangent_z, cotangent_y = tensors
    weight = weight.detach().requires_grad_()

    def function(z: Tensor, args: Any) -> Tensor:
        return z @ args[0].T + args[1]

    solution: Any = solve(
        function, z0, (weight, bias), solver=solver, adjoint=adjoint, max_steps=num_steps, throw=False
    )
    loss = (solution.z1 * cotangent_z).sum() + (solution.y1 * cotangent_y).sum()
    return torch.autograd.grad(loss, weight)[0]
