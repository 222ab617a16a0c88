"""Where tasks run when one machine is outgrown: the workers of a dask.distributed scheduler."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from reports.errors import ReportError
from verify.run import Apart, Limits


_PATIENCE = "20s"


@contextmanager
def executor(address: str | None, limits: Limits) -> Generator[Executor | None]:
    """The executor of the scheduler at `address` for as long as the block runs; None for None.

    Args:
        address: such as tcp://host:8786.
        limits: what each task may use; it runs in a process of its own beside the worker's.

    Yields:
        An executor whose workers run one task at a time, or None, which stands for processes of this machine.

    Raises:
        ReportError: dask.distributed is not installed, nothing answers, no worker is there, or a worker has more than
            one thread: a task changes settings of torch that all threads of a process share.
    """
    if address is None:
        yield None
        return
    if find_spec("distributed") is None:
        raise ReportError(
            f"--scheduler {address} needs dask.distributed, which is not installed: run pip install 'revdeq[cluster]'."
        )
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise ReportError(
            f"the scheduler {address} does not answer ({error}): give the address that dask scheduler prints, such as "
            "tcp://host:8786."
        ) from error
    with client:
        threads: dict[str, int] = client.nthreads()
        if not threads or set(threads.values()) != {1}:
            raise ReportError(
                f"the scheduler {address} has workers with {sorted(threads.values()) or 'no'} threads, allowed is one "
                "thread each: start them with dask worker --nthreads 1."
            )
        # Not pure: a task that is measured again is measured, and not remembered.
        yield Apart(client.get_executor(pure=False), limits)
