"""Modules that shard or reduce by hooks of their own, found where they are called inside f."""

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import distributed
from torch.nn.modules.module import register_module_forward_pre_hook

from revdeq._errors import GradientError


@contextlib.contextmanager
def refuse_sharded_modules() -> Generator[None]:
    """Raise where a module is called inside the block that FSDP or DDP has wrapped.

    Their backward hooks reduce a gradient when it is complete. Inside f they would run once an evaluation, on parts,
    before the sum exists, and the parameters would end without a gradient or with a wrong one.

    Raises:
        GradientError: such a module was called.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    def check(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, FSDPModule | FullyShardedDataParallel | DistributedDataParallel):
            raise GradientError(
                f"function calls {type(module).__name__}, whose FSDP or DDP hooks would reduce parts of the gradient; "
                "apply fully_shard or DDP to the module that calls solve, not to one inside function, "
                "or use UnrolledAdjoint."
            )

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
