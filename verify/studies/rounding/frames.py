"""The validity envelope and the census of half steps as curves of a results file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from revdeq.rates import spectral_rate
from verify.result import Curve
from verify.rounding.census import CENSUS_BETAS, census_frame, has_bitwise_form
from verify.rounding.envelope import (
    BETAS,
    BITWISE,
    BITWISE_PRECISIONS,
    CAP,
    CONSTANTS,
    KINDS,
    PRECISIONS,
    TOLERANCES,
    eigenvalues,
    envelope_frame,
    predicted_errors,
)


ENVELOPE_STEPS = "greatest number of steps N whose gradient is as right as asked"
ENVELOPE_ERROR = "relative error of dL/dW after the predicted number of steps"
BETA_NAME = "relaxation parameter beta"
FORGOTTEN_NAME = "bits that a half step forgets, mean over all states"
LOST_NAME = "bits wrong after a half step and its inverse, mean over all states"
BOUND_NAME = "greatest error over its proved bound"
RETURNED_NAME = "fraction of the states that come back to the bit"


def envelope_curves(
    measured_betas: Sequence[float],
    seeds: int,
    constants: Sequence[float],
    precisions: Sequence[tuple[str, str]] = PRECISIONS,
    predicted_betas: Sequence[float] = BETAS,
) -> Iterator[Curve]:
    """Predict the envelope everywhere, and measure it at some betas and constants.

    Args:
        measured_betas: relaxation parameters at which it is measured.
        seeds: fixtures for each measured setting.
        constants: contraction constants at which it is measured.
        precisions: pairs of the dtypes of f and of the states, or "bitwise", for which it is measured.
        predicted_betas: relaxation parameters at which it is predicted, for every constant and precision.

    Yields:
        For every spectrum, k and pair of dtypes: "envelope-predicted", the predicted number of steps against beta, NaN
        where the iteration diverges; where it was measured and at least one step is predicted, "envelope-measured", the
        steps that were found beside the predicted ones, and "envelope-error", the error after the predicted number of
        steps, with the error that was asked for as the band. `problem` is "KIND k=K".
    """
    yield from _predicted(predicted_betas)
    measured = envelope_frame(betas=measured_betas, constants=constants, precisions=precisions, seeds=seeds)
    for labels, rows in _settings(measured):
        found = rows.query("num_steps > 0")
        if not found.empty:
            yield _against_beta("envelope-measured", labels, ENVELOPE_STEPS, found, "measured_steps", "num_steps")
            yield _against_beta("envelope-error", labels, ENVELOPE_ERROR, found, "measured", "predicted", "tolerance")


def _predicted(betas: Sequence[float]) -> Iterator[Curve]:
    """Predict the steps for all betas of a setting at once, which is as fast as for one."""
    for kind, constant, (dtype, state_dtype) in product(KINDS, CONSTANTS, (*PRECISIONS, *BITWISE_PRECISIONS)):
        spectrum = eigenvalues(kind, constant)
        possible = [beta for beta in betas if state_dtype != BITWISE or has_bitwise_form(beta)]
        # A tensor of betas gives a column of errors for each.
        many: Any = torch.tensor(possible, dtype=torch.float64)
        exceeded = ~(predicted_errors(many, spectrum, dtype, state_dtype) <= TOLERANCES[dtype])
        steps = np.where(exceeded.any(axis=0), exceeded.argmax(axis=0) - 1, CAP).astype(np.float64)
        rates = [float(spectral_rate(torch.from_numpy(spectrum), beta).max()) for beta in possible]
        steps[~(np.array(rates) < 1)] = math.nan
        rows = pd.DataFrame({"beta": possible, "num_steps": steps}).sort_values("beta")
        labels = (f"{kind} k={constant:g}", dtype, state_dtype)
        yield _against_beta("envelope-predicted", labels, ENVELOPE_STEPS, rows, "num_steps")


def _settings(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """(problem, dtype, state dtype) with the rows of all betas, in order."""
    for key, rows in frame.groupby(["kind", "contraction_constant", "dtype", "state_dtype"], sort=False):
        kind, constant, dtype, state_dtype = cast("tuple[str, float, str, str]", key)
        yield (f"{kind} k={constant:g}", dtype, state_dtype), rows.sort_values("beta")


def _against_beta(
    name: str,
    labels: tuple[str, str, str],
    y_name: str,
    rows: pd.DataFrame,
    y: str,
    predicted: str = "",
    band: str = "",
    adjoint: str = "reversible",
) -> Curve:
    problem, dtype, state_dtype = labels
    return Curve(
        name=name,
        problem=problem,
        solver="reversible",
        adjoint=adjoint,
        dtype=dtype,
        state_dtype=state_dtype,
        device="cpu",
        x_name=BETA_NAME,
        y_name=y_name,
        x=_column(rows, "beta"),
        y=_column(rows, y),
        predicted=_column(rows, predicted) if predicted else None,
        band=_column(rows, band) if band else None,
    )


def census_curves(values: Sequence[float], betas: Sequence[float] = CENSUS_BETAS) -> Iterator[Curve]:
    """Take every state of the 16-bit dtypes through a half step and back.

    Args:
        values: the values of f that are mixed in.
        betas: relaxation parameters; those with a bitwise form are done in integers too.

    Yields:
        Against beta, for every dtype, arithmetic ("floating" or "bitwise", the curve's `adjoint`) and value:
        "census-forgotten" and "census-lost" in bits, each with its prediction, "census-bound", the greatest error over
        its proved bound, and "census-returned", the fraction that came back to the bit. `problem` is "f = VALUE", with
        two digits.
    """
    frame = census_frame(betas=tuple(betas), values=tuple(values))
    frame["fraction"] = frame["returned"] / frame["states"]
    columns = (
        ("census-forgotten", FORGOTTEN_NAME, "bits_forgotten", "bits_forgotten_predicted"),
        ("census-lost", LOST_NAME, "bits_lost", "bits_lost_bound"),
        ("census-bound", BOUND_NAME, "bound_ratio", ""),
        ("census-returned", RETURNED_NAME, "fraction", ""),
    )
    for key, rows in frame.groupby(["dtype", "arithmetic", "value"], sort=False):
        dtype, arithmetic, value = cast("tuple[str, str, float]", key)
        ordered, labels = rows.sort_values("beta"), (f"f = {float(f'{value:.2g}'):g}", dtype, dtype)
        for name, y_name, y, predicted in columns:
            yield _against_beta(name, labels, y_name, ordered, y, predicted, adjoint=arithmetic)


def _column(rows: pd.DataFrame, name: str) -> tuple[float, ...]:
    return tuple(np.asarray(rows[name], dtype=np.float64).tolist())
