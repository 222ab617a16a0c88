"""The settings at which the gate holds the envelope against a subject, and what one of them is given to its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from verify.case import BITWISE, Case
from verify.rounding.envelope import (
    BITWISE as INTEGERS,
    TOLERANCES,
    Kind,
    eigenvalues,
    predicted_steps,
    reach,
    subject_error,
)
from verify.trial.bench import Bench


ENVELOPE = "envelope"
"""Stands in the place of a problem's name in the cases of the envelope."""

SEEDS = (0, 1)


@dataclass(frozen=True)
class Setting:
    """One point of the envelope.

    Args:
        kind: spectrum of the fixture.
        constant: its contraction constant k.
        beta: relaxation parameter.
        dtype: of f.
        state_dtype: of the states, or `verify.rounding.envelope.BITWISE`.
    """

    kind: Kind
    constant: float
    beta: float
    dtype: str
    state_dtype: str

    @property
    def leaf(self) -> str:
        """How rows name the fixture."""
        return f"{self.kind} k={self.constant:g}"

    @property
    def tolerance(self) -> float:
        """The relative error of the gradient that is asked for."""
        return TOLERANCES[self.dtype]

    def case(self, device: str) -> Case:
        """The case of the setting: the predicted number of steps is part of it."""
        return _case(self, device)


SETTINGS: tuple[Setting, ...] = (
    Setting("real", 0.9, 0.8, "float64", "float64"),
    Setting("real", 0.9, 0.8, "float32", "float32"),
    Setting("real", 0.9, 0.8, "float32", "float64"),
    Setting("complex", 0.9, 0.5, "float32", "float32"),
    Setting("complex", 0.9, 0.5, "float32", "float64"),
    Setting("imaginary", 0.99, 0.8, "bfloat16", "bfloat16"),
    Setting("imaginary", 0.9, 0.5, "bfloat16", "float32"),
    Setting("real", 0.9, 0.8, "float32", INTEGERS),
    Setting("real", 0.9, 1.2, "float64", INTEGERS),
)
"""Every mode and every dtype, with and without balance."""


@cache
def _case(setting: Setting, device: str) -> Case:
    spectrum = eigenvalues(setting.kind, setting.constant)
    steps = predicted_steps(setting.beta, spectrum, setting.dtype, setting.state_dtype)
    if setting.state_dtype == INTEGERS:
        return Case(ENVELOPE, setting.beta, steps, setting.dtype, "float64", device, BITWISE)
    return Case(ENVELOPE, setting.beta, steps, setting.dtype, setting.state_dtype, device)


@cache
def settings_by_case(device: str) -> Mapping[Case, Setting]:
    """Every setting by its case."""
    return {setting.case(device): setting for setting in SETTINGS}


def envelope_cases(device: str) -> tuple[Case, ...]:
    """The cases of the envelope, in the order of the settings."""
    return tuple(settings_by_case(device))


@dataclass
class ReachBench(Bench):
    """What a check of the envelope is given."""

    @property
    def setting(self) -> Setting:
        """The setting of the case."""
        return settings_by_case(self.case.device)[self.case]

    @cached_property
    def safe(self) -> float:
        """The worst error over the seeds after the predicted number of steps.

        Raises:
            Exception: whatever the subject raises.
        """
        return self._error(self.case.num_steps)

    def farthest(self) -> int:
        """The greatest number of steps, sought beyond the predicted one, that meets the tolerance in fact."""
        steps, tolerance = self.case.num_steps, self.setting.tolerance
        return reach(self._error, steps, tolerance) if self.safe <= tolerance else steps

    def _error(self, num_steps: int) -> float:
        at = self.setting
        errors = [
            subject_error(
                self.subject, at.kind, at.constant, at.beta, num_steps, at.dtype, at.state_dtype, seed, self.case.device
            )
            for seed in SEEDS
        ]
        return math.nan if any(map(math.isnan, errors)) else max(errors)
