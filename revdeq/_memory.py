"""Bytes that a solve and its backward pass keep, counted from one evaluation of f."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from revdeq._probe import probing
from revdeq._tree import Structure, Tree, flatten, unflatten


@dataclass(frozen=True)
class Memory:
    """Bytes of one solve and its backward pass.

    Attributes:
        states: the two coupled states and their two cotangents.
        graph: what autograd keeps of one evaluation of f.
        unrolled: the same solve differentiated by plain autograd, which keeps every evaluation.
    """

    states: int
    graph: int
    unrolled: int

    @property
    def reversible(self) -> int:
        """States and one graph, whatever the number of steps."""
        return self.states + self.graph


def memory_of(
    function: Callable[[Tree, Tree], Tree], z: Tree, args: Tree, state_dtype: torch.dtype, num_steps: int
) -> Memory:
    """Count the bytes of a solve with `num_steps` reversible steps from z.

    Args:
        function: callable of (z, args) that returns the structure of z; evaluated twice.
        z: a state, a tensor or pytree of tensors.
        args: any pytree.
        state_dtype: dtype of the coupled states.
        num_steps: steps, each two evaluations of f.
    """
    leaves, structure = flatten(z)
    components = sum(leaf.numel() for leaf in leaves)
    width = torch.finfo(state_dtype).bits // 8
    # Both graphs are alive at once, so storages that they share (weights, say) are those an unrolled solve keeps once.
    first, one_end = _saved_storages(function, leaves, structure, args)
    second, other_end = _saved_storages(function, leaves, structure, args)
    shared = sum(size for address, size in first.items() if address in second)
    del one_end, other_end
    graph = sum(first.values())
    unrolled = shared + 2 * num_steps * (graph - shared) + 2 * components * width
    return Memory(states=4 * components * width, graph=graph, unrolled=unrolled)


def _saved_storages(
    function: Callable[[Tree, Tree], Tree], leaves: list[Tensor], structure: Structure, args: Tree
) -> tuple[dict[int, int], Tree]:
    """Return address and bytes of each storage that autograd saves in one evaluation, and the graph's end."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    tracked = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    with probing(function, unflatten(tracked, structure), args) as f, torch.enable_grad():
        f(unflatten(tracked, structure))  # what a first evaluation finds out is not part of the graph of the others
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return saved, f(unflatten(tracked, structure))
