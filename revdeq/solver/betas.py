"""Which relaxation parameter each half step takes: one number, a schedule, what the residuals say, or a record."""

from abc import ABC, abstractmethod
from typing import NamedTuple, TypeAlias

import torch

from revdeq._residual import residual_norm, sample_norm, sample_shape
from revdeq._schedule import Schedule, next_beta
from revdeq._tree import Leaves


Beta: TypeAlias = float | torch.Tensor
"""A relaxation parameter: one number for all samples, or a float64 tensor with one entry a sample."""

ADAPTIVE_START = 0.8
"""Beta of the first step of an adaptive run; below 1 every contraction converges, and near 1 a ratio says most."""


class Pace(NamedTuple):
    """What an adaptive run remembers, one entry a sample.

    Attributes:
        residual: ||f(z) - z|| at the start of the last step; NaN before the first.
        beta: of the last step.
        record: betas of all steps, shape (*samples, max_steps); NaN where none was taken.
    """

    residual: torch.Tensor
    beta: torch.Tensor
    record: torch.Tensor

    @staticmethod
    def start(z0: Leaves, max_steps: int) -> "Pace":
        """Return the memory of a run that has not begun.

        Args:
            z0: leaves of the start state.
            max_steps: greatest number of steps.
        """
        shape, leaf = sample_shape(z0), z0[0]
        dtype = torch.float32 if leaf.device.type == "mps" else torch.float64

        def full(size: tuple[int, ...], value: float) -> torch.Tensor:
            return torch.full(size, value, dtype=dtype, device=leaf.device)

        nan = float("nan")
        return Pace(full(shape, nan), full(shape, ADAPTIVE_START), full((*shape, max_steps), nan))

    def after(self, value: Leaves, z: Leaves, n: int) -> "Pace":
        """Return the memory with the beta of step n, which `next_beta` chooses; it is a constant for the gradient.

        Where the residual has come down to the rounding of f its ratio says nothing, and beta stays.

        Args:
            value: f(z), the leaves.
            z: the state before the step, in the state dtype.
            n: index of the step, from 0.
        """
        value, z = tuple(v.detach() for v in value), tuple(x.detach() for x in z)
        residual = residual_norm(value, z)
        roundoff = max(torch.finfo(leaf.dtype).eps for leaf in value)
        ratio = torch.where(residual > 8 * roundoff * sample_norm(value), residual / self.residual, torch.nan)
        beta = next_beta(self.beta, ratio)
        step = torch.arange(self.record.shape[-1], device=self.record.device) == n
        return Pace(residual, beta, torch.where(step, beta.unsqueeze(-1), self.record))


class Betas(ABC):
    """The relaxation parameters of a run."""

    def __repr__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def of_step(self, n: int) -> tuple[Beta, Beta]:
        """Return the betas of step n, that of the half step of y and that of z."""

    @abstractmethod
    def retained(self, num_steps: int) -> float:
        """Return the factor |1 - beta| that a half step keeps of a state: the geometric mean over the first N steps.

        Args:
            num_steps: N. Where samples differ, the greatest of their means is returned. This waits for the device.
        """

    def pace(self, z0: Leaves) -> tuple[Pace, ...]:
        """Return what a state must remember so that betas can be chosen as it goes; empty where they are known."""
        del z0
        return ()


class ConstantBeta(Betas):
    """One number for all steps.

    Args:
        beta: the number.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def __repr__(self) -> str:
        return f"beta={self.beta!r}"

    def of_step(self, n: int) -> tuple[Beta, Beta]:
        """See `Betas.of_step`."""
        del n
        return self.beta, self.beta

    def retained(self, num_steps: int) -> float:
        """See `Betas.retained`."""
        del num_steps
        return abs(1.0 - self.beta)


class ScheduledBetas(Betas):
    """Two numbers for every step.

    Args:
        schedule: the numbers.
        max_steps: steps that will be taken at most.

    Raises:
        ValueError: the schedule has fewer.
    """

    def __init__(self, schedule: Schedule, max_steps: int) -> None:
        if max_steps > len(schedule):
            raise ValueError(
                f"max_steps is {max_steps} but the schedule beta has {len(schedule)} steps; give a longer schedule, "
                f"or max_steps <= {len(schedule)}."
            )
        self.schedule = schedule

    def of_step(self, n: int) -> tuple[Beta, Beta]:
        """See `Betas.of_step`."""
        return self.schedule[n]

    def retained(self, num_steps: int) -> float:
        """See `Betas.retained`."""
        return _geometric_mean([beta for pair in self.schedule[:num_steps] for beta in pair])


class AdaptiveBetas(Betas):
    """Betas that each sample chooses as it goes; they are known once they are recorded.

    Args:
        max_steps: steps that will be taken at most.
    """

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps

    def of_step(self, n: int) -> tuple[Beta, Beta]:
        """Raise: the pace of the state has them."""
        raise AssertionError(f"the betas of step {n} stand in the pace of the state that took it")

    def retained(self, num_steps: int) -> float:
        """Raise, likewise."""
        raise AssertionError(f"the betas of {num_steps} steps stand in the pace of the state that took them")

    def pace(self, z0: Leaves) -> tuple[Pace, ...]:
        """See `Betas.pace`."""
        return (Pace.start(z0, self._max_steps),)


class RecordedBetas(Betas):
    """What an adaptive run chose, to be repeated or undone.

    Args:
        pace: of its final state.
    """

    def __init__(self, pace: Pace) -> None:
        # No sample uses a beta that it has not recorded, but a NaN would spread through the ones that do.
        record = torch.nan_to_num(pace.record, nan=0.5)
        # Tensors of their own: a compiled half step would be made anew for each place in a record.
        self._taken = [column.clone() for column in record.unbind(-1)]

    def of_step(self, n: int) -> tuple[Beta, Beta]:
        """See `Betas.of_step`."""
        return self._taken[n], self._taken[n]

    def retained(self, num_steps: int) -> float:
        """See `Betas.retained`."""
        return _geometric_mean(self._taken[:num_steps])


def _geometric_mean(betas: "list[float] | list[torch.Tensor]") -> float:
    kept = [(1.0 - torch.as_tensor(b, dtype=torch.float64)).abs() for b in betas]
    return float(torch.stack(kept).log().mean(dim=0).exp().max()) if kept else 1.0
