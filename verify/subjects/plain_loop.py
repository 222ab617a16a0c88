"""A plain loop: the steps written down, and autograd through all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verify.subject import Function, Settings, Solved
from verify.subjects import SUBJECTS


class PlainLoop:
    """What a user of torch writes who knows no library.

    Attributes:
        name: how results name it.
        claims: what it is judged by.
    """

    name = "plain-loop"
    claims = SUBJECTS["plain-loop"].claims

    def solve(self, function: Function, z0: Tensor, args: Any, settings: Settings) -> Solved:
        """As `verify.subject.Subject.solve`."""
        wide = z0.to(settings.state_dtype)
        y, z = wide, wide
        num_steps = torch.zeros(len(z0), dtype=torch.int64, device=z0.device)
        for n in range(settings.num_steps):
            if settings.stop is None:
                y, z = self.step(function, y, z, z0.dtype, args, settings, n)
                num_steps += 1
                continue
            going = _going(function, z.to(z0.dtype), args, settings.stop)
            if not bool(going.any()):
                break
            num_steps += going
            kept = going.reshape(-1, *(1,) * (z0.ndim - 1))
            moved = self.step(function, y, z, z0.dtype, args, settings, n)
            y, z = (torch.where(kept, new, old) for new, old in zip(moved, (y, z), strict=True))
        return Solved(z.to(z0.dtype), y.to(z0.dtype), num_steps)

    def step(
        self, function: Function, y: Tensor, z: Tensor, dtype: torch.dtype, args: Any, settings: Settings, n: int
    ) -> tuple[Tensor, Tensor]:
        """The states (y, z) after step n."""
        beta, gamma = settings.beta[n] if isinstance(settings.beta, tuple) else (settings.number, settings.number)
        if settings.solver == "relaxed":
            z = (1 - beta) * z + beta * function(z.to(dtype), args)
            return z, z
        y = (1 - beta) * y + beta * function(z.to(dtype), args)
        return y, (1 - gamma) * z + gamma * function(y.to(dtype), args)


def _going(function: Function, z: Tensor, args: Any, stop: float) -> Tensor:
    """Which samples do not meet the tolerance yet."""
    with torch.no_grad():
        value = function(z, args)
    residual, size = (x.double().reshape(len(x), -1).norm(dim=1) for x in (value - z.detach(), value))
    return residual > stop * size


subject = PlainLoop()
