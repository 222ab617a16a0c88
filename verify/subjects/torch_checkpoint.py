"""The plain loop with `torch.utils.checkpoint` round every step: states are stored, and evaluations taken again."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from verify.subject import Function, Settings
from verify.subjects import SUBJECTS
from verify.subjects.plain_loop import PlainLoop


class TorchCheckpoint(PlainLoop):
    """The loop of a user who is short of memory."""

    name = "torch-checkpoint"
    claims = SUBJECTS["torch-checkpoint"].claims

    def step(
        self, function: Function, y: Tensor, z: Tensor, dtype: torch.dtype, args: Any, settings: Settings, n: int
    ) -> tuple[Tensor, Tensor]:
        """The states (y, z) after step n, computed again in backward unless "unrolled" was asked for."""
        if settings.adjoint == "unrolled":
            return super().step(function, y, z, dtype, args, settings, n)
        again = checkpoint(super().step, function, y, z, dtype, args, settings, n, use_reentrant=False)
        return cast("tuple[Tensor, Tensor]", again)


subject = TorchCheckpoint()
