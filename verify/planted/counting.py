"""Faults in counting: steps, evaluations, and the samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.planted.base import Honest, Linearised, Run
from verify.subject import Settings


class OneStepTooFew(Honest):
    """Takes N - 1 steps."""

    name = "one-step-too-few"
    description = "N - 1 steps are taken"

    def num_steps(self, settings: Settings) -> int:
        """One fewer."""
        return settings.num_steps - 1


class OneStepTooMany(Honest):
    """Takes N + 1 steps."""

    name = "one-step-too-many"
    description = "N + 1 steps are taken"

    def num_steps(self, settings: Settings) -> int:
        """One more."""
        return settings.num_steps + 1


class StaleStepCount(Honest):
    """Reports another step count than it took."""

    name = "stale-step-count"
    description = "the solution reports N - 1 steps after N were taken"

    def reported_steps(self, settings: Settings, z0: Tensor) -> Tensor:
        """One fewer."""
        return super().reported_steps(settings, z0) - 1


class EvaluatesTwice(Honest):
    """Evaluates f again for each VJP."""

    name = "evaluates-twice"
    description = "backward evaluates f once to rebuild a state and once more for the VJP"

    def linearise(self, run: Run, state: Tensor) -> Linearised:
        """An evaluation that is thrown away, then the one that is used."""
        with torch.no_grad():
            self.evaluate(run, state)
        return super().linearise(run, state)


class StateBeforeLastUpdate(Honest):
    """Returns the state before the last update."""

    name = "state-before-last-update"
    description = "z_{N-1} is returned as z_N"

    def forward(self, run: Run, start: Tensor) -> tuple[Tensor, Tensor]:
        """The right y, the old z."""
        y, z = super().forward(run, start)
        return y, self.undo_half(z, self.evaluate(run, y), run.settings.number)


class OneSampleChangesAnother(Honest):
    """Adds a little of the batch mean to every sample."""

    name = "one-sample-changes-another"
    description = "1e-14 of the batch mean leaks into every sample's start"

    def forward(self, run: Run, start: Tensor) -> tuple[Tensor, Tensor]:
        """Forward from a start in which samples are mixed."""
        return super().forward(run, start + 1e-14 * start.mean(dim=0, keepdim=True))


class WrongRate(Honest):
    """Iterates with a smaller beta than it was asked for."""

    name = "slower-than-asked"
    description = "the forward pass uses 0.9 beta"

    def half(self, state: Tensor, value: Tensor, beta: float) -> Tensor:
        """A shorter step."""
        return super().half(state, value, 0.9 * beta)

    def undo_half(self, state: Tensor, value: Tensor, beta: float) -> Tensor:
        """Undo the shorter step."""
        return super().undo_half(state, value, 0.9 * beta)


FAULTS = (
    OneStepTooFew,
    OneStepTooMany,
    StaleStepCount,
    EvaluatesTwice,
    StateBeforeLastUpdate,
    OneSampleChangesAnother,
    WrongRate,
)
