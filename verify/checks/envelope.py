"""Claim: up to the predicted number of steps the gradient is as right as asked, and not far beyond it."""

from __future__ import annotations

import math
from functools import cache

import torch

from verify.case import BITWISE, Case
from verify.checks.trial import replay_command
from verify.criteria import CRITERIA
from verify.envelope import (
    BITWISE as INTEGERS,
    CAP,
    TOLERANCES,
    Kind,
    eigenvalues,
    predicted_steps,
    reach,
    subject_error,
)
from verify.result import Measurement, Status
from verify.subject import Subject


ENVELOPE = "envelope"
"""Stands in the place of a problem's name in the cases of the envelope."""

SETTINGS: tuple[tuple[Kind, float, float, str, str], ...] = (
    ("real", 0.9, 0.8, "float64", "float64"),
    ("real", 0.9, 0.8, "float32", "float32"),
    ("real", 0.9, 0.8, "float32", "float64"),
    ("complex", 0.9, 0.5, "float32", "float32"),
    ("complex", 0.9, 0.5, "float32", "float64"),
    ("imaginary", 0.99, 0.8, "bfloat16", "bfloat16"),
    ("imaginary", 0.9, 0.5, "bfloat16", "float32"),
    ("real", 0.9, 0.8, "float32", INTEGERS),
    ("real", 0.9, 1.2, "float64", INTEGERS),
)
"""(spectrum, k, beta, dtype of f, of the states): every mode and every dtype, with and without balance."""

SEEDS = (0, 1)


def measure_envelope(
    subject: Subject,
    device: str = "cpu",
    options: tuple[str, ...] = (),
    *,
    only: Case | None = None,
    cases: int = len(SETTINGS),
) -> list[Measurement]:
    """Measure the error after the predicted number of steps, and how many steps meet the tolerance in fact.

        safe   error(N) / tolerance,     near   N_measured / N

    Args:
        subject: what is verified.
        device: where.
        options: what a replay command needs besides the case.
        only: a case to measure alone.
        cases: how many of `SETTINGS` to measure, from the first on.

    Returns:
        For each setting an "envelope-safe" row and, where fewer steps are predicted than the envelope considers, an
        "envelope-near" row; "failed" where the subject raised.

    How this can fail: states narrower than asked for end the envelope early; states that are stored after all, or kept
    wider, reach far beyond it.

    References:
        (THEORY M1, T6); `revdeq.precision`.
    """
    rows: list[Measurement] = []
    for kind, k, beta, dtype, state_dtype in SETTINGS[:cases]:
        case = envelope_case(kind, k, beta, dtype, state_dtype, device)
        if only not in (None, case):
            continue
        random = torch.get_rng_state()
        # What a subject leaves switched or advanced is its own fault, and not to be the next one's.
        with torch.enable_grad():
            rows += _rows(subject, case, kind, k, state_dtype, options)
        torch.set_rng_state(random)
    return rows


@cache
def envelope_case(kind: Kind, k: float, beta: float, dtype: str, state_dtype: str, device: str) -> Case:
    """The case of a setting: the predicted number of steps is part of it."""
    steps = predicted_steps(beta, eigenvalues(kind, k), dtype, state_dtype)
    if state_dtype == INTEGERS:
        return Case(ENVELOPE, beta, steps, dtype, "float64", device, BITWISE)
    return Case(ENVELOPE, beta, steps, dtype, state_dtype, device)


def _rows(
    subject: Subject, case: Case, kind: Kind, k: float, state_dtype: str, options: tuple[str, ...]
) -> list[Measurement]:
    tolerance, steps = TOLERANCES[case.dtype], case.num_steps

    def error(num_steps: int) -> float:
        errors = [
            subject_error(subject, kind, k, case.beta, num_steps, case.dtype, state_dtype, seed, case.device)
            for seed in SEEDS
        ]
        return math.nan if any(map(math.isnan, errors)) else max(errors)

    def row(
        check: str, got: float | None, expected: float, status: Status = "measured", reason: str = ""
    ) -> Measurement:
        return Measurement(
            check=check,
            case=case.id,
            problem=ENVELOPE,
            solver=case.solver,
            adjoint="reversible",
            target="n-step",
            beta=case.beta,
            num_steps=steps,
            dtype=case.dtype,
            state_dtype=case.state_dtype,
            device=case.device,
            leaf=f"{kind} k={k:g}",
            got=got,
            expected=expected,
            measured=None if got is None else got / expected,
            unit="relative",
            status=status,
            reason=reason,
            replay=replay_command(case, options),
        )

    try:
        found = error(steps)
        rows = [row("envelope-safe", found, tolerance)]
        if steps < CAP / CRITERIA["envelope-near"].threshold:
            farthest = reach(error, steps, tolerance) if found <= tolerance else steps
            rows.append(row("envelope-near", float(farthest), float(steps)))
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # noqa: BLE001  (whatever a subject raises is a finding, SystemExit too)
        return [row("envelope-safe", None, tolerance, "failed", f"{type(problem).__name__}: {problem}")]
    return rows
