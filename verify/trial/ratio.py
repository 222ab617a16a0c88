"""The ratio R: how far a result is from the reference, in units of what rounding alone does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.criteria import ROUNDING_POWER
from verify.reference import difference
from verify.reference.arithmetic.protocol import Array
from verify.result import Measurement, Status
from verify.trial.trial import Trial, to_numpy


def ratio_row(
    trial: Trial,
    leaf: str,
    got: Tensor | None,
    expected: Array,
    *,
    scale: float,
    uncertainty: float,
    adjoint: str = "",
    power_limit: float | None = ROUNDING_POWER,
    least_power: float = 0.0,
    **fields: Any,
) -> Measurement:
    """R = RMS(got - expected) / scale over the components of one leaf, with the worst component shown.

    Args:
        trial: the trial.
        leaf: name of the leaf.
        got: what the subject returned, None where it returned nothing.
        expected: the reference, multiprecision, the shape of `got`.
        scale: RMS spread that rounding gives this leaf.
        uncertainty: largest error of a component of the reference.
        adjoint: which adjoint `got` came from.
        power_limit: largest scale, relative to the reference's RMS, at which the row counts; None where it always does.
        least_power: the row's power where that is larger; infinite where rounding has spoilt what the scale stands on.
        fields: further columns of the row.

    Returns:
        The row, "failed" where the subject returned nothing or something of another shape, "no-power" where rounding
        drowns the reference.
    """
    row = {"leaf": leaf, "uncertainty": uncertainty, **fields}
    if got is None or tuple(got.shape) != expected.shape:
        found = "nothing" if got is None else f"shape {tuple(got.shape)}"
        reason = f"the subject returned {found} where shape {expected.shape} is expected"
        return trial.row(adjoint, status="failed", reason=reason, **row)
    apart = difference(to_numpy(got), expected)
    reference = expected.astype(np.float64)
    size = rms(reference)
    # What is returned was rounded once to its dtype: no scale is finer than that (a uniform error has RMS u/sqrt 3),
    # nor than half the spacing of the subnormal numbers, among which float16 soon has gradients that shrink.
    info = torch.finfo(trial.case.torch_dtype)
    floor = max(info.eps / 2 * size, info.smallest_normal * info.eps / 2) / math.sqrt(3.0)
    scale = max(scale, floor) if math.isfinite(scale) else scale
    power = max(scale / size if size > 0 else math.inf, least_power)
    status: Status = "measured"
    reason = ""
    if power_limit is not None and not power <= power_limit:
        status = "no-power"
        reason = f"rounding is {power:.2g} of the reference, more than {power_limit:.2g}: no fault can be told from it"
    worst = np.unravel_index(int(np.argmax(np.abs(apart))), apart.shape) if apart.size else ()
    error = rms(apart)
    return trial.row(
        adjoint,
        index=tuple(int(place) for place in worst),
        got=float(to_numpy(got)[worst]) if apart.size else None,
        expected=float(reference[worst]) if apart.size else None,
        error=error,
        measured=error / scale if scale > 0 else math.nan,
        scale=scale,
        size=size,
        power=power,
        status=status,
        reason=reason,
        **row,
    )


def start_scale(trial: Trial) -> tuple[float, float]:
    """Error that rounding is predicted to leave in the rebuilt start z_0, and the size of z_0."""
    start = trial.references.n_step(trial.problem, trial.case.beta, trial.case.num_steps).trajectory[0][1]
    return trial.scale().reconstruction[0], rms(start.astype(np.float64))


def reversal_loses_the_states(trial: Trial) -> bool:
    """Whether rounding is predicted to drown the rebuilt start, so that its own row has no power; never for integers.

    Then the states at which backward evaluates f are anything, and so are the overflow and the fallback that may
    follow: what a gradient taken there should be, and what it costs, nobody can say.
    """
    if trial.case.arithmetic == "bitwise" or not trial.claims.reversible:
        return False
    scale, size = start_scale(trial)
    return not (scale <= ROUNDING_POWER * size)


def rms(values: NDArray[np.float64]) -> float:
    """Root of the mean square; NaN for an empty array, so that an empty sample fails."""
    if values.size == 0:
        return math.nan
    largest = float(np.max(np.abs(values)))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean((values / largest) ** 2)))
