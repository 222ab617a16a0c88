"""Bytes kept alive between forward and backward, whoever keeps them: the graph, a context object, a closure."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Generator, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Saved:
    """Watches what autograd saves in a forward pass.

    A tensor that the graph saved and dropped again (the graph of a discarded evaluation) does not count; two that share
    a storage count once.
    """

    def __init__(self) -> None:
        self._holders: weakref.WeakSet[_Holder] = weakref.WeakSet()

    @contextlib.contextmanager
    def watch(self) -> Generator[None]:
        """Watch everything that autograd saves inside the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
            yield

    def bytes(self) -> int:
        """Bytes of the distinct storages that live graphs hold."""
        return sum(_storages(holder.tensor for holder in self._holders).values())

    def _pack(self, tensor: Tensor) -> _Holder:
        # An output that is saved with its own graph would keep itself alive: share the storage, not the graph.
        holder = _Holder(tensor.detach())
        self._holders.add(holder)
        return holder


class _Holder:
    """Stands for one saved tensor in the graph; it dies with the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _unpack(holder: _Holder) -> Tensor:
    return holder.tensor


class Allocations(TorchDispatchMode):
    """Follows the storage of every tensor that an operation returns inside the block, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and take note of what it returned."""
        del types
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)
                self._seen[reference.cdata] = (reference, storage.nbytes())
        return result

    def alive(self) -> int:
        """Bytes of the storages that something still holds."""
        return sum(size for reference, size in self._seen.values() if not reference.expired())


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    found: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return found
