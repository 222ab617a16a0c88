"""The error model: how wrong a result is in units of what rounding does, and how wrong it will be before it is run.

NOTE [One ratio and its twin]
R = RMS(measured - exact) / sig, where sig is the RMS error of the same algorithm, its reversal included, in arithmetic
that disturbs every result by a unit roundoff (`verify.rounding.scale`). R is of order 1 for every dtype, beta
and number of steps, so one threshold serves all. The a-priori twin predicts the gradient's relative error without any
run, from the spectrum of df/dz alone,

    |g_measured - g| / |g| ~ C u sum_{j<N} max_kappa (||M^j|| / |1 - beta|^j)^2        (M1, `revdeq.rates.error_growth`)

with u the unit roundoff of the states; the sum is that of G^j where one eigenvalue leads. C is measured here.

NOTE [What was measured]
Over `study_cases` (dense, convolution and attention cells, a Jordan block, a complex spectrum; beta .5, .8, 1.25; 2
to 8 steps; nine pairs of formats, integer states among them; CPU) every R was at most 2.6, and every R that is not 0 at
least .018 (but for states rebuilt wider than f, whose scale is one rounding to f's dtype that they do not take), with
medians from .3 to .9, so the threshold of 10 leaves a factor of nearly 4.
C for sums over steps (args): medians .03 (complex spectrum), .06 (dense tanh), .09 (convolution, Jordan block), .31
(dense softplus), .46 (attention); nine in ten below 1.4, none above 3.0 but for the Jordan block (42), whose powers
exceed those of its eigenvalue. The gradient of z0, which is no sum over steps, exceeds the twin by up to 264.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
import torch

from revdeq import Reversible, UnrolledAdjoint, solve
from revdeq.rates import error_growth
from verify.case import BITWISE, Case
from verify.checks import CHECKS
from verify.checks.not_stored import AMPLIFICATION
from verify.criteria import LOGIC_POWER, RATIO_LIMIT, ROUNDING_POWER
from verify.problems import get_problem
from verify.spectrum import spectrum_of
from verify.subject import RevdeqSubject, Subject
from verify.trial.trial import Trial


Power = Literal["logic", "precision", "none"]

CELLS = ("dense-tanh", "dense-softplus", "conv-group-norm", "attention", "affine-defective", "affine-general")
"""Dense, convolution and attention cells, and two whose df/dz is not symmetric, the first not even diagonalisable."""

BITWISE_STATES = "bitwise"
"""Stands in the place of the state dtype for integer states."""

TOO_GOOD = 1e-3
"""R below which a reversal that should have lost digits has not been one (A4)."""


def power(scale: float, size: float) -> Power:
    """Return what a row can see: a wrong term ("logic"), a wrong precision ("precision"), or nothing ("none").

    Args:
        scale: sig, the error that rounding causes.
        size: RMS of the reference.

    References:
        (A5)
    """
    relative = scale / size if size > 0 else math.inf
    if relative <= LOGIC_POWER:
        return "logic"
    return "precision" if relative <= ROUNDING_POWER else "none"


def too_good(ratio: float, amplification: float) -> bool:
    """Return whether a result is nearer to the truth than a reversal can come.

    Args:
        ratio: R of a rebuilt state, or of a gradient taken at rebuilt states.
        amplification: by how much rounding is predicted to grow on the way, in units roundoff.

    References:
        (A4)
    """
    return amplification > AMPLIFICATION and ratio < TOO_GOOD


def predicted_growth(problem: str, beta: float, num_steps: int) -> float:
    """Return sum_{j<N} max_kappa (||M^j|| / |1 - beta|^j)^2, the roundings that the twin counts.

    Args:
        problem: name of a problem.
        beta: relaxation parameter, not 1.
        num_steps: N >= 1.
    """
    eigenvalues = torch.from_numpy(np.array(_eigenvalues(problem)))
    return float(error_growth(beta, eigenvalues, num_steps).rounding[-1])


def ratio_frame(cases: Iterable[Case], subject: Subject | None = None) -> pd.DataFrame:
    """Measure R of the forward states, of the reversal and of the gradient per leaf, and the constant C of the twin.

    Args:
        cases: the settings.
        subject: what is measured; by default this distribution.

    Returns:
        A row a claim and leaf: check, problem, beta, num_steps, dtype, state_dtype, adjoint, leaf, ratio (R), power
        ("logic", "precision", "none"), relative (error over the reference's RMS) and, for gradients of the reversible
        adjoint, constant (C). Rows whose reference rounding drowns have power "none" and count for nothing.
    """
    measured = RevdeqSubject() if subject is None else subject
    rows: list[dict[str, object]] = []
    for case in cases:
        trial = Trial(case, measured, get_problem(case.problem))
        bitwise = case.arithmetic == "bitwise"
        rows_of_gradient = [row for row in CHECKS["gradient"].measure(trial) if row.adjoint != "default"]
        # Integer states are rebuilt to the bit: there is no error of theirs to count.
        rebuilt = [] if bitwise else CHECKS["reconstruction"].measure(trial)
        for row in (*CHECKS["forward"].measure(trial), *rebuilt, *rows_of_gradient):
            relative = math.nan if row.power is None or row.measured is None else row.measured * row.power
            constant = math.nan
            if row.check == "gradient" and row.adjoint == "reversible" and not bitwise:
                growth = predicted_growth(case.problem, case.beta, case.num_steps)
                constant = relative / (case.state_unit_roundoff * growth)
            rows.append(
                {
                    "check": row.check,
                    "problem": case.problem,
                    "beta": case.beta,
                    "num_steps": case.num_steps,
                    "dtype": case.dtype,
                    "state_dtype": BITWISE_STATES if bitwise else case.state_dtype,
                    "adjoint": row.adjoint,
                    "leaf": row.leaf,
                    "ratio": row.measured,
                    "power": "none" if row.power is None else power(row.power, 1.0),
                    "relative": relative,
                    "constant": constant,
                }
            )
    return pd.DataFrame(rows)


def study_cases(
    problems: Sequence[str] = CELLS,
    betas: Sequence[float] = (0.5, 0.8, 1.25),
    steps: Sequence[int] = (2, 4, 8),
    dtypes: Sequence[tuple[str, str]] = (
        ("float64", "float64"),
        ("float32", "float32"),
        ("float32", "float64"),
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float64"),
        ("float64", BITWISE_STATES),
        ("float32", BITWISE_STATES),
        ("bfloat16", BITWISE_STATES),
        ("float16", BITWISE_STATES),
    ),
) -> list[Case]:
    """Return the cases over which C and the threshold are measured: dtypes are pairs (of f, of the states)."""
    return [_case(p, b, n, f, s) for p in problems for b in betas for n in steps for f, s in dtypes]


def _case(problem: str, beta: float, num_steps: int, dtype: str, state_dtype: str) -> Case:
    if state_dtype == BITWISE_STATES:
        return Case(problem, beta, num_steps, dtype, "float64", solver=BITWISE)
    return Case(problem, beta, num_steps, dtype, state_dtype)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return, per check, dtype and state dtype, how many rows count, the extremes and quantiles of R, and those of C.

    C is left out (NaN) where the states are wider than f: there rounding of f, which reversal repeats, is the error.

    Raises:
        ValueError: no row counts.
    """
    counted = frame.query("power != 'none' and ratio > 0")
    if counted.empty:
        raise ValueError("no row of the frame has power; measure in a wider dtype or with fewer steps.")
    grouped = counted.groupby(["check", "dtype", "state_dtype"])
    table = grouped.ratio.describe(percentiles=[0.5, 0.99])[["count", "min", "50%", "99%", "max"]]
    same = counted.query("dtype == state_dtype")
    constants = same.groupby(["check", "dtype", "state_dtype"]).constant.agg(["min", "median", "max"])
    table = table.join(constants.add_prefix("C "))
    table["within"] = grouped.ratio.max() <= RATIO_LIMIT
    return table.reset_index()


@cache
def _eigenvalues(name: str) -> tuple[complex, ...]:
    """Eigenvalues of df/dz at the fixed point: those stated, or those at the end of a long solve."""
    problem = get_problem(name)
    if problem.eigenvalues is not None:
        return tuple(complex(value) for value in problem.eigenvalues)
    z0, args = problem.inputs(torch.float64, "cpu")
    with torch.no_grad():
        solution = solve(
            problem.function, z0, args, solver=Reversible(0.5), adjoint=UnrolledAdjoint(), max_steps=400,
            rtol=1e-12, atol=1e-12,
        )  # fmt: skip
    return tuple(complex(value) for value in spectrum_of(problem.function, solution.z1, args).eigenvalues)
