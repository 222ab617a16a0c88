"""What the study of round-off measures in each profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verify.result import Curve
from verify.rounding.census import CENSUS_VALUES
from verify.rounding.envelope import BETAS, BITWISE_PRECISIONS, CONSTANTS, PRECISIONS
from verify.studies.rounding.cost import cost_curves
from verify.studies.rounding.errors import BETAS as MODE_BETAS, error_curves
from verify.studies.rounding.frames import census_curves, envelope_curves


@dataclass(frozen=True)
class Extent:
    """How wide the study is.

    Args:
        problems: on which the modes are compared.
        steps: numbers of steps N at which they are.
        envelope_betas: at which the envelope is measured; it is predicted at all.
        envelope_constants: likewise.
        envelope_precisions: likewise, pairs of the dtypes of f and of the states.
        seeds: fixtures for each measured setting of the envelope.
        census_values: values of f in the census.
        cost_betas: at which bytes and time are measured.
        cost_steps: numbers of steps at which they are.
        repeats: runs for the median of a time.
    """

    problems: Sequence[str]
    steps: Sequence[int]
    envelope_betas: Sequence[float]
    envelope_constants: Sequence[float]
    envelope_precisions: Sequence[tuple[str, str]]
    seeds: int
    census_values: Sequence[float]
    cost_betas: Sequence[float]
    cost_steps: Sequence[int]
    repeats: int


QUICK = Extent(
    problems=("dense-tanh", "affine-real"),
    steps=(1, 2, 4, 8, 16, 32),
    envelope_betas=(0.5, 0.8, 1.2),
    envelope_constants=(0.9,),
    envelope_precisions=PRECISIONS,
    seeds=1,
    census_values=(1.0, 0.7),
    cost_betas=(0.5,),
    cost_steps=(4, 16, 64),
    repeats=3,
)
FULL = Extent(
    problems=("dense-tanh", "affine-real", "affine-imaginary", "dense-softplus", "conv-group-norm", "attention"),
    steps=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    envelope_betas=BETAS,
    envelope_constants=CONSTANTS,
    envelope_precisions=(*PRECISIONS, *BITWISE_PRECISIONS),
    seeds=3,
    census_values=CENSUS_VALUES,
    cost_betas=MODE_BETAS,
    cost_steps=(1, 2, 4, 8, 16, 32, 64, 128),
    repeats=5,
)


def roundoff_curves(profile: str) -> Iterator[Curve]:
    """Measure everything that the report says of round-off by mode.

    Args:
        profile: "quick" is the small extent, every other the wide one.

    Yields:
        The curves of `error_curves`, `envelope_curves`, `census_curves` and `cost_curves`.
    """
    extent = QUICK if profile == "quick" else FULL
    yield from error_curves(extent.problems, extent.steps)
    yield from envelope_curves(
        extent.envelope_betas, extent.seeds, extent.envelope_constants, extent.envelope_precisions
    )
    yield from census_curves(extent.census_values)
    yield from cost_curves(extent.cost_betas, extent.cost_steps, extent.repeats)
