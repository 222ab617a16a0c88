"""Faults that lose a gradient: a leaf, a cotangent, a sum, an exception."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.planted.base import Honest, Run, Sums


class ArgsLost(Honest):
    """Forgets args."""

    name = "args-lost"
    description = "args get no gradient"

    def accumulate(self, run: Run, sums: Sums, terms: list[Tensor | None], beta: float, which: str) -> None:
        """Only what was discovered, not what was passed."""
        passed = {id(x) for x in _values(run)}
        kept = [None if id(x) in passed else term for x, term in zip(run.inputs, terms, strict=True)]
        super().accumulate(run, sums, kept, beta, which)


class StartLost(Honest):
    """Forgets z0."""

    name = "start-lost"
    description = "z0 gets no gradient"

    def start_gradient(self, p_y: Tensor, p_z: Tensor) -> Tensor | None:
        """Nothing."""
        del p_y, p_z


class HalfOfStartLost(Honest):
    """Forgets that z0 starts y as well."""

    name = "half-of-start-lost"
    description = "z0 gets the cotangent of z_0 and not that of y_0"

    def start_gradient(self, p_y: Tensor, p_z: Tensor) -> Tensor | None:
        """Half of the sum."""
        del p_y
        return p_z


class CotangentOfYIgnored(Honest):
    """Ignores the cotangent of y1."""

    name = "cotangent-of-y-ignored"
    description = "the cotangent on y1 is taken as zero"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Backward from p_z alone."""
        return super().backward(run, torch.zeros_like(p_y), p_z)


class ParametersNotReached(Honest):
    """Looks at args only, so that module parameters and captured tensors get nothing."""

    name = "parameters-not-reached"
    description = "parameters of a module and captured tensors get no gradient"

    def discover(self, run: Run, z: Tensor) -> Tensor:
        """An evaluation that is not looked at."""
        return self.evaluate(run, z)


class CapturedNotReached(Honest):
    """Reaches a module's parameters and nothing that a closure captured."""

    name = "captured-not-reached"
    description = "tensors captured by a closure get no gradient; module parameters do"

    def discover(self, run: Run, z: Tensor) -> Tensor:
        """Discovery of parameters only."""
        before = list(run.inputs)
        value = super().discover(run, z)
        run.inputs = before + [x for x in run.inputs[len(before) :] if isinstance(x, torch.nn.Parameter)]
        return value


class OverwrittenInsteadOfAdded(Honest):
    """Keeps the last term of each sum."""

    name = "overwritten-instead-of-added"
    description = "the sum over steps is overwritten by its last term"

    def sums(self, run: Run) -> Sums:
        """Sums that forget."""
        return _Forgetful(super().sums(run).totals)


class _Forgetful(Sums):
    def add(self, place: int, term: Tensor) -> None:
        self.totals[place] = term.to(self.totals[place].dtype)


class ExceptionSwallowed(Honest):
    """Turns an exception in backward into zero gradients."""

    name = "exception-swallowed"
    description = "an exception in backward becomes a gradient of zero"

    def backward(self, run: Run, p_y: Tensor, p_z: Tensor) -> tuple[Tensor | None, list[Tensor | None]]:
        """Backward, or zeros."""
        try:
            return super().backward(run, p_y, p_z)
        except Exception:  # noqa: BLE001  (swallowing is the fault)
            return torch.zeros_like(p_z), [torch.zeros_like(x) for x in run.inputs]


def _values(run: Run) -> list[Tensor]:
    return list(run.args.values()) if isinstance(run.args, dict) else []


FAULTS = (
    ArgsLost,
    StartLost,
    HalfOfStartLost,
    CotangentOfYIgnored,
    ParametersNotReached,
    CapturedNotReached,
    OverwrittenInsteadOfAdded,
    ExceptionSwallowed,
)
